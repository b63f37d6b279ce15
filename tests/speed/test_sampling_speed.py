"""Sampling end to end: all contestants make the same images, and rows say what they are of."""

from __future__ import annotations

import pytest
import tiny
import torch

from genbench.contracts import UserError
from genbench.networks.unet import UNet
from genbench.ops.quantize import quantize
from genbench.ops.random import Ambient
from genbench.speed import sampling
from genbench.speed.networks import Diffusers, imported_peer, randomised, small_unet

CPU = torch.device("cpu")
STEPS = 4


def our_images(network: UNet) -> torch.Tensor:
    """Ours from the noise that torch draws after this seed; float, so that saturation hides nothing."""
    source = sampling.source(network, 32, 2, STEPS, CPU)
    torch.manual_seed(1)
    with torch.inference_mode():
        return source.sampler(source.model, Ambient(2, CPU)).images


def test_the_plain_loop_makes_our_images():
    network = randomised(tiny.network())
    ours = our_images(network)
    torch.manual_seed(1)
    with torch.no_grad():
        plain = sampling.plain_loop(network, torch.randn(2, 3, 32, 32), STEPS)
    assert plain.dtype == torch.uint8
    assert int((plain.int() - quantize(ours).int()).abs().max()) <= 1  # a tie may fall either way
    assert plain.float().std() > 30, "images that say nothing compare nothing"


def test_diffusers_network_with_our_weights_is_our_function():
    torch.manual_seed(0)
    ours = randomised(small_unet(channels=32))
    theirs = Diffusers(tiny.alone("diffusers"), channels=32).take(ours).eval()
    x, time = torch.randn(2, 3, 32, 32), torch.tensor([5, 900])
    with torch.no_grad():
        expected = ours(x, time)
        torch.testing.assert_close(theirs(x, time), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())


def test_diffusers_pipeline_makes_our_images():
    diffusers = tiny.alone("diffusers")
    network = randomised(small_unet(channels=32))
    theirs = sampling.pipeline(diffusers, Diffusers(diffusers, channels=32).take(network).eval().network)
    expected = (our_images(network) / 2 + 0.5).clamp(0, 1)
    torch.manual_seed(1)
    images = theirs(batch_size=2, num_inference_steps=STEPS, output_type="np").images
    # A quarter of a grey level: rounding grows by 1 / alpha on the way back from noise.
    torch.testing.assert_close(torch.from_numpy(images).permute(0, 3, 1, 2), expected, rtol=0, atol=1e-3)


def test_weights_that_start_at_zero_are_given_something_to_say():
    network = tiny.network()
    x, time = torch.randn(1, 3, 32, 32), torch.tensor([5])
    assert not network(x, time).any()
    assert randomised(network)(x, time).any()
    assert not network.training


def test_rows_of_sampling(monkeypatch):
    tiny.install(monkeypatch)
    growth = {"batch_sizes": [1], "sides": [16], "batch_size": 2}
    bench = tiny.bench()
    rows = list(sampling.rows({"steps": STEPS, "batch_sizes": [2], "growth": growth}, bench))
    share = "genbench, its network answering at once: the sampler's share"
    compared = ["genbench", share, "plain PyTorch, our network"]
    assert [row.name for row in rows] == 2 * compared + 2 * ["genbench"]
    assert [row.what for row in rows[-2:]] == ["1 images of 32x32", "2 images of 16x16"]
    assert bench.left_out == ["diffusers is not at hand"]
    # A share has no arithmetic of the network in it, and no precision to be a fraction of.
    assert ["flops" in row.facts for row in rows] == 2 * [True, False, True] + 2 * [True]
    # Four times fewer pixels are less than half the work of the 32x32 image (attention is quadratic).
    assert rows[-1].facts["flops"] < rows[-2].facts["flops"] / 2


def test_precision_reaches_the_network(monkeypatch):
    tiny.install(monkeypatch)
    seen: list[bool] = []
    network = randomised(tiny.network())
    network.register_forward_pre_hook(lambda *call: seen.append(torch.is_autocast_enabled("cpu")))
    for precision in sampling.PRECISIONS:
        seen.clear()
        sampling._compared(network, 1, precision, 2, tiny.bench())
        # What counts the arithmetic is outside; everything that is timed is inside.
        assert set(seen[1:]) == {precision.autocast is not None}


def test_steps_divide_the_times_of_both_suites():
    with pytest.raises(UserError, match="divisor of 1000"):
        next(sampling.rows({"steps": 3}, tiny.bench()))


def test_a_peer_is_found_by_its_import_path():
    assert imported_peer("torch.nn:Identity").build is torch.nn.Identity
    assert imported_peer("torch.nn:Identity").name == "torch"
    for path in ("no_such_package:build", "torch.nn:no_such_name", "torch.nn", ""):
        with pytest.raises(UserError, match="expected package"):
            imported_peer(path)
