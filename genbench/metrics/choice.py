"""Which extractors a run is scored with, and whether they will work when it ends: asked before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from genbench.contracts import UserError
from genbench.metrics.evaluation import fitting, reads, sizes
from genbench.metrics.extractors import Extractor, Inception
from genbench.metrics.inception_score import SPLITS
from genbench.metrics.measure import Measure


def choose(
    extractors: Sequence[Extractor],
    also_inception: bool | str,
    channels: int,
    device: torch.device,
    weights: str | None = None,
) -> tuple[list[Extractor], list[str]]:
    """The configured extractors and perhaps Inception; and lines that say what was decided.

    also_inception: False; True (Inception is demanded); or "auto": colour images on an accelerator are scored
    with Inception too, where its weights are at hand or can be fetched, which takes ten seconds to find out.
    """
    if also_inception not in (True, False, "auto"):
        raise UserError(f"metrics.also_inception is {also_inception!r}; expected auto, true or false")
    chosen = list(extractors)
    asked = also_inception is True
    offered = also_inception == "auto" and channels == 3 and device.type != "cpu"
    if any(isinstance(extractor, Inception) for extractor in chosen) or not (asked or offered):
        return chosen, []
    inception = Inception(weights)
    if offered:
        obstacle = inception.weights.obstacle()
        if obstacle:
            return chosen, [f"No Inception scores: {obstacle}. Type metrics.weights=PATH to have them."]
    return [*chosen, inception], []


def check(
    extractors: Sequence[Extractor], image_shape: tuple[int, int, int], n_samples: int, device: torch.device
) -> list[str]:
    """Lines for the user about scoring `n_samples` images of `image_shape` (C, H, W) on `device`.

    Raises UserError where a run could not be scored: missing weights, images of another shape, too few
    samples.
    """
    if n_samples < SPLITS:
        raise UserError(
            f"metrics.n_samples={n_samples} is too few: the inception score has {SPLITS} splits; "
            f"type metrics.n_samples={SPLITS} or more (hundreds, to mean anything)"
        )
    return [line for extractor in extractors for line in extractor.check(image_shape, n_samples, device)]


def check_measures(
    measures: Mapping[str, Measure], extractors: Sequence[Extractor], n_samples: int
) -> list[str]:
    """Lines about measures, by the names they were typed as, that some of the extractors have no layer for.

    Raises UserError where one cannot be computed from `n_samples`, or with none of the extractors.
    """
    lines = []
    for name, measure in measures.items():
        without = [extractor for extractor in extractors if not fitting([measure], extractor)]
        lacking = {role for each in without for role in reads(measure) - each.roles.keys()}
        if without:
            line = f"{name} reads {' and '.join(sorted(lacking))}, which {_names(without)} has not"
            if len(without) == len(extractors):
                raise UserError(
                    f"{line}. Leave measures={name} out, or choose another extractor (metrics=...)."
                )
            lines.append(f"{line}: it is computed with the others alone.")
        for extractor in extractors:
            if extractor not in without:
                measure.start(n_samples, sizes(extractor))
    return lines


def _names(extractors: Sequence[Extractor]) -> str:
    return " and ".join(extractor.name for extractor in extractors)
