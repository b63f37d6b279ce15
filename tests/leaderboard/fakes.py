"""Leaderboards of as many made-up submissions as wanted, valid to the last byte. None is ever committed.

Each is the committed DDPM submission with other names, costs and figures, of 3 training seeds, in three
tracks: digits, digits conditional and (every fourth) CIFAR-10; one in nine is open, one in six reviewed.
Their moments are the training images' own, moved as far as the figure says. The same `count` makes the same
board.

    python tests/leaderboard/fakes.py DIRECTORY COUNT
"""

from __future__ import annotations

import copy
import io
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genbench.configuration import config_hash, group_hash
from genbench.leaderboard.evidence import kept_images
from genbench.leaderboard.evidence import to_bytes as evidence_bytes
from genbench.leaderboard.record import Result, parse, to_bytes
from genbench.leaderboard.rules import shipped_rules
from genbench.leaderboard.submission import Submission, figures, plain, slug
from genbench.leaderboard.submitting import config_text, sums
from genbench.leaderboard.untrusted import sha256
from genbench.leaderboard.verified import Review, Verified, allowed, scored
from genbench.metrics.gaussians import Gaussian
from genbench.metrics.identity import digest_of, making
from genbench.metrics.packed import read_reference, reference_path

COMMITTED = Path(__file__).parents[2] / "leaderboard" / "submissions" / "digits"

MODELS = (
    ("ddpm", "diffusion", ("ancestral", "ddim", "analytic")),
    ("edm", "diffusion", ("heun", "dpmpp_2m", "unipc")),
    ("score_sde", "diffusion", ("predictor_corrector", "rk45")),
    ("flow", "flow", ("euler", "rk45")),
    ("fgan", "gan", ("decode",)),
    ("eae", "autoencoder", ("decode", "fitted_prior")),
    ("d3pm", "discrete", ("categorical",)),
    ("mdsm", "energy", ("annealed_langevin",)),
)
PEOPLE = ("Ada Lovelace", "B. Riemann", "sofya", "lab-42", "Emmy N.", "genbench", "Группа Ляпунова", "陈省身")


def fill(root: Path, count: int, images: bool = True, edit: Any = None) -> Path:
    """Writes `count` submissions under `root`; `edit(index, value)` may change each submission.json."""
    (template,) = COMMITTED.glob("ddpm-ddim-*-genbench/results/seed0.json")
    base = json.loads(template.read_text())
    pictures = [picture(k) for k in range(12)]
    for index in range(count):
        chance = random.Random(index)
        results = [Result.model_validate(plain_result(base, index, seed, chance)) for seed in range(3)]
        _write(root, index, results, pictures[index % 12] if images else pictures[0], edit)
    return root


def plain_result(base: dict[str, Any], index: int, seed: int, chance: random.Random) -> dict[str, Any]:
    """One training seed of the fake with this index, as plain values."""
    value = copy.deepcopy(base)
    model, family, samplers = MODELS[index % len(MODELS)]
    recipe = random.Random(f"recipe {index}")  # what all seeds of one submission share
    sampler = recipe.choice(samplers)
    nfe = (
        1 if sampler in ("decode", "fitted_prior") else recipe.choice((5, 10, 18, 20, 35, 50, 100, 250, 1000))
    )
    steps = int(10 ** recipe.uniform(4.8, 8.2)) // 128
    images = steps * 128
    quality = 0.6 + 40 / (1 + nfe) ** 0.6 * (1e5 / images) ** 0.3 * recipe.lognormvariate(0, 0.5)
    config = value["config"]
    config["seed"] = seed
    config["model"] |= {"name": model, "family": family, "label_dropout": round(recipe.random(), 6)}
    config["optim"]["lr"] = round(recipe.uniform(1e-5, 1e-3), 8)
    config["sampler"] |= {"name": sampler, "steps": nfe}
    value["model"] = {"name": model, "family": family, "parameters": recipe.randint(10_000, 60_000_000)}
    value["sampling"] |= {
        "sampler": sampler,
        "steps": nfe,
        "nfe_mean": float(nfe),
        "nfe_max": nfe,
        "seconds_per_image": nfe * 3e-4,
        "conditional": index % 5 == 0,
    }
    config["conditional"] = index % 5 == 0
    config["trainer"] |= {"steps": steps, "batch_size": 128}
    value["training"] |= {
        "steps": steps,
        "batch_size": 128,
        "images_seen": images,
        "seed": seed,
        "device_seconds": images / 1200,
        "wall_seconds": images / 1200,
    }
    value["command"] = [
        f"model={model}",
        f"sampler={sampler}",
        f"optim.lr={config['optim']['lr']}",
        f"seed={seed}",
    ]
    score = quality * chance.lognormvariate(0, 0.04)
    value["metrics"][0]["value"], value["metrics"][1]["value"] = score, 9.9 / (1 + score / 20)
    value["metrics"][0]["extractor_sha256"] = value["metrics"][1]["extractor_sha256"] = _extractor("digits")
    if index % 4 == 3:
        _as_cifar10(value)
    value["config_hash"], value["group_hash"] = config_hash(config), group_hash(config)
    return value


def _as_cifar10(value: dict[str, Any]) -> None:
    config = value["config"]
    config["dataset"] |= {"name": "cifar10", "resolution": 32, "channels": 3, "n_samples": 50_000}
    config["metrics"]["n_samples"] = value["sampling"]["n_samples"] = 50_000
    config["conditional"] = value["sampling"]["conditional"] = False
    value["dataset"] |= {
        "name": "cifar10",
        "resolution": 32,
        "channels": 3,
        "n_images": 50_000,
        "sha256": shipped_rules().standards["cifar10"].sha256,
    }
    value["device"]["name"] = "NVIDIA H200"
    for metric, name in zip(value["metrics"], ("fid", "is"), strict=True):
        metric |= {"name": name, "n_samples": 50_000, "extractor": "inception"}
        metric["extractor_sha256"] = shipped_rules().extractors["inception"] + "0" * 56
        metric["reference_sha256"] = digest_of(
            making(
                images=value["dataset"]["sha256"],
                split="train",
                count=50_000,
                extractor="inception",
                weights=metric["extractor_sha256"],
                layer="2048",
                resize=metric["resize"],
                quantiser=metric["quantiser"],
            )
        )


def name_of(text: str) -> str:
    """As much of a hostile text as a name may hold."""
    return text.translate({ord("<"): "(", ord(">"): ")"})[:100]


def _extractor(name: str) -> str:
    return shipped_rules().extractors[name]


def grey(result: Result) -> NDArray[np.uint8]:
    """As many images of one grey as are kept of a run's samples."""
    data = result.dataset
    return np.full((kept_images(result), data.resolution, data.resolution, data.channels), 99, np.uint8)


def review(results: Sequence[Result], submission: bytes, by: str) -> Review:
    """A review of all these training seeds, with everything the same to the bit."""
    seeds = []
    for result in results:
        images = grey(result)
        scores = [
            {"name": m.name, "recorded": m.value, "found": m.value, "allowed": allowed(m)}
            for m in scored(result)
        ]
        count = len(images)
        found = {"images": count, "identical": count, "near": count, "equal": 1.0, "largest": 0}
        found |= {"seed": result.training.seed, "sha256": sha256(images.tobytes()), "scores": scores}
        seeds.append(found)
    value = {
        "by": by,
        "date": "2026-10-11",
        "note": None,
        "submission": sha256(submission),
        "seeds": seeds,
        "genbench_version": "0.1.0",
        "git": {"commit": "ab" * 20, "dirty": False},
        "device": {"name": "A GPU", "type": "cuda", "count": 1},
    }
    return Review.model_validate(value)


def evidence(result: Result) -> bytes:
    """Images of one grey, and the training split's moments moved until their distance is the record's."""
    metric, images = result.metrics[0], grey(result)
    if shipped_rules().card(metric) is None:
        return evidence_bytes(images, {})
    reference, _ = read_reference(reference_path(metric.extractor or ""))
    mean = reference.mean.copy()
    mean[0] += metric.value**0.5
    moved = Gaussian(metric.n_samples, mean, reference.covariance)
    return evidence_bytes(images, {metric.extractor or "": moved})


def _write(root: Path, index: int, results: list[Result], grid: bytes, edit: Any) -> None:
    row, group = figures(results), results[0].group_hash
    contents = {f"results/seed{result.training.seed}.json": to_bytes(result) for result in results}
    value: dict[str, Any] = {
        "schema_version": 1,
        "submitter": PEOPLE[index % len(PEOPLE)],
        "division": "open" if index % 9 == 8 else "closed",
        "note": "trained on a laptop, on a train" if index % 7 == 0 else None,
        "outside_data": None,
        "date": f"2026-{1 + index % 12:02}-{1 + index % 28:02}",
        "group_hash": group,
        "results": [
            {"seed": seed, "file": name, "sha256": sha256(data)}
            for seed, (name, data) in enumerate(contents.items())  # results only, so far
        ],
        "figures": row.model_dump(mode="json"),
    }
    if edit is not None:
        edit(index, value)
    contents |= {f"evidence/seed{result.training.seed}.safetensors": evidence(result) for result in results}
    contents["samples.png"], contents["config.yaml"] = grid, config_text(results[0]).encode()
    contents["submission.json"] = to_bytes(parse(Submission, value, root))
    if index % 6 == 5:  # of all seeds, or of one only
        seen = results if index % 24 < 12 else results[:1]
        reviews = [review(seen, contents["submission.json"], PEOPLE[(index + 1) % len(PEOPLE)])]
        contents["verified.json"] = to_bytes(Verified(schema_version=1, reviews=reviews))
    contents["SHA256SUMS"] = sums(contents).encode()
    folder = root / "submissions" / plain(row.dataset) / slug(row, group, value["submitter"])
    for name in ("results", "evidence"):
        (folder / name).mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def picture(number: int, side: int = 8, tile: int = 34) -> bytes:
    """A PNG of side x side coloured blobs, of the size of a real grid."""
    chance = random.Random(f"picture {number}")
    small = Image.new("RGB", (side * 4, side * 4), "white")
    for place in range((side * 4) ** 2):
        shade = chance.randint(0, 255)
        colour = (shade, shade, shade) if number % 2 else tuple(chance.randint(60, 255) for _ in range(3))
        small.putpixel((place % (side * 4), place // (side * 4)), colour)
    file = io.BytesIO()
    small.resize((side * tile, side * tile), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
