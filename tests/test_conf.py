"""The configuration groups: every choice composes, builds, and is what its paper says."""

from __future__ import annotations

import pytest
import torch

from genbench.configuration import conf_dir
from genbench.contracts import Step
from genbench.harness.assembly import Assembly, parameter_count, settle_precision
from genbench.harness.distributed import Ranks
from genbench.help import choices
from genbench.ops.random import Keys

CPU = torch.device("cpu")


def assembly(config) -> Assembly:
    return Assembly(settle_precision(config, CPU), CPU, Ranks())


@pytest.mark.parametrize(
    ("overrides", "least", "most"),
    [
        (("dataset=cifar10",), 35_746_307, 35_746_307),
        (("dataset=cifar10", "recipe=none", "network=unet_small"), 6_472_195, 6_472_195),
        (("experiment=cifar10/ddpm-short",), 6_000_000, 7_000_000),
        (("dataset=celeba",), 70_000_000, 85_000_000),
        (("dataset=digits",), 500_000, 1_100_000),
        (("dataset=fashion_mnist",), 1_000_000, 2_000_000),
        (("dataset=mnist",), 1_000_000, 2_000_000),
    ],
)
def test_ddpm_has_the_size_its_recipe_states(compose, overrides, least, most):
    generator = assembly(compose("model=ddpm", *overrides)).generator()
    assert least <= parameter_count(generator) <= most


def test_the_reference_recipe_is_the_papers(compose):
    """Ho et al. 2020, appendix B."""
    config = compose("model=ddpm", "dataset=cifar10")
    assert config["trainer"]["steps"] == 800_000
    assert config["trainer"]["batch_size"] == 128
    assert config["optim"]["lr"] == 2e-4
    assert config["optim"]["warmup"] == 5000
    assert config["optim"]["clip"] == 1.0
    assert config["trainer"]["ema_decay"] == 0.9999
    assert config["dataset"]["flip"] is True
    network = config["model"]["network"]
    assert (network["channels"], network["multipliers"], network["blocks"]) == (128, [1, 2, 2, 2], 2)
    assert (network["attention"], network["heads"], network["dropout"]) == ([16], 1, 0.1)
    assert config["sampler"]["name"] == "ancestral"
    assert config["sampler"]["steps"] == 1000
    assert config["metrics"]["n_samples"] == 50_000


def test_digits_are_sampled_by_ddim_in_fifty_steps_unless_told_otherwise(compose):
    sampler = compose()["sampler"]
    assert (sampler["name"], sampler["steps"], sampler["rule"]["eta"]) == ("ddim", 50, 0.0)
    chosen = compose("sampler=ancestral")["sampler"]
    assert (chosen["name"], chosen["steps"]) == ("ancestral", 1000)


@pytest.mark.parametrize(
    ("model", "group"),
    [("ddpm", group) for group in ("schedule", "parameterisation", "weighting", "variance", "ema", "logger")]
    + [("udm", "corruption")],
)
def test_every_choice_composes_and_builds(compose, model, group):
    for name in choices(conf_dir())[group]:
        config = compose(f"model={model}", f"{group}={name}")
        built = assembly(config)
        built.sampler()
        built.average(built.generator())
        assert "schedule" not in config  # parts are shown where they are used, not twice


@pytest.mark.parametrize("optim", ["adam", "adamw", "adafactor", "adax"])
def test_every_optimizer_takes_a_step(compose, optim):
    built = assembly(compose(f"optim={optim}"))
    generator = built.generator()
    plan = built.plan(generator)
    before = [p.detach().clone() for p in generator.parameters()]
    for step in range(2):
        plan.run(Step(step, 2), iter([built.batches()(step)]))
    changed = [not torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True)]
    # Layers behind a zero-initialised one learn only once that has moved; the rest must have moved.
    assert sum(changed) > len(changed) / 4
    assert all(torch.isfinite(p).all() for p in generator.parameters())


def test_a_conditional_model_has_the_data_sets_classes(compose):
    assert compose("conditional=true")["model"]["classes"] == 10
    assert compose()["model"]["classes"] == 0


def test_weights_depend_on_the_seed_alone(compose):
    one, same, other = (assembly(compose(f"seed={seed}")).generator() for seed in (0, 0, 1))
    pairs = lambda a, b: zip(a.parameters(), b.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs(one, same))
    assert not all(torch.equal(p, q) for p, q in pairs(one, other))


@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion_mnist", "cifar10"])
def test_typed_choices_and_recipes_go_together(compose, dataset):
    """What a recipe says of one choice must not break, or survive into, another."""
    for backbone in ("default", "dcgan", "sngan"):
        for updates in ("alternating", "simultaneous"):
            config = compose("model=fgan", f"dataset={dataset}", f"backbone={backbone}", f"updates={updates}")
            assembly(config).generator()
    for autoencoder in ("default", "conv", *(["rae_cifar"] if dataset == "cifar10" else [])):
        for model in ("ae", "vae"):
            assembly(
                compose(f"model={model}", f"dataset={dataset}", f"autoencoder={autoencoder}")
            ).generator()


def test_an_autoencoder_on_cifar10_is_the_rae_papers_unless_told_otherwise(compose):
    widths = lambda *overrides: compose("model=ae", "dataset=cifar10", *overrides)["model"]["encoder"][
        "widths"
    ]
    assert widths() == [128, 256, 512, 1024]
    assert widths("autoencoder=conv") == [64, 128, 256]


def test_updates_come_with_the_data_sets_number_of_critic_steps(compose):
    assert compose("model=fgan", "dataset=cifar10")["model"]["updates"]["critic_steps"] == 5
    assert compose("model=fgan")["model"]["updates"]["critic_steps"] == 1
    assert (
        "critic_steps"
        not in compose("model=fgan", "dataset=cifar10", "updates=simultaneous")["model"]["updates"]
    )


@pytest.mark.parametrize("model", ["score_sde", "edm", "flow", "ncsn", "ncsnv2", "iddpm"])
def test_denoising_models_take_a_step_and_know_their_sampler(compose, model):
    built = assembly(compose(f"model={model}", "network.channels=8", "trainer.batch_size=8"))
    generator = built.generator()
    logged = built.plan(generator).run(Step(0, 10), iter([built.batches()(0)]))
    assert 0 < float(logged["denoiser/loss"]) < 10  # losses are of targets of about unit size
    sampler = built.sampler()
    sampler.check(generator)
    assert sampler.evaluations() <= 100


@pytest.mark.parametrize("name", sorted(set(choices(conf_dir())["sampler"])))
def test_every_sampler_says_whether_it_drives_a_ddpm(compose, name):
    """Those for denoisers do; the others need another capability."""
    built = assembly(compose(f"sampler={name}"))
    generator, sampler = built.generator(), built.sampler()
    others = {"decode", "fitted_prior", "energy_langevin"}
    assert isinstance(generator, sampler.needs) is (name not in others)
    if name not in others | {"iddpm", "ihdm"}:
        sampler.check(generator)


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "log_snr", "rho"])
def test_every_grid_fits_a_ddpm(compose, grid):
    built = assembly(compose("sampler=euler", f"grid={grid}"))
    sampler, generator = built.sampler(), built.generator()
    sampler.check(generator)
    times = sampler.grid(sampler.steps, generator.corruption)
    assert float(times[-1]) == 0
    assert (times.diff() <= 0).all()


DRIVERS = ["ancestral", "analytic", "euler_maruyama", "reverse_diffusion", "predictor_corrector"]
DRIVERS += ["annealed_langevin", "ddim", "euler", "heun", "dpm_solver", "dpmpp_2m", "unipc"]


@pytest.mark.parametrize("sampler", DRIVERS)
@pytest.mark.parametrize("model", ["ddpm", "score_sde", "edm", "flow", "ncsn"])
def test_any_sampler_drives_any_denoiser(compose, model, sampler):
    """Whatever it was trained as; flow needs a first time at which something of the data is left."""
    typed = [
        f"model={model}",
        f"sampler={sampler}",
        "network.channels=8",
        "sampler.steps=4",
    ]
    if model == "flow":
        grid = "log_snr" if sampler in ("dpm_solver", "dpmpp_2m", "unipc") else "uniform"
        typed += [f"grid={grid}", "grid.start=0.999"]
    if sampler == "annealed_langevin":
        typed += ["sampler.repeats=2"]
    built = assembly(compose(*typed))
    generator, drawn = built.generator().eval(), built.sampler()
    drawn.check(generator)
    with torch.inference_mode():
        samples = drawn(generator, Keys(torch.arange(2), 0), None, drawn.placeholder(generator))
    assert samples.images.isfinite().all()
    assert samples.nfe.unique().numel() == 1
    assert 0 <= drawn.evaluations() - int(samples.nfe[0]) <= 1
