"""What `submit` takes of a finished run for its evidence: the first images, and the moments of all."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from genbench.data.arrays import load_images
from genbench.errors import UserError
from genbench.leaderboard.evidence import departures, distances, from_bytes, kept_images, to_bytes
from genbench.leaderboard.record import Result
from genbench.leaderboard.rules import Rules
from genbench.metrics.extractors import Extractor, Shipped
from genbench.metrics.fid import gaussian
from genbench.metrics.moments import Moments

BATCH = 500


def gather(run: Path, result: Result, rules: Rules) -> bytes:
    """The evidence of a finished run, from its samples/samples.npz.

    Takes seconds for thousands of images, minutes for 50,000. Raises UserError where the samples are missing
    or are not those that were scored.
    """
    path = run / "samples" / "samples.npz"
    again = f"Type: python -m genbench task=evaluate run_dir={run}, and submit the evaluation's folder"
    if not path.exists():
        raise UserError(f"{path} is missing. {again}")
    images = load_images(path, result.dataset.channels, result.dataset.resolution, run).images
    if len(images) != result.sampling.n_samples:
        raise UserError(
            f"{path} holds {len(images):,} images, scored were {result.sampling.n_samples:,}. {again}"
        )
    moments = {}
    for metric in distances(result, rules):
        name = metric.extractor or ""
        moments[name] = gaussian(moments_of(Shipped(name), images[: metric.n_samples]))
    contents = to_bytes(images[: kept_images(result)].permute(0, 2, 3, 1).numpy(), moments)
    for line in departures(from_bytes(contents, path, result, rules), result, rules):
        raise UserError(f"{path} does not hold the images that were scored: {line}. {again}")
    return contents


def moments_of(extractor: Extractor, images: Tensor) -> Moments:
    """The moments of an extractor's features of images uint8 [N, C, H, W]."""
    moments = Moments()
    for part in images.split(BATCH):
        moments.update(extractor(part)[extractor.roles["features"]])
    return moments
