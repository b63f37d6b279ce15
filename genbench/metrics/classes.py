"""Measures by class, for data sets that have labels.

Fréchet distances of each class apart ask whether a conditional model draws what it was asked for. Modes ask
whether an unconditional one draws everything there is: the classes are those that the extractor itself, a
classifier of the data set, predicts, for samples as for real images, so that its mistakes enter both alike.
With p_k and q_k the shares of class k among samples and real images,

    modes_tv       1/2 sum_k |p_k - q_k|       0 for the same mixture, 1 for none in common
    modes_entropy  -sum_k p_k log p_k          log K where all are drawn alike, 0 for one
    modes_missing  classes with p_k < q_k / 10
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genbench.metrics.fid import frechet_distance
from genbench.metrics.grouped import GroupedMoments
from genbench.metrics.measure import Figure, OfSets, Samples
from genbench.metrics.moments import Moments
from genbench.metrics.reference import Real

MISSING = 0.1
"""A class is missing where its share is below this part of its share among real images."""

NAMED = 20
"""Up to so many classes each have a figure of their own."""


class ClassDistances(OfSets):
    """Fréchet distances of samples drawn by class, each to the real images of its class.

    `class_fd` is their mean, `class_fd_worst` the largest, `class_fd_<k>` that of class k where there are 20
    classes at most. Nothing is computed for samples without classes. A class has few images, and the distance
    a bias of order D^2 / n: compare these with each other at equal counts, never with that of the whole set.
    """

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        reference = real()
        if samples.labels is None or reference.labels is None:
            return []
        classes = int(reference.labels.max()) + 1
        drawn = by_class(samples.layers["features"], samples.labels, classes)
        actual = by_class(reference.features(), reference.labels, classes)
        distances = [frechet_distance(a, b) for a, b in zip(drawn, actual, strict=True) if min(a.n, b.n) > 1]
        if len(distances) < classes:
            return []
        figures = [
            Figure("class_fd", sum(distances) / classes, "lower"),
            Figure("class_fd_worst", max(distances), "lower"),
        ]
        if classes <= NAMED:
            figures += [Figure(f"class_fd_{k}", distance, "lower") for k, distance in enumerate(distances)]
        return figures


class Modes(OfSets):
    """Whether all classes are drawn, and in the right proportions, as the extractor sees them.

    Needs real images with labels and an extractor that predicts those classes; else nothing is computed. Of
    samples drawn by class it also says how many are seen as the class they were drawn for.
    """

    keeps = frozenset({"logits"})

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        reference, logits = real("logits"), samples.layers["logits"]
        classes = logits.shape[1]
        if reference.labels is None or int(reference.labels.max()) + 1 != classes:
            return []
        predicted = logits.argmax(dim=1).cpu()
        p, q = shares(predicted, classes), shares(reference.features().argmax(dim=1), classes)
        against = [reference]
        figures = [
            Figure("modes_tv", float((p - q).abs().sum() / 2), "lower", against=against),
            Figure("modes_entropy", float(-torch.xlogy(p, p).sum()), "higher", against=against),
            Figure("modes_missing", float((p < MISSING * q).sum()), "lower", against=against),
        ]
        if samples.labels is not None:
            right = float((predicted == samples.labels).double().mean())
            figures.append(Figure("class_accuracy", right, "higher", against=against))
        return figures


def by_class(features: Tensor, labels: Tensor, classes: int) -> list[Moments]:
    """The moments of features [n, D] of each class."""
    moments = GroupedMoments(classes, features.shape[1])
    for rows, group in zip(features.split(1000), labels.split(1000), strict=True):
        moments.update(rows, group)
    return [moments.only(k) for k in range(classes)]


def shares(labels: Tensor, classes: int) -> Tensor:
    """float64 [classes]: the share of each class among labels, int64 [n]."""
    return labels.bincount(minlength=classes).double() / len(labels)
