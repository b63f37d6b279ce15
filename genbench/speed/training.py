"""Training: the network's step beside other suites' networks, then whole steps of the loop and their shares.

Whole steps are `Trainer.advance`: a batch from resident uint8 images, flipped and scaled; noise and times;
loss and gradient; clipping; fused Adam; the moving average. Beside it a loop as scripts write it, around our
network: a DataLoader of PIL pictures through torchvision's transforms, Adam as PyTorch's default, an average
taken parameter by parameter.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from genbench.contracts import Step
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Linear
from genbench.data.batches import Batches
from genbench.data.images import ImageSet
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import Epsilon
from genbench.harness.checkpoint import Checkpoints
from genbench.harness.distributed import Ranks
from genbench.harness.ema import Average, WarmedUp
from genbench.harness.optimizers import Constant
from genbench.harness.phases import Computation, Plan, Recipe
from genbench.harness.tracking import Tracker
from genbench.harness.trainer import Pace, Trainer
from genbench.speed import training_step
from genbench.speed.bench import Bench
from genbench.speed.counting import counted
from genbench.speed.networks import IMAGE_SHAPE, KNOWN, Peer, imported_peer, small_unet
from genbench.speed.precision import PRECISIONS, Precision
from genbench.speed.turns import Contestant, Fact, Row, compare

LEARNING_RATE = 2e-4
CLIP = 1.0
DECAY = 0.9999


def rows(settings: Mapping[str, Any], bench: Bench) -> Iterator[Row]:
    """settings: batch_size; images, how many the data set has."""
    peers = [
        Peer(name, partial(build, package))
        for name, build in KNOWN.items()
        if (package := bench.peer(name)) is not None
    ]
    peers += [imported_peer(path) for path in bench.named]
    yield from training_step.rows(peers, settings["batch_size"], bench.clock)
    images = random_images(settings["images"])
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            ours = our_loop(small_unet(), images, settings["batch_size"], precision, bench.device, folder)
            yield from _compared(ours, images, settings["batch_size"], precision, bench)


def random_images(number: int) -> ImageSet:
    """A data set of noise: what is in a picture does not matter to how fast it is read."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, *IMAGE_SHAPE), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", "train", pixels, None, 0, 256, "", {})


def our_loop(
    network: nn.Module,
    images: ImageSet,
    batch: int,
    precision: Precision,
    device: torch.device,
    folder: str,
) -> Trainer:
    """A run's loop around `network`, as `task=train` puts it together for DDPM; nothing is written."""
    torch.manual_seed(0)
    generator = Denoising(network, Gaussian(Linear()), Regression(Epsilon()), IMAGE_SHAPE).to(device)
    recipe = lambda phase: Recipe(partial(torch.optim.Adam, fused=True), LEARNING_RATE, Constant(), CLIP)
    plan = Plan(generator, recipe, Computation(device, precision.autocast, 1, 0, Ranks()))
    return Trainer(
        generator,
        plan,
        Batches(images.to(device), batch, seed=0, flip=True),
        batch,
        Average(generator, WarmedUp(DECAY)),
        Checkpoints(Path(folder)),
        Tracker.silent(),
        Pace(steps=1_000_000),
    )


class Pictures(Dataset[Tensor]):
    """Pictures as files are decoded to, and what torchvision makes of them, one at a time."""

    def __init__(self, images: ImageSet) -> None:
        from torchvision import transforms

        to_picture = transforms.ToPILImage()
        self.pictures = [to_picture(image) for image in images.images]
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: int) -> Tensor:
        image: Tensor = self.transform(self.pictures[place])
        return image


class PlainLoop:
    """The same training as scripts write it, around `network`."""

    def __init__(
        self, network: nn.Module, images: ImageSet, batch: int, precision: Precision, device: torch.device
    ) -> None:
        self.network, self.precision, self.device = network.to(device), precision, device
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.signal = Linear().alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000).float().to(device)
        loader = DataLoader(Pictures(images), batch_size=batch, shuffle=True, drop_last=True)
        self._batches = (each for _ in count() for each in loader)

    def data(self) -> Tensor:
        """The next batch on the device."""
        return next(self._batches).to(self.device)

    def gradient(self, x0: Tensor) -> None:
        """Leaves the gradient of DDPM's loss."""
        time = torch.randint(0, len(self.signal), (len(x0),), device=self.device)
        alpha = self.signal[time].view(-1, 1, 1, 1)
        noise = torch.randn_like(x0)
        x_t = alpha * x0 + (1 - alpha**2).sqrt() * noise
        self.optimizer.zero_grad()
        with self.precision.context(self.device):
            loss = F.mse_loss(self.network(x_t, time).float(), noise)
        loss.backward()

    def update(self) -> None:
        """Clipping, Adam, the average."""
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mine.mul_(DECAY).add_(theirs, alpha=1 - DECAY)

    def step(self) -> None:
        """All of it."""
        self.gradient(self.data())
        self.update()


def _compared(
    ours: Trainer, images: ImageSet, batch: int, precision: Precision, bench: Bench
) -> Iterator[Row]:
    plain = PlainLoop(small_unet(), images, batch, precision, bench.device)
    numbers = count()

    def data() -> None:
        list(ours.take(next(numbers)))

    def update() -> None:
        step = Step(ours.step, ours.pace.steps)
        for optimisation in ours.plan.optimisations.values():
            optimisation.clip(step)
            optimisation.step(step)
        assert ours.average is not None
        ours.average.update(ours.step, ours.images_seen, batch)

    ours.advance()  # gradients, for what follows to have something to work on
    plain.step()
    facts: dict[str, Fact] = {"precision": precision.name, "flops": _arithmetic(batch, bench.device)}
    say = f"batch {batch}, {precision.name}"
    share = "genbench's {} alone: its share"
    yield from compare(
        "training",
        f"whole step, {say}",
        "image",
        [
            Contestant("genbench", ours.advance, batch, facts=facts),
            Contestant(share.format("data path"), data, batch),
            Contestant(share.format("clipping, Adam and average"), update, batch),
            Contestant("plain loop, our network", plain.step, batch, facts=facts),
        ],
        bench.clock,
    )
    if precision is not PRECISIONS[0]:
        return  # neither depends on it
    yield from compare(
        "training",
        f"data of one step, batch {batch}",
        "image",
        [Contestant("genbench", data, batch), Contestant("DataLoader of PIL pictures", plain.data, batch)],
        bench.clock,
    )
    yield from compare(
        "training",
        "clipping, Adam and average",
        "step",
        [Contestant("genbench", update), Contestant("foreach Adam, average by parameter", plain.update)],
        bench.clock,
    )


def _arithmetic(batch: int, device: torch.device) -> float:
    """FLOP an image: forward, and twice that backward."""
    network = small_unet().to(device)
    x, time = torch.zeros(1, *IMAGE_SHAPE, device=device), torch.zeros(1, device=device)
    return 3 * counted(lambda: network(x, time))["flops"]
