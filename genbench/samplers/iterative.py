"""What every sampler that walks time backwards has in common: a grid of times, an estimate, a count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genbench.contracts import Batch, Denoises, Fitted, Posterior, Sampler, Samples, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.ops.random import Randomness
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Clip, Estimate


@dataclass(frozen=True)
class Path:
    """One batch of images on their way: where estimates and noise come from."""

    model: Counted
    corruption: Any
    take: Estimate
    randomness: Randomness
    labels: Tensor | None
    fitted: Fitted

    def estimate(self, x: Tensor, t: Tensor) -> Posterior:
        """The posterior over x0 at x [B, ...] and t [] or [B]; the one way a sampler evaluates its model."""
        return self.take(self.model, x, t, self.labels)

    def estimate_rows(self, x: Tensor, t: Tensor, rows: Tensor) -> Posterior:
        """The same for those images of the batch that `rows`, bool [B], names; x and t hold just these."""
        labels = None if self.labels is None else self.labels[rows]
        return self.take(self.model, x, t, labels, rows)


class Backwards(Sampler):
    """A sampler of denoisers that walks time backwards. clip, guidance: see `Estimate`."""

    needs = Denoises

    def __init__(self, clip: Clip = False, guidance: float = 0.0) -> None:
        self.take = Estimate(clip, guidance)

    def check(self, model: Any) -> None:
        self.times(model.corruption)
        self.take.check(model)

    @abstractmethod
    def times(self, corruption: Any) -> Tensor:
        """The times that are visited, descending, float64; UserError where there are none."""

    @abstractmethod
    def estimates(self) -> int | None:
        """How many estimates are taken for an image, where known in advance."""

    def evaluations(self) -> int | None:
        estimates = self.estimates()
        return None if estimates is None else estimates * (2 if self.take.guidance else 1)

    def fit(self, model: Any, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """What the corruption's law at t = 1 has to learn."""
        return model.corruption.fit(batches, randomness)

    def placeholder(self, model: Any) -> Fitted:
        return model.corruption.placeholder(model.image_shape)

    @abstractmethod
    def walk(self, x: Tensor, times: Tensor, path: Path) -> Tensor:
        """From x at times[0] to x at times[-1]."""

    def __call__(
        self,
        model: Denoises,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        counted = Counted(model, randomness.batch)
        corruption = model.corruption
        path = Path(counted, corruption, self.take, randomness, labels, fitted or {})
        x = corruption.terminal((randomness.batch, *model.image_shape), randomness, path.fitted)
        return Samples(self.walk(x, self.times(corruption), path), counted.nfe)


class Iterative(Backwards):
    """A sampler on a grid of times; steps: of the grid."""

    def __init__(self, steps: int, grid: Grid, clip: Clip = False, guidance: float = 0.0) -> None:
        super().__init__(clip, guidance)
        self.steps = steps
        self.grid = grid

    def times(self, corruption: Any) -> Tensor:
        return self.grid(self.steps, corruption)


class GaussianIterative(Iterative):
    """A sampler that needs a score or a schedule, which only Gaussian corruptions have."""

    def check(self, model: Any) -> None:
        require_gaussian(model)
        super().check(model)


def require_gaussian(model: Any) -> None:
    """Raises UserError where the model's corruption is not Gaussian."""
    if not isinstance(model.corruption, Gaussian):
        raise UserError(
            "This sampler solves an equation of Gaussian corruption (vp, ve, subvp, edm, flow), which this "
            "model's is not. Type sampler=restore, which needs estimates alone."
        )
