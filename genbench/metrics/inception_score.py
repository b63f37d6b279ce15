"""The inception score, streamed: exponentials of mutual information between image and class.

    IS = exp( E_x KL(p(y|x) || p(y)) ) = exp( 1/n sum_i sum_k p_ik log p_ik  -  sum_k q_k log q_k ),   q =
    1/n sum_i p_i

(Salimans et al. 2016). The second form needs sums alone, so one pass with K + 1 numbers a split is enough
and ranks join by addition. As torch-fidelity defines it: images are put in the order of a permutation drawn
with seed 2020, cut into 10 contiguous splits, and the score is the mean over splits (their population
deviation beside it). The permutation depends on the number of images alone, so a class-ordered sample
scores like a shuffled one and an image's split is known from its index, whichever rank or batch it arrives
in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genbench.metrics.grouped import dealt
from genbench.metrics.measure import Figure, Samples
from genbench.metrics.moments import SumTensors
from genbench.metrics.reference import Real

SPLITS = 10


def split_of(n: int, splits: int = SPLITS) -> Tensor:
    """int64 [n]: the split each of n images belongs to. Raises ValueError for fewer images than splits."""
    if n < splits:
        raise ValueError(f"an inception score of {splits} splits needs at least {splits} images, found {n}")
    return dealt(n, splits)


class InceptionScore:
    """The inception score, for extractors with logits. Its splits show its error: it has no other."""

    requires: frozenset[str] = frozenset({"logits"})
    compares: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()

    def start(self, n: int, dimensions: Mapping[str, int]) -> InceptionSums:
        return InceptionSums(n, dimensions["logits"])


class InceptionSums:
    """The sums of `n` images; state is (K + 2) float64 numbers a split.

    n: how many images there will be; classes: K, the number of logits.
    """

    def __init__(self, n: int, classes: int, splits: int = SPLITS) -> None:
        self._owner = split_of(n, splits)
        self._expected = self._owner.bincount(minlength=splits)
        self._count = torch.zeros(splits, dtype=torch.float64)
        self._negentropy = torch.zeros(splits, dtype=torch.float64)  # sum over images of sum_k p log p
        self._marginal = torch.zeros(splits, classes, dtype=torch.float64)

    def update(self, layers: Mapping[str, Tensor], index: Tensor) -> None:
        """Adds images with numbers `index` (int64 [B], each in [0, n) and seen once) and logits [B, K]."""
        logits = layers["logits"].detach().cpu().double()
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        split = self._owner[index.cpu()]
        self._count.index_add_(0, split, torch.ones(len(split), dtype=torch.float64))
        # xlogy's convention: a class of probability zero adds nothing, though its logarithm is -infinity.
        self._negentropy.index_add_(0, split, torch.where(p > 0, p * log_p, 0.0).sum(dim=1))
        self._marginal.index_add_(0, split, p)

    def merge(self, other: InceptionSums) -> None:
        """Adds what `other`, of the same n and classes, has seen."""
        for mine, theirs in zip(self._state(), other._state()):
            mine += theirs

    def reduce(self, sum_tensors: SumTensors, device: torch.device | str = "cpu") -> None:
        """Becomes the state over all ranks; the sums are made on `device`."""
        moved = [tensor.to(device) for tensor in self._state()]
        sum_tensors(moved)
        for tensor, total in zip(self._state(), moved):
            tensor.copy_(total)

    def scores(self) -> Tensor:
        """The score of each split, float64 [splits]. Raises ValueError unless every image was seen once."""
        if not torch.equal(self._count.long(), self._expected):
            raise ValueError(
                f"expected {int(self._expected.sum())} images, each once; found {int(self._count.sum())} "
                f"({self._count.long().tolist()} a split, expected {self._expected.tolist()})"
            )
        marginal = self._marginal / self._count[:, None]
        information = self._negentropy / self._count - torch.xlogy(marginal, marginal).sum(dim=1)
        return information.exp()

    def score(self) -> tuple[float, float]:
        """Mean and population deviation over splits."""
        scores = self.scores()
        return float(scores.mean()), float(scores.std(correction=0))

    def compute(self, samples: Samples, real: Real) -> Sequence[Figure]:
        """The score; real images play no part."""
        mean, spread = self.score()
        return [Figure("is", mean, "higher", split_std=spread)]

    def _state(self) -> list[Tensor]:
        return [self._count, self._negentropy, self._marginal]


def inception_score(logits: Tensor, splits: int = SPLITS) -> tuple[float, float]:
    """(mean, deviation over splits) of the inception score of logits [n, K], in the images' order."""
    sums = InceptionSums(len(logits), logits.shape[1], splits)
    sums.update({"logits": logits}, torch.arange(len(logits)))
    return sums.score()
