"""The loop: exact resume, clean stops, and what is left when a loss is not finite."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest
import torch
from torch import nn

from genbench.contracts import Batch, Generator, Losses, Phase, Step
from genbench.data.batches import Batches
from genbench.data.images import ImageSet
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.distributed import Ranks
from genbench.harness.ema import Average, WarmedUp
from genbench.harness.finite import NotFinite
from genbench.harness.inference import compile_networks
from genbench.harness.optimizers import Constant
from genbench.harness.phases import Computation, Plan, Recipe
from genbench.harness.progress import Progress
from genbench.harness.stopping import Stopper
from genbench.harness.tracking import Tracker
from genbench.harness.trainer import Pace, Periodic, Trainer
from genbench.networks.unet import UNet
from genbench.speed.networks import IMAGE_SHAPE, small_unet
from genbench.speed.precision import PRECISIONS
from genbench.speed.training import our_loop, random_images

BATCH = 8


class Small(Generator):
    """Two networks, dropout, batch statistics and random losses: everything that resume must get right."""

    image_shape = (1, 2, 2)

    def __init__(self, breaks_at: int | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4))
        self.second = nn.Linear(4, 1)
        self.breaks_at = breaks_at

    def phases(self):
        return [
            Phase("second", self.second, self._second, repeats=2),
            Phase("first", self.first, self._first),
        ]

    def _first(self, batch: Batch, step: Step) -> Losses:
        noise = torch.randn(len(batch.images), 4)
        loss = self.second(self.first(noise)).mean() + self.first(batch.images.flatten(1)).square().mean()
        return Losses(loss * (float("nan") if step.index == self.breaks_at else 1.0))

    def _second(self, batch: Batch, step: Step) -> Losses:
        fake = self.second(self.first(torch.randn(len(batch.images), 4)))
        return Losses((fake - self.second(batch.images.flatten(1))).square().mean())


def batches(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return Batch(torch.randn(BATCH, 1, 2, 2, generator=generator), None, torch.arange(BATCH))


def trainer(folder, steps: int, every: int | None = None, optimizer=torch.optim.Adam, **model) -> Trainer:
    torch.manual_seed(0)
    generator = Small(**model)
    recipe = lambda phase: Recipe(partial(optimizer), 1e-2, Constant(warmup=5), clip=1.0)
    plan = Plan(generator, recipe, Computation(torch.device("cpu"), None, 1, 7, Ranks()))
    return Trainer(
        generator,
        plan,
        batches,
        BATCH,
        Average(generator, WarmedUp(0.99)),
        Checkpoints(folder),
        Tracker.silent(),
        Pace(steps, log_every=3, checkpoint_every=every),
    )


def run(subject: Trainer, stopper: Stopper | None = None, periodic=()):
    with Progress(None, "test", visible=False) as progress:
        return subject.run(stopper or Stopper(), list(periodic), progress)


def everything(subject: Trainer):
    """All tensors of the state by a readable name, and the numbers beside them."""
    flat = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, list | tuple):
            for key, inner in enumerate(value):
                walk(f"{name}.{key}", inner)
        else:
            flat[name] = value

    walk("state", {key: value for key, value in subject.state().items() if key != "wall_seconds"})
    return flat


def assert_same(left: Trainer, right: Trainer) -> None:
    a, b = everything(left), everything(right)
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        assert same, name


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("middle", [1, 4, 7])
def test_k_plus_k_steps_equal_2k_steps_bit_for_bit(tmp_path, optimizer, middle):
    whole = trainer(tmp_path / "whole", 10, optimizer=optimizer)
    run(whole)
    first = trainer(tmp_path / "parts", middle, optimizer=optimizer)
    run(first)
    second = trainer(tmp_path / "parts", 10, optimizer=optimizer)
    torch.manual_seed(12345)  # the global generators' state must not matter
    assert second.resume()
    assert second.step == middle
    run(second)
    assert_same(whole, second)


def test_our_own_optimizers_resume_too(tmp_path):
    from genbench.harness.optimizers import AdaFactor, AdaX

    for optimizer in (AdaFactor, AdaX):
        folder = tmp_path / optimizer.__name__
        whole = trainer(folder / "whole", 8, optimizer=optimizer)
        run(whole)
        run(trainer(folder / "parts", 3, optimizer=optimizer))
        second = trainer(folder / "parts", 8, optimizer=optimizer)
        second.resume()
        run(second)
        assert_same(whole, second)


def test_a_budget_ends_with_a_checkpoint_of_where_it_stands(tmp_path):
    subject = trainer(tmp_path, 10_000)
    outcome = run(subject, Stopper(deadline=time.monotonic() + 0.5))
    assert outcome.stopped == "budget"
    assert 0 < outcome.steps < 10_000
    assert subject.checkpoints.latest().step == outcome.steps


def test_sigterm_ends_with_a_checkpoint_and_resumes_exactly(tmp_path):
    subject = trainer(tmp_path / "a", 12)
    stopper = Stopper()
    stopper.listen()
    try:
        outcome = run(subject, stopper, [Periodic(5, lambda step: signal.raise_signal(signal.SIGTERM))])
    finally:
        stopper.deafen()
    assert (outcome.steps, outcome.stopped) == (5, "signal")
    resumed = trainer(tmp_path / "a", 12)
    assert resumed.resume()
    run(resumed)
    whole = trainer(tmp_path / "b", 12)
    run(whole)
    assert_same(whole, resumed)


def test_a_loss_that_is_not_finite_leaves_a_checkpoint_and_names_phase_and_step(tmp_path):
    subject = trainer(tmp_path, 10, every=2, breaks_at=5)
    with pytest.raises(NotFinite, match=r"phase 'first' is not finite at step 5 .*diverged"):
        run(subject)
    assert Checkpoints(tmp_path / "diverged").latest().step == 5
    newest = subject.checkpoints.latest()
    assert newest.step == 4
    state = subject.checkpoints.load(newest)
    assert all(torch.isfinite(value).all() for value in state["generator"].values())


def test_what_is_found_late_has_changed_no_weight_in_between(tmp_path):
    """As on a GPU, where nobody looks until the losses of three steps are logged."""
    fused = partial(torch.optim.Adam, fused=True)
    weights = []
    for late in (False, True):
        folder = tmp_path / str(late)
        subject = trainer(folder, 10, optimizer=fused, breaks_at=3)
        subject.plan.finite.later = late
        with pytest.raises(NotFinite, match=r"phase 'first' is not finite at step 3 .*diverged"):
            run(subject)
        assert subject.step == (6 if late else 3)
        diverged = Checkpoints(folder / "diverged")
        weights.append(diverged.load(diverged.latest())["generator"]["first.0.weight"])
    assert torch.equal(*weights)


def test_what_did_not_stay_finite_is_no_checkpoint(tmp_path):
    subject = trainer(tmp_path, 4, every=1, optimizer=partial(torch.optim.Adam, fused=True), breaks_at=1)
    subject.plan.finite.later = True
    with pytest.raises(NotFinite):
        run(subject)
    assert subject.checkpoints.latest().step == 1


def test_checkpoints_come_as_often_as_asked_and_keep_the_best(tmp_path):
    scores = {2: 5.0, 4: 1.0, 6: 3.0, 8: 4.0}
    subject = trainer(tmp_path, 9, every=1)
    run(subject, periodic=[Periodic(2, scores.get)])
    assert subject.checkpoints.best().step == 4
    assert subject.checkpoints.latest().step == 9


def test_images_seen_counts_every_phase_and_repeat(tmp_path):
    subject = trainer(tmp_path, 4)
    run(subject)
    assert subject.images_seen == 4 * 3 * BATCH


def test_every_batch_is_taken_once_and_in_order(tmp_path):
    subject = trainer(tmp_path, 4)
    numbers = []
    subject.batches = lambda number: numbers.append(number) or batches(number)
    run(subject)
    assert numbers == list(range(4 * 3))


def test_averages_are_told_the_images_before_each_step(tmp_path):
    """As EDM counts: none before the first step, so that the average starts as the first weights."""
    subject = trainer(tmp_path, 3)
    told = []
    subject.average.update = lambda *arguments: told.append(arguments)
    run(subject)
    each = 3 * BATCH
    assert told == [(0, 0, each), (1, each, each), (2, 2 * each, each)]


def test_training_time_accumulates_over_sittings_and_leaves_pictures_out(tmp_path, monkeypatch):
    """A clock that ticks once a reading, and jumps while a picture is made."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1.0
        return now[0]

    def picture(step: int) -> None:
        now[0] += 1000.0

    monkeypatch.setattr("genbench.harness.trainer.time.monotonic", tick)
    first = trainer(tmp_path, 3)
    run(first, periodic=[Periodic(1, picture)])
    spent = first.clock.seconds
    assert 3 <= spent < 100
    second = trainer(tmp_path, 4)
    second.resume()
    assert 3 <= second.clock.seconds <= spent
    run(second)
    assert second.clock.seconds > spent


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for_between_looks(tmp_path):
    device = torch.device("cuda")
    torch.manual_seed(0)
    generator = Small().to(device)
    generator._first = lambda batch, step: Losses(generator.first(batch.images.flatten(1)).square().mean())
    generator._second = lambda batch, step: Losses(generator.second(batch.images.flatten(1)).square().mean())
    recipe = lambda phase: Recipe(partial(torch.optim.Adam, fused=True), 1e-2, Constant(), clip=1.0)
    plan = Plan(generator, recipe, Computation(device, torch.bfloat16, 2, 7, Ranks()))
    average = Average(generator, WarmedUp(0.99))
    zeros = torch.zeros(64, 1, 2, 2, dtype=torch.uint8)
    images = ImageSet("zeros", "train", zeros, None, classes=0, levels=256, sha256="", provenance={}).to(
        device
    )
    taken = Batches(images, BATCH, seed=0, flip=True)
    for step in range(2):  # the first makes what is then there
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            plan.run(Step(step, 9), (taken(3 * step + k) for k in range(3)))
            average.update(step, 0, BATCH)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda each: each.name)
def test_a_gpu_trains_a_denoiser_without_being_waited_for(tmp_path, precision):
    """A U-Net as runs train it: resident images, noise, loss, gradient, clipping, fused Adam, the average."""
    loop = our_loop(small_unet(), random_images(64), 16, precision, torch.device("cuda"), str(tmp_path))
    for wait in ("default", "error", "error"):  # the first makes what is then there
        torch.cuda.set_sync_debug_mode(wait)
        try:
            loop.advance()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
def test_compiled_training_goes_where_eager_training_goes(tmp_path, mode):
    """Weights after four steps in float32, to a hundredth of the way they went; rounding in another order, of
    channels_last on a CPU, makes 6e-5 of it."""
    device, loops = torch.device("cuda"), []
    for name in ("eager", "compiled"):
        torch.manual_seed(0)
        network = UNet(IMAGE_SHAPE, channels=32, multipliers=(1, 2), attention=(16,), dropout=0.0)
        loops.append(our_loop(network, random_images(64), 8, PRECISIONS[0], device, str(tmp_path / name)))
    weights = lambda loop: torch.cat([each.detach().flatten() for each in loop.generator.parameters()])
    before = weights(loops[0])
    compile_networks(loops[1].generator, mode)
    for _ in range(4):
        for loop in loops:
            loop.advance()
    eager, compiled = map(weights, loops)
    assert (compiled - eager).norm() < 0.01 * (eager - before).norm()
