"""One training step: the generator's phases, each with an optimizer of its own.

A phase's loss is minimised over its own parameters with everything else frozen. `Together` takes all
gradients at the same weights and on the same batch before any optimizer steps. From a loss or gradient that
is not finite on, no optimizer touches a weight (see `finite`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step, Together, UserError
from genbench.harness.distributed import Ranks
from genbench.harness.finite import Finite
from genbench.harness.optimizers import Schedule
from genbench.harness.seeding import seed_torch


@dataclass(frozen=True)
class Recipe:
    """How a phase is optimised.

    optimizer: parameters, lr -> Optimizer; lr: base learning rate; schedule: step -> factor on lr;
    clip: largest global gradient norm, or None.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    lr: float
    schedule: Schedule
    clip: float | None


@dataclass(frozen=True)
class Computation:
    """How losses are evaluated: where, in which precision, and in how many pieces of a batch."""

    device: torch.device
    autocast: torch.dtype | None
    accumulate: int
    seed: int
    ranks: Ranks


class Optimisation:
    """A phase, its optimizer, and the gradient of its loss."""

    def __init__(self, phase: Phase, recipe: Recipe, computation: Computation, finite: Finite) -> None:
        self.phase = phase
        self.recipe = recipe
        self.computation = computation
        self.finite = finite
        self.parameters = [p for p in phase.params.parameters() if p.requires_grad]
        if not self.parameters:
            raise UserError(f"Phase {phase.name!r} has no parameters to optimise.")
        try:
            self.optimizer = recipe.optimizer(self.parameters, lr=recipe.lr)
        except (TypeError, ValueError) as error:
            raise UserError(f"optim.optimizer could not be built from its settings: {error}") from error

    def gradients(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Leaves the loss's gradient, averaged over ranks, in `.grad`; returns the scalars to log."""
        self.optimizer.zero_grad(set_to_none=True)
        computation = self.computation
        logged: dict[str, Tensor] = {}
        for piece in _pieces(batch, computation.accumulate):
            with torch.autocast(
                computation.device.type, computation.autocast, enabled=computation.autocast is not None
            ):
                losses: Losses = self.phase.loss(piece, step)
            self.finite.note(losses.total, f"loss of phase {self.phase.name!r}", step)
            (losses.total / computation.accumulate).backward()
            for name, value in {"loss": losses.total, **losses.parts}.items():
                share = value.detach().float() / computation.accumulate
                logged[name] = logged[name] + share if name in logged else share
        computation.ranks.average_gradients(self.parameters)
        return {f"{self.phase.name}/{name}": value for name, value in logged.items()}

    def clip(self, step: Step) -> dict[str, Tensor]:
        """Clips the gradient and returns its norm before that."""
        limit = float("inf") if self.recipe.clip is None else self.recipe.clip
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self.finite.note(norm, f"gradient norm of phase {self.phase.name!r}", step)
        if limit < float("inf"):
            nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        return {f"{self.phase.name}/gradient_norm": norm.detach()}

    def step(self, step: Step) -> None:
        """One step of the optimizer, at the schedule's learning rate."""
        lr = self.recipe.lr * self.recipe.schedule(step.index)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.finite.guard(self.optimizer)
        self.optimizer.step()


class Plan:
    """What one training step does: groups of optimisations, in the generator's order."""

    def __init__(
        self, generator: Generator, recipes: Callable[[str], Recipe], computation: Computation
    ) -> None:
        self.computation = computation
        self.finite = Finite(computation.device, computation.ranks)
        self.groups: list[tuple[list[Optimisation], int]] = []
        for entry in generator.phases():
            members: Sequence[Phase] = entry.phases if isinstance(entry, Together) else [entry]
            group = [Optimisation(phase, recipes(phase.name), computation, self.finite) for phase in members]
            self.groups.append((group, 1 if isinstance(entry, Together) else entry.repeats))
        self.optimisations = {o.phase.name: o for group, _ in self.groups for o in group}
        if len(self.optimisations) != sum(len(group) for group, _ in self.groups):
            raise UserError("Two phases of the generator have the same name; names must be distinct.")
        self.batches_per_step = sum(repeats for _, repeats in self.groups)
        self._learnable = [p for p in generator.parameters() if p.requires_grad]
        self._active: Optimisation | None = None

    def run(self, step: Step, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """One training step; returns the scalars to log, detached and on the device."""
        logged: dict[str, Tensor] = {}
        for group, repeats in self.groups:
            for repeat in range(repeats):
                batch = next(batches)
                for optimisation in group:
                    self._activate(optimisation)
                    name, rank = optimisation.phase.name, self.computation.ranks.rank
                    seed_torch(self.computation.seed, "phase", step.index, name, repeat, rank)
                    logged.update(optimisation.gradients(batch, step))
                for optimisation in group:
                    logged.update(optimisation.clip(step))
                for optimisation in group:
                    optimisation.step(step)
        return logged

    def state_dict(self) -> dict[str, Any]:
        """Every optimizer's state, by phase."""
        return {name: o.optimizer.state_dict() for name, o in self.optimisations.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for name, optimisation in self.optimisations.items():
            optimisation.optimizer.load_state_dict(state[name])

    def _activate(self, optimisation: Optimisation) -> None:
        """Makes the phase's parameters the only ones that require gradients."""
        if self._active is optimisation:
            return
        for parameter in self._learnable:
            parameter.requires_grad_(False)
        for parameter in optimisation.parameters:
            parameter.requires_grad_(True)
        self._active = optimisation


def _pieces(batch: Batch, count: int) -> Iterator[Batch]:
    """`count` micro-batches of equal size."""
    if count == 1:
        yield batch
        return
    if len(batch.images) % count:
        raise UserError(
            f"A rank's batch of {len(batch.images)} images cannot be split into {count} equal parts "
            "(trainer.accumulate)."
        )
    labels = [None] * count if batch.labels is None else batch.labels.chunk(count)
    for images, label, index in zip(batch.images.chunk(count), labels, batch.index.chunk(count), strict=True):
        yield Batch(images, label, index)
