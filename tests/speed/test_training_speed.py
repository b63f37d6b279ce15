"""Training that is timed: what a step is, and that both loops train the same thing."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

from genbench.speed import training, training_step
from genbench.speed.arithmetic import ALONE
from genbench.speed.networks import Peer
from genbench.speed.precision import BFLOAT16, FLOAT32
from genbench.speed.turns import Clock

CPU = torch.device("cpu")


class Recorded(nn.Module):
    """A network of three parameters that writes down when it is called and in which precision."""

    def __init__(self, name: str, calls: list[tuple[str, torch.dtype]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.layer = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        self.before: Tensor | None = None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        assert x.shape == (2, 3, 32, 32)
        assert time.dtype == torch.int64
        if self.before is not None:
            assert not torch.equal(self.before, self.layer.weight)  # a step was taken since
        self.before = self.layer.weight.detach().clone()
        out: Tensor = self.layer(x)
        self.calls.append((self.name, out.dtype))
        return out


def test_networks_take_turns_in_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(training_step.networks, "ours", lambda: Peer("ours", lambda: Recorded("ours", calls)))
    peers = [Peer(name, lambda name=name: Recorded(name, calls)) for name in ("first", "second")]
    rows = training_step.rows(peers, 2, Clock(CPU, rounds=3, warmup=1))

    once = 13  # four rounds of three, and one step whose arithmetic is timed alone
    assert [dtype for _, dtype in calls] == once * [torch.float32] + once * [torch.bfloat16]
    names = ("ours", ALONE, "first", "second")
    assert [(row.facts["precision"], row.name) for row in rows] == [
        (precision, name) for precision in ("fp32", "bf16") for name in names
    ]
    assert all(row.facts.get("parameters", 3) == 3 for row in rows)
    assert [row.ratio is None for row in rows] == 2 * [True, False, False, False]


def test_our_loop_trains_and_writes_nothing(tmp_path) -> None:
    loop = training.our_loop(
        tiny.network(), training.random_images(8), 4, BFLOAT16, CPU, str(tmp_path / "none")
    )
    before = [parameter.detach().clone() for parameter in loop.generator.parameters()]
    logged = loop.advance()
    assert 0.5 < float(logged["denoiser/loss"]) < 2  # an untrained network predicts none of N(0, 1)
    assert loop.step == 1
    changed = [not torch.equal(a, b) for a, b in zip(before, loop.generator.parameters(), strict=True)]
    assert any(changed)
    assert loop.average is not None
    assert not (tmp_path / "none").exists()


def test_the_plain_loop_trains_on_the_same_pictures() -> None:
    images = training.random_images(6)
    loop = training.PlainLoop(tiny.network(), images, 3, FLOAT32, CPU)
    seen = torch.cat([loop.data(), loop.data(), loop.data()])  # past the end of an epoch
    assert len(seen) == 9
    pixels = images.images.float() / 127.5 - 1
    either_way = torch.cat((pixels, pixels.flip(-1)))
    distances = (seen[:, None] - either_way).abs().amax(dim=(2, 3, 4))
    assert float(distances.amin(dim=1).max()) < 1e-6
    before = [parameter.detach().clone() for parameter in loop.network.parameters()]
    loop.step()
    for start, now, mean in zip(before, loop.network.parameters(), loop.average.parameters(), strict=True):
        torch.testing.assert_close(mean, torch.lerp(start, now.detach(), 1 - training.DECAY))
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True))


def test_rows_of_training(monkeypatch) -> None:
    tiny.install(monkeypatch)
    bench = tiny.bench()
    rows = list(training.rows({"batch_size": 2, "images": 6}, bench))
    whole = [
        "genbench",
        "genbench's data path alone: its share",
        "genbench's clipping, Adam and average alone: its share",
        "plain loop, our network",
    ]
    apart = ["genbench", "DataLoader of PIL pictures", "genbench", "foreach Adam, average by parameter"]
    assert [row.name for row in rows] == 2 * ["genbench", ALONE] + [*whole, *apart, *whole]
    assert bench.left_out == ["diffusers is not at hand", "denoising_diffusion_pytorch is not at hand"]
    assert rows[4].facts["flops"] == rows[7].facts["flops"]
