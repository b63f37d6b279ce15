"""What every sampler that walks time backwards has in common: a grid of times, an estimate, a count."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from genbench.contracts import Denoises, Fitted, Posterior, Sampler, Samples, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.ops.random import Randomness
from genbench.samplers.counting import Counted
from genbench.samplers.grids import Grid
from genbench.samplers.guidance import Estimate


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
        return self._take(x, t, self.labels, None)

    def estimate_rows(self, x: Tensor, t: Tensor, rows: Tensor) -> Posterior:
        """The same for those images of the batch that `rows`, bool [B], names; x and t hold just these."""
        return self._take(x, t, None if self.labels is None else self.labels[rows], rows)

    def _take(self, x: Tensor, t: Tensor, labels: Tensor | None, rows: Tensor | None) -> Posterior:
        posterior = self.take(self.model, self.corruption.image(x), t, labels, rows)
        return replace(posterior, mean=self.corruption.state(posterior.mean))


class Backwards(Sampler):
    """A sampler of denoisers that walks time backwards. clip, guidance: see `Estimate`."""

    needs = Denoises

    def __init__(self, clip: bool = False, guidance: float = 0.0) -> None:
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
        x = self.walk(corruption.state(x), self.times(corruption), path)
        return Samples(corruption.image(x), counted.nfe)


class Iterative(Backwards):
    """A sampler on a grid of times; steps: of the grid."""

    def __init__(self, steps: int, grid: Grid, clip: bool = False, guidance: float = 0.0) -> None:
        super().__init__(clip, guidance)
        self.steps = steps
        self.grid = grid

    def times(self, corruption: Any) -> Tensor:
        return self.grid(self.steps, corruption)


class GaussianIterative(Iterative):
    """A sampler that needs a score or a schedule, which only Gaussian corruptions have."""

    def check(self, model: Any) -> None:
        require_gaussian(self, model)
        super().check(model)


def require_gaussian(sampler: Sampler, model: Any) -> None:
    """Raises UserError where the model's corruption is not Gaussian."""
    if not isinstance(model.corruption, Gaussian):
        raise UserError(
            f"{type(sampler).__name__} solves an equation of Gaussian corruption, and this model's is "
            f"{type(model.corruption).__name__}. Choose a sampler that takes estimates alone."
        )
