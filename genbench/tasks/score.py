"""task=score: score anyone's images, a folder, a zip, an npz or an npy, against a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from genbench.cli import Typed
from genbench.contracts import UserError
from genbench.data.arrays import load_images
from genbench.harness.assembly import Assembly
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.recording import spread
from genbench.harness.scoring import build_scoring
from genbench.words import key_of


def run(config: dict[str, Any], typed: Typed) -> float:
    """Prints every metric of the images and returns the main one.

    All images are scored unless metrics.n_samples is typed, which takes the first that many. Classes that
    come with them are what they were drawn for, to measures=classes.
    """
    if config["images"] is None:
        raise UserError(
            "task=score needs the images to score: type images=DIR, or images=FILE of .zip, .npz or .npy."
        )
    refuse_ranks("score")
    device = resolve_device(config["device"])
    assembly = Assembly(config, device, Ranks())
    facts = config["dataset"]
    shape = (facts["channels"], facts["resolution"], facts["resolution"])
    path = Path(config["images"])
    # It is the user's own file, of any size that the machine can hold.
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    brought = load_images(
        path, *shape[:2], assembly.data_root, config["images_range"], most, facts["classes"]
    )
    images, labels = brought.images, brought.labels
    typed_count = "metrics.n_samples" in [key_of(override) for override in typed.now]
    count = config["metrics"]["n_samples"] if typed_count else len(images)
    if count > len(images):
        raise UserError(f"metrics.n_samples={count}, but {config['images']} has {len(images)} images.")
    metrics = {**config["metrics"], "n_samples": count}
    scoring, lines = build_scoring(assembly, metrics, shape)
    scoring.refer_to(assembly.images, facts["reference"], metrics["batch_size"])
    chunks = torch.arange(count).split(metrics["batch_size"])
    parts = ((images[index].to(device), index, None if labels is None else labels[index]) for index in chunks)
    values = scoring.evaluate(parts, count)
    print(f"{config['images']}: {count:,} images against {facts['name']} ({facts['reference']})")
    for line in (f"found {brought.found}", *lines):
        print(f"  {line}")
    for value in values:
        source = f"{value.extractor} {value.extractor_sha256[:12]}"
        print(f"  {value.name:<22} {value.value:.6g}{spread(value)}  ({source})")
    return values[0].value
