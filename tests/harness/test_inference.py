"""While images are drawn networks may be in bfloat16, compiled or replayed; the rest stays what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tape import Tape
from torch import nn

from genbench.contracts import UserError
from genbench.corruptions.cold import Faded
from genbench.corruptions.continuous import EDM, VP, Geometric
from genbench.corruptions.fading import Heat, SineWidth
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.gaussian_rules import Eta, LargeVariance
from genbench.corruptions.rules import Mixed
from genbench.corruptions.schedules import Linear
from genbench.corruptions.spectral import Spectral
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression, Restoration
from genbench.generators.parameterisations import EDM as Preconditioned
from genbench.generators.parameterisations import Epsilon
from genbench.harness.assembly import Assembly, multiplies_in_bfloat16, settle_precision
from genbench.harness.distributed import Ranks
from genbench.harness.graphs import MOST, PATIENCE, CudaGraphs
from genbench.harness.inference import Inference, compile_networks
from genbench.harness.sampling import Source
from genbench.harness.trajectories import HandingOut, Rehearsal, Trajectories
from genbench.networks.unet import UNet
from genbench.ops.combine import expand
from genbench.ops.random import Keys
from genbench.samplers.annealed_langevin import AnnealedLangevin
from genbench.samplers.energy_langevin import EnergyLangevin, Hold
from genbench.samplers.grids import LogSNR, Rho, Uniform
from genbench.samplers.multistep import DPMSolverPP2M, UniPC
from genbench.samplers.ode import Heun, RungeKutta45
from genbench.samplers.restore import Restore

SHAPE = (1, 4, 4)
CPU = torch.device("cpu")
STEPS = PATIENCE + 3

SAMPLERS = {
    "ddpm": (Linear(), Epsilon(), Restore(STEPS, Uniform(), LargeVariance())),
    # Two evaluations before the step that both are for.
    "guided ddim": (Linear(), Epsilon(), Restore(STEPS, Uniform(), Eta(0.0), guidance=2.0)),
    "heun": (EDM(), Preconditioned(), Heun(STEPS, Rho(80.0, 0.002))),
    # Estimates are remembered over steps.
    "2m": (VP(), Epsilon(), DPMSolverPP2M(STEPS, LogSNR())),
    "unipc": (VP(), Epsilon(), UniPC(STEPS, LogSNR())),
    "langevin": (Geometric(3, 0.02, 2.0), Epsilon(), AnnealedLangevin(3, Uniform(), 4, 1e-4)),
    "rk45": (VP(), Epsilon(), RungeKutta45(1e-3, 1e-3, end=0.01)),
}


class Network(nn.Module):
    """Something of x, the time and the class, with products that bfloat16 rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(1, 1, 3, padding=1)
        self.label = nn.Embedding(4, 1)

    def forward(self, x, time, labels=None):
        shift = 0 if labels is None else self.label(labels % 4)[:, :, None, None]
        return torch.tanh(self.mix(x) + shift).to(x.dtype) + time.reshape(-1, 1, 1, 1) / 2000


def model(schedule, parameterisation, network: nn.Module | None = None) -> Denoising:
    torch.manual_seed(0)
    network = Network() if network is None else network
    return Denoising(network, Gaussian(schedule), Regression(parameterisation), SHAPE, classes=3).eval()


def images(subject, sampler, inference: Inference, count: int = 12, batch: int = 7) -> torch.Tensor:
    """float32, in chunks of which the last is smaller."""
    drawn = []
    with torch.inference_mode(), inference.of(subject):
        for index in torch.arange(count).split(batch):
            drawn.append(sampler(subject, Keys(index, 3), index % 3).images)
    return torch.cat(drawn)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_does_not_notice_that_its_network_is_replayed(name):
    schedule, parameterisation, sampler = SAMPLERS[name]
    subject, tape = model(schedule, parameterisation), Tape()
    expected = images(subject, sampler, Inference())
    assert torch.equal(images(subject, sampler, Inference(recorder=tape)), expected)
    assert tape.repeated > 0
    assert tape.recorded == 2 or name == "rk45"  # the sizes of the chunks


NOTHING: dict[str, torch.Tensor] = {}
"""What is fitted; the same object every time, as in a run."""


def drawn(subject, sampler, seed: int = 3, trajectories: Trajectories | None = None) -> torch.Tensor:
    """uint8, in chunks of 7, 7, 7 and 5."""
    source = Source(subject, sampler, NOTHING, 7, CPU, inference=Inference(trajectories=trajectories))
    return torch.cat([chunk.images for chunk in source.draw(26, seed)])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_whole_trajectory_is_replayed_for_other_images_and_classes(name):
    schedule, parameterisation, sampler = SAMPLERS[name]
    subject, tape, said = model(schedule, parameterisation), Tape(), []
    source = Source(subject, sampler, {}, 7, CPU)
    replayed = replace(source, inference=Inference(trajectories=Trajectories(lambda: tape, said.append)))
    for plain, found in zip(source.draw(26, 3), replayed.draw(26, 3), strict=True):
        assert torch.equal(found.images, plain.images)
        assert torch.equal(found.nfe, plain.nfe)
        assert torch.equal(found.labels, plain.labels)
    if name == "rk45":  # its steps depend on the images
        assert tape.repeated == 0
        assert len(said) == 1
        assert "waits for the device" in said[0]
    else:
        assert (tape.recorded, tape.repeated, said) == (1, 2, [])  # the first of its size was a rehearsal


@pytest.mark.gpu
@pytest.mark.parametrize("name", SAMPLERS)
def test_cuda_graphs_of_whole_trajectories_give_the_same_bits(name):
    schedule, parameterisation, sampler = SAMPLERS[name]
    subject, said = model(schedule, parameterisation).cuda(), []
    trajectories = Trajectories(CudaGraphs, said.append)
    plain = Source(subject, sampler, {}, 7, torch.device("cuda"))
    replayed = replace(plain, inference=Inference(trajectories=trajectories))
    for seed in (3, 4):
        for expected, found in zip(plain.draw(26, seed), replayed.draw(26, seed), strict=True):
            assert torch.equal(found.images, expected.images)
            assert torch.equal(found.nfe, expected.nfe)
    assert len(said) == (name == "rk45")


def test_a_trajectory_is_of_its_seed_and_sampler_and_sees_weights_that_change_in_place():
    schedule, parameterisation, sampler = SAMPLERS["ddpm"]
    other = SAMPLERS["guided ddim"][2]
    subject, tape = model(schedule, parameterisation), Tape()
    trajectories = Trajectories(lambda: tape)
    for count, (choice, seed) in enumerate([(sampler, 3), (sampler, 1000), (other, 1000)], start=1):
        found = drawn(subject, choice, seed, trajectories)
        assert torch.equal(found, drawn(subject, choice, seed))
        assert tape.recorded == count
    with torch.no_grad():
        subject.network.mix.weight.mul_(-1)
    assert torch.equal(drawn(subject, other, 1000, trajectories), drawn(subject, other, 1000))


@pytest.mark.parametrize("inference", [True, False], ids=["inference mode", "without"])
def test_what_comes_from_the_host_is_kept_by_its_value_and_brought_once(inference):
    """A replayed copy would read memory of the host's that is something else by then."""

    def bring(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers).to("meta", non_blocking=True)

    with torch.inference_mode(inference):
        with Rehearsal() as rehearsal:
            for numbers in ((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0)):
                assert bring(*numbers).shape == (len(numbers),)
            expand(torch.tensor(0.5, dtype=torch.float64), torch.empty(3, 2, device="meta"))
            assert torch.arange(2).double().device.type == "cpu"  # what stays is not kept
        assert [tensor.shape for tensor in rehearsal.kept.values()] == [(2,), (3,), ()]
        with HandingOut(rehearsal.kept):
            first, second = bring(0.0, 1.0), bring(0.0, 1.0)  # in another order than at first
            assert first is not second  # one may be written to
            for numbers in ((0.0, 2.0), (0.0,)):
                with pytest.raises(RuntimeError, match="other things from the host"):
                    bring(*numbers)
            with pytest.raises(RuntimeError, match="other things from the host"):
                torch.tensor([0.0, 1.0], dtype=torch.float64).to("meta")


def test_an_adaptive_solver_leaves_a_few_graphs_and_not_one_for_every_size():
    schedule, parameterisation, sampler = SAMPLERS["rk45"]

    sizes = set()

    class Uneven(Network):
        """Harder to follow for some images than for others."""

        def forward(self, x, time, labels=None):
            sizes.add(len(x))
            return torch.sin(4 * x.abs().mean(dim=(1, 2, 3), keepdim=True) ** 4 * x)

    subject, tape = model(schedule, parameterisation, Uneven()), Tape()
    images(subject, sampler, Inference(recorder=tape), 60, 60)
    assert len(sizes) > 2 * MOST
    assert 1 <= tape.recorded <= MOST


def test_a_gradient_is_of_the_network_as_it_is():
    """In bfloat16 a gradient's gradient is mostly noise, and no graph can be differentiated."""

    class Quadratic(nn.Module):
        image_shape = SHAPE
        reference_sigma = 0.1

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inside = nn.Linear(16, 16)

        def energy(self, x):
            return self.inside(x.flatten(1)).square().sum(dim=1)

    subject, tape = Quadratic(), Tape()
    sampler = EnergyLangevin(0.04, {"hold": Hold(STEPS, 1.0)})
    expected = images(subject, sampler, Inference())
    assert torch.equal(images(subject, sampler, Inference(CPU, torch.bfloat16, recorder=tape)), expected)
    assert tape.recorded == 0


def test_in_bfloat16_images_are_nearly_the_same():
    """Of a network of this size to 8 bits of its output, 2^-8 a step; and not to the last digit."""
    schedule, parameterisation, sampler = SAMPLERS["ddpm"]
    subject = model(schedule, parameterisation)
    exact = images(subject, sampler, Inference())
    narrow = images(subject, sampler, Inference(CPU, torch.bfloat16))
    assert 1e-5 < (narrow - exact).abs().max() < STEPS * 2.0**-8
    replayed = images(subject, sampler, Inference(CPU, torch.bfloat16, recorder=Tape()))
    assert torch.equal(replayed, narrow)


@pytest.mark.parametrize(
    ("corruption", "estimator", "rule"),
    [
        (Gaussian(Linear()), Regression(Epsilon()), LargeVariance()),
        (Spectral(Linear(), Heat(SineWidth(3.0)), SHAPE), Regression(Epsilon()), Eta(1.0)),
        (Faded(Heat(SineWidth(3.0)), noise=0.02), Restoration(), Mixed(1.0)),
    ],
    ids=["gaussian", "blurring", "blur"],
)
def test_bfloat16_is_for_networks_alone(corruption, estimator, rule):
    """A blur's matrix products in bfloat16 would be off by half of the noise that is added to it."""

    class Exact(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[torch.dtype | None] = set()

        def forward(self, x, time, labels=None):
            self.seen.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return torch.tanh(x)

    network = Exact()
    subject = Denoising(network, corruption, estimator, SHAPE).eval()
    sampler = Restore(4, Uniform(), rule, clip=False)
    draw = lambda inference: sampler_images(subject, sampler, inference)
    assert torch.equal(draw(Inference(CPU, torch.bfloat16)), draw(Inference()))
    assert network.seen == {torch.bfloat16, None}


def sampler_images(subject, sampler, inference: Inference) -> torch.Tensor:
    with torch.inference_mode(), inference.of(subject):
        return sampler(subject, Keys(torch.arange(3), 0), fitted=sampler.placeholder(subject)).images


def test_a_model_is_afterwards_what_it_was():
    subject = model(Linear(), Epsilon())
    own = lambda x, time, labels=None: x
    plain = Inference(CPU, torch.bfloat16)
    with pytest.raises(TypeError), plain.of(subject):
        subject.network("nothing that it takes")
    assert "forward" not in vars(subject.network)
    subject.network.forward = own
    with plain.of(subject):
        assert subject.network.forward is not own
    assert subject.network.forward is own


def test_what_is_compiled_is_what_is_evaluated(monkeypatch):
    made = []

    def compiled(function, mode=None):
        made.append(mode)
        return lambda *inputs, **named: -function(*inputs, **named)

    monkeypatch.setattr(torch, "compile", compiled)
    x, time = torch.ones(2, *SHAPE), torch.zeros(2)
    with torch.no_grad():
        subject = model(Linear(), Epsilon())
        expected = subject.network(x, time)
        inference = Inference(compile=True)
        for _ in range(2):  # made once
            with inference.of(subject):
                assert torch.equal(subject.network(x, time), -expected)
        assert torch.equal(subject.network(x, time), expected)
        compile_networks(subject, "reduce-overhead")
        assert torch.equal(subject.network(x, time), -expected)
    assert made == [None, "reduce-overhead"]
    assert subject.state_dict().keys() == model(Linear(), Epsilon()).state_dict().keys()


def test_a_source_draws_as_its_inference_says():
    subject, tape = model(Linear(), Epsilon()), Tape()
    sampler = SAMPLERS["ddpm"][2]
    drawn = lambda inference: torch.cat(
        [each.images for each in Source(subject, sampler, {}, 7, CPU, inference=inference).draw(12, 0)]
    )
    assert torch.equal(drawn(Inference(recorder=tape)), drawn(Inference()))
    assert tape.recorded == 2


def test_settings_say_how_networks_are_evaluated(compose):
    def inference(*overrides: str, device: str = "cpu") -> Inference:
        config = settle_precision(compose(*overrides), torch.device(device))
        return Assembly(config, torch.device(device), Ranks()).inference()

    plain = inference()
    assert (plain.autocast, plain.compile, plain.recorder) == (None, False, None)
    assert inference("sampler.precision=bf16").autocast == torch.bfloat16
    assert inference("sampler.compile=true").compile
    assert isinstance(inference(device="cuda").recorder, CudaGraphs)
    assert inference("sampler.graphs=false", device="cuda").recorder is None
    whole = inference("sampler.graphs=trajectory", device="cuda")
    assert whole.recorder is None  # a graph of all steps has the networks in it
    assert whole.trajectories is not None
    assert inference("sampler.graphs=trajectory").trajectories is None
    with pytest.raises(UserError, match="choose one"):
        inference("sampler.graphs=trajectory", "sampler.compile=true")
    assert inference("sampler.precision=auto", device="cuda").autocast == torch.bfloat16
    # Runs that are older than these settings have none of them.
    older = compose()
    older["sampler"] = {key: older["sampler"][key] for key in ("_target_", "name", "steps", "batch_size")}
    assert settle_precision(older, CPU)["sampler"]["precision"] == "fp32"
    assert Assembly(older, CPU, Ranks()).inference().autocast is None


@pytest.mark.parametrize("wrong", ["sampler.precision=fp8", "trainer.compile=slowly", "sampler.graphs=1"])
def test_settings_that_are_none_are_refused(compose, wrong):
    with pytest.raises(UserError, match=wrong.split("=")[0]):
        compose(wrong)


@pytest.mark.parametrize(("tiles", "products"), [(False, False), (True, False), (False, True)])
def test_a_cpu_is_fast_in_bfloat16_where_it_has_instructions_for_it(monkeypatch, tiles, products):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: products)
    assert multiplies_in_bfloat16(CPU) == (tiles or products)
    assert multiplies_in_bfloat16(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "rk45"])
def test_on_a_gpu_replayed_images_are_the_same_bits_and_nothing_is_waited_for(name, autocast):
    schedule, parameterisation, sampler = SAMPLERS[name]
    torch.manual_seed(0)
    network = UNet(SHAPE, channels=32, multipliers=(1, 2), attention=(2,), groups=8, classes=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    device = torch.device("cuda")
    subject = model(schedule, parameterisation, network).to(device)
    keys, labels = Keys(torch.arange(6, device=device), 3), torch.arange(6, device=device) % 3
    plain, replayed = Inference(device, autocast), Inference(device, autocast, recorder=CudaGraphs())
    with torch.inference_mode():
        with plain.of(subject):
            expected = sampler(subject, keys, labels).images
        for wait in ("default", "error"):  # the first makes what is then there
            torch.cuda.set_sync_debug_mode(wait)
            try:
                with replayed.of(subject):
                    found = sampler(subject, keys, labels).images
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert torch.equal(found, expected)
