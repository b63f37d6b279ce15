"""What determines the result and what does not; hashes and differences agree about it."""

from __future__ import annotations

import copy
import enum
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from genbench.configuration import (
    AS_BEFORE,
    CARRIED_OUT,
    conf_dir,
    config_hash,
    determining,
    differences,
    group_hash,
    refuse_resume,
    resolve,
)
from genbench.errors import UserError

CONFIG: dict[str, Any] = {
    "seed": 0,
    "run_dir": "runs/a",
    "model": {"name": "ddpm", "title": "DDPM", "rate": 0.1},
    "sampler": {"name": "ddim", "steps": 50, "batch_size": 500},
    "trainer": {"steps": 1000, "batch_size": 128, "log_every": 10},
    "metrics": {"seeds": [0, 1], "weights": None},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """CONFIG with one dotted key set."""
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    inner = config
    for part in path:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return config


def test_what_was_promised_to_be_free_is_free() -> None:
    promised = "task run_dir device data_root logger budget checkpoint sampler.batch_size metrics.batch_size"
    promised += " metrics.weights trainer.compile trainer.keep trainer.progress"
    promised += " sampler.compile sampler.graphs threads"
    cadence = {f"trainer.{what}_every" for what in ("log", "sample", "evaluate", "checkpoint")}
    assert set(promised.split()) | cadence <= CARRIED_OUT
    assert (
        not {"seed", "model", "dataset", "sampler", "metrics", "trainer", "optim", "trainer.steps"}
        & CARRIED_OUT
    )


@pytest.mark.parametrize("key", sorted(CARRIED_OUT))
@pytest.mark.parametrize("value", ["other", 7, {"a": {"b": 1}}, None])
def test_where_and_how_a_run_is_carried_out_is_not_hashed(key: str, value: Any) -> None:
    assert config_hash(changed(key, value)) == config_hash(CONFIG)
    assert differences(CONFIG, changed(key, value)) == []
    refuse_resume(CONFIG, changed(key, value), grows=False)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("trainer.batch_size", 64, "trainer.batch_size: 128 -> 64"),
        ("model.rate", 0.2, "model.rate: 0.1 -> 0.2"),
        ("sampler.steps", None, "sampler.steps: 50 -> null"),
        ("metrics.seeds", [0], "metrics.seeds: [0, 1] -> [0]"),
        ("model.extra", True, "model.extra: (absent) -> true"),
        ("batch_size", 1, "batch_size: (absent) -> 1"),
        ("sampler.name", "heun", 'sampler.name: "ddim" -> "heun"'),
        ("seed", 1, "seed: 0 -> 1"),
        ("seed", False, "seed: 0 -> false"),
    ],
)
def test_what_determines_the_result_is_hashed_and_refused(key: str, value: Any, line: str) -> None:
    new = changed(key, value)
    assert config_hash(new) != config_hash(CONFIG)
    assert differences(CONFIG, new) == [line]
    with pytest.raises(UserError) as caught:
        refuse_resume(CONFIG, new, grows=True)
    assert f"\n  {line}\n" in str(caught.value)
    assert "run_dir=PATH" in str(caught.value)


@pytest.mark.parametrize("key", sorted(AS_BEFORE))
def test_a_setting_younger_than_records_leaves_no_trace_unless_it_changes_results(key: str) -> None:
    before = changed(key, AS_BEFORE[key])
    assert config_hash(before) == config_hash(CONFIG)
    assert group_hash(before) == group_hash(CONFIG)
    assert differences(CONFIG, before) == []
    refuse_resume(CONFIG, before, grows=False)
    other = changed(key, "other")
    assert config_hash(other) != config_hash(CONFIG)
    assert differences(CONFIG, other) == [f'{key}: (absent) -> "other"']
    assert differences(before, other) == differences(CONFIG, other)


def test_sampling_in_another_precision_is_another_configuration(compose) -> None:
    usual, narrow = compose(), compose("sampler.precision=bf16")
    assert config_hash(usual) != config_hash(narrow)
    for free in ("sampler.compile=true", "sampler.graphs=false", "sampler.batch_size=7", "threads=1"):
        assert config_hash(compose(free)) == config_hash(usual)


def test_only_the_training_seed_separates_a_group() -> None:
    assert group_hash(changed("seed", 1)) == group_hash(CONFIG)
    assert group_hash(changed("metrics.seeds", [2])) != group_hash(CONFIG)
    assert group_hash(changed("trainer.seed", 1)) != group_hash(CONFIG)


def test_the_hash_is_this_one_for_ever() -> None:
    """Records hold hashes; a change of the canonical form would orphan them all."""
    assert config_hash({"b": [1.0, 0.1, None, True], "a": {"ü": "x"}, "task": "train"}) == (
        "6d26ae528868133b74782c7a06d83deeccf8a72a1591ce4ec1d9e274ca342d45"
    )


def test_order_and_spelling_of_numbers_do_not_matter() -> None:
    assert config_hash({"a": 1, "b": 2.0}) == config_hash({"b": 2, "a": 1.0})
    assert config_hash({"a": -0.0}) == config_hash({"a": 0})
    assert config_hash({"a": 1}) != config_hash({"a": True})
    assert config_hash({"a": 1}) != config_hash({"a": "1"})


def test_steps_may_grow_where_no_schedule_depends_on_them() -> None:
    longer, shorter = changed("trainer.steps", 2000), changed("trainer.steps", 500)
    refuse_resume(CONFIG, longer, grows=True)
    with pytest.raises(UserError, match="a schedule depends"):
        refuse_resume(CONFIG, longer, grows=False)
    with pytest.raises(UserError, match="not shrink"):
        refuse_resume(CONFIG, shorter, grows=True)
    longer["trainer"]["batch_size"] = 1
    with pytest.raises(UserError, match="batch_size") as caught:
        refuse_resume(CONFIG, longer, grows=True)
    assert "trainer.steps" not in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "a", "inf"])
KEYS = st.sampled_from(["a", "b", "seed", "steps", "task", "trainer", "keep"])
TREES = st.recursive(
    LEAVES | st.lists(LEAVES, max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
CONFIGS = st.dictionaries(KEYS, TREES, max_size=4)


@settings(max_examples=120, deadline=None)
@given(CONFIGS, CONFIGS)
def test_differences_and_hashes_say_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert (differences(old, new) == []) == (config_hash(old) == config_hash(new))
    assert differences(old, old) == []
    assert config_hash(determining(old)) == config_hash(old)
    assert config_hash(json.loads(json.dumps(old))) == config_hash(old)


class Colour(enum.Enum):
    RED = 1


def test_resolve_gives_plain_json_values() -> None:
    cfg = OmegaConf.create(
        {
            "seed": 3,
            "model": {"seed": "${seed}", "limit": float("inf"), "name": "${.label}-${seed}", "label": "x"},
            "path": Path("a") / "b",
            "colour": Colour.RED,
            "list": [1, {"a": "${seed}"}],
            "hydra": {"job": {}},
            7: "seven",
        }
    )
    plain = resolve(cfg)
    assert plain == {
        "seed": 3,
        "model": {"seed": 3, "limit": "inf", "name": "x-3", "label": "x"},
        "path": "a/b",
        "colour": "RED",
        "list": [1, {"a": 3}],
        "7": "seven",
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert resolve(plain) == plain
    assert resolve({"a": (1, cfg.model)})["a"][1]["limit"] == "inf"


@pytest.mark.parametrize("value", ["???", "${nothing.here}"])
def test_a_missing_value_is_named_with_what_to_type(value: str) -> None:
    with pytest.raises(UserError, match=r"no value for dataset\.path.*Type dataset\.path=VALUE"):
        resolve(OmegaConf.create({"dataset": {"path": value}}))


def test_conf_dir_has_the_primary_configuration() -> None:
    assert (conf_dir() / "config.yaml").is_file()


def test_conf_dir_prefers_the_wheels_own(tmp_path, monkeypatch) -> None:
    import genbench.configuration as configuration

    package = tmp_path / "genbench"
    package.mkdir()
    monkeypatch.setattr(configuration, "__file__", str(package / "configuration.py"))
    with pytest.raises(UserError, match=r"config\.yaml"):
        conf_dir()
    for folder in (tmp_path / "conf", package / "conf"):
        folder.mkdir()
        (folder / "config.yaml").touch()
        assert conf_dir() == folder


@pytest.mark.parametrize("module", ["genbench.configuration", "genbench.leaderboard.__main__"])
def test_torch_is_not_imported(module: str) -> None:
    command = f"import sys, {module}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
