"""A factory of finished run directories, and rules of which the tests know every number."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genbench.configuration import config_hash, group_hash
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import Rules, Standard

RULES = Rules(
    standards={
        "digits": Standard(resolution=8, channels=1, reference="train", n_samples=2000),
        "folder": Standard(resolution=0, channels=0, reference="train", n_samples=2000, shared=False),
    },
    extractors={"digits": "d" * 64, "inception": "6726825d"},
)

CONFIG: dict[str, Any] = {
    "task": "train",
    "seed": 0,
    "device": "cpu",
    "run_dir": "/home/someone/runs/a",
    "data_root": "/home/someone/data",
    "logger": {"_target_": "genbench.harness.tracking.Wandb"},
    "conditional": False,
    "model": {"name": "ddpm", "family": "diffusion", "title": "DDPM", "label_dropout": 0.1},
    "dataset": {"name": "digits", "resolution": 8, "channels": 1, "n_samples": 2000},
    "sampler": {"name": "ddim", "steps": 50, "batch_size": 500},
    "trainer": {"steps": 4000, "batch_size": 128, "precision": "fp32", "log_every": 100},
    "metrics": {"n_samples": 2000, "seeds": [0, 1], "batch_size": 500, "weights": None},
}

METRIC: dict[str, Any] = {
    "name": "fd_digits",
    "value": 1.25,
    "std": 0.02,
    "n_seeds": 2,
    "n_samples": 2000,
    "extractor": "digits",
    "extractor_sha256": "d" * 64,
    "reference": "train, 1437 images",
    "reference_sha256": "e" * 64,
    "quantiser": "round-half-even-127.5",
    "resize": "none",
    "better": "lower",
}

RESULT: dict[str, Any] = {
    "schema_version": 1,
    "genbench_version": "0.1.0",
    "command": ["model=ddpm", "run_dir=/home/someone/runs/a", "logger=none", "sampler.batch_size=10"],
    "config": CONFIG,
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    "dataset": {
        "name": "digits",
        "split": "train",
        "resolution": 8,
        "channels": 1,
        "sha256": "a" * 64,
        "n_images": 1437,
        "provenance": {"source": "scikit-learn"},
    },
    "model": {"name": "ddpm", "family": "diffusion", "parameters": 951_233},
    "training": {
        "steps": 4000,
        "images_seen": 512_000,
        "batch_size": 128,
        "wall_seconds": 120.5,
        "device_seconds": 120.5,
        "seed": 0,
        "stopped": "steps",
        "world_size": 1,
        "precision": "fp32",
    },
    "device": {"name": "A CPU", "type": "cpu", "count": 1},
    "weights": "ema",
    "sampling": {
        "sampler": "ddim",
        "steps": 50,
        "nfe_mean": 50.0,
        "nfe_max": 50,
        "seconds_per_image": 0.0125,
        "n_samples": 2000,
        "conditional": False,
        "seeds": [0, 1],
        "fitted_sha256": None,
    },
    "metrics": [METRIC, METRIC | {"name": "is_digits", "value": 9.1, "better": "higher"}],
    "versions": {"python": "3.12.1", "torch": "2.15.0"},
    "created": "2025-01-31T12:00:00Z",
}


def set_key(tree: Any, key: str, value: Any) -> None:
    """Sets a dotted key, indices of lists included: "metrics.0.value"."""
    *path, last = key.split(".")
    for part in path:
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    tree[int(last) if isinstance(tree, list) else last] = value


def make_plain(seed: int = 0, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A valid result as plain values, with dotted `changes`; the hashes follow the configuration."""
    plain = copy.deepcopy(RESULT)
    plain["training"]["seed"] = plain["config"]["seed"] = seed
    for key, value in (changes or {}).items():
        set_key(plain, key, copy.deepcopy(value))
    plain.setdefault("config_hash", config_hash(plain["config"]))
    plain.setdefault("group_hash", group_hash(plain["config"]))
    return plain


@pytest.fixture(scope="session")
def rules() -> Rules:
    return RULES


@pytest.fixture(scope="session")
def plain() -> Callable[..., dict[str, Any]]:
    return make_plain


@pytest.fixture
def result_file(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes anything as a result.json and returns its path."""

    def write(value: Any) -> Path:
        path = tmp_path / "result.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A finished run's directory for a training seed; `changes` are dotted keys of its result."""

    def make(seed: int = 0, changes: dict[str, Any] | None = None, name: str = "") -> Path:
        run = tmp_path / "runs" / (name or f"seed{seed}")
        (run / "samples").mkdir(parents=True)
        (run / "config.yaml").write_text("seed: 0\n")
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        (run / "samples" / "grid.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([seed]) * 40)
        result = Result.model_validate(make_plain(seed, changes))
        result.write(run / "result.json")
        side, channels = result.dataset.resolution, result.dataset.channels
        images = np.full((result.sampling.n_samples, side, side, channels), seed, np.uint8)
        np.savez_compressed(run / "samples" / "samples.npz", images=images)
        return run

    return make


@pytest.fixture
def make_runs(make_run: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Three training seeds whose fd_digits are `values` (1.1, 1.2, 1.3 unless given)."""

    def make(
        values: tuple[float, ...] = (1.1, 1.2, 1.3), changes: dict[str, Any] | None = None, name: str = "run"
    ) -> list[Path]:
        return [
            make_run(
                seed,
                # every seed's own spreads differ too, as they do in life
                {"metrics.0.value": value, "metrics.1.split_std": 0.1 + seed} | (changes or {}),
                f"{name}-{seed}",
            )
            for seed, value in enumerate(values)
        ]

    return make
