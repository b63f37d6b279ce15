"""Reference recipes are the published ones, every experiment is whole, and short ones are short."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genbench.configuration import conf_dir
from genbench.contracts import Batch, Step
from genbench.harness.assembly import Assembly, parameter_count, settle_precision
from genbench.harness.distributed import Ranks
from genbench.help import choices

CPU = torch.device("cpu")

EXPERIMENTS = sorted(set(choices(conf_dir())["experiment"]) - {"none"})
SHORT = [name for name in EXPERIMENTS if name.endswith("-short")]
NCSNPP = "genbench.networks.ncsnpp.NCSNpp"


def assembly(config: dict[str, Any]) -> Assembly:
    return Assembly(settle_precision(config, CPU), CPU, Ranks())


def at(config: Any, key: str) -> Any:
    """What stands at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


DDPMPP = {
    "model.network._target_": NCSNPP,
    "model.network.channels": 128,
    "model.network.multipliers": [1, 2, 2, 2],
    "model.network.blocks": 4,
    "model.network.attention": [16],
    "model.network.progressive_input": False,
    "model.network.taps": [1, 1],
}

# Song et al. 2021, all three SDEs; EMA, network and sampler are each one's own.
SCORE_SDE = {
    "optim.lr": 2e-4,
    "optim.warmup": 5000,
    "optim.clip": 1.0,
    "trainer.batch_size": 128,
    "trainer.steps": 1_300_000,
    "dataset.flip": True,
    "model.network.dropout": 0.1,
    "sampler.steps": 1000,
}

VP = {
    **SCORE_SDE,
    **DDPMPP,
    "trainer.ema_decay": 0.9999,
    "sampler.rule._target_": "genbench.corruptions.gaussian_rules.EulerMaruyama",
}

PUBLISHED: dict[str, dict[str, Any]] = {
    # Noise levels and step sizes are those of images in [-1, 1]: twice and four times the published ones.
    "ncsn": {
        "model.corruption.schedule.levels": 10,
        "model.corruption.schedule.sigma_max": 2.0,
        "model.corruption.schedule.sigma_min": 0.02,
        "optim.lr": 1e-3,
        "optim.clip": None,
        "trainer.batch_size": 128,
        "trainer.steps": 200_000,
        "ema._target_": None,
        "dataset.flip": True,
        "sampler.steps": 10,
        "sampler.repeats": 100,
        "sampler.step_size": 8e-5,
        "sampler.denoise": False,
    },
    "ncsnv2": {
        "model.corruption.schedule.levels": 232,
        "model.corruption.schedule.sigma_max": 100.0,
        "model.corruption.schedule.sigma_min": 0.02,
        "optim.lr": 1e-4,
        "optim.clip": None,
        "trainer.batch_size": 128,
        "trainer.steps": 300_000,
        "trainer.ema_decay": 0.999,
        "dataset.flip": True,
        "sampler.steps": 232,
        "sampler.repeats": 5,
        "sampler.step_size": 2.48e-5,
        "sampler.denoise": True,
    },
    "score_sde-vp": {**VP, "model.corruption.schedule._target_": "genbench.corruptions.continuous.VP"},
    "score_sde-subvp": {**VP, "model.corruption.schedule._target_": "genbench.corruptions.continuous.SubVP"},
    "score_sde-ve": {
        **SCORE_SDE,
        "model.corruption.schedule.sigma_max": 100.0,
        "model.corruption.schedule.sigma_min": 0.02,
        "model.network.progressive_input": True,
        "model.network.taps": [1, 3, 3, 1],
        "trainer.ema_decay": 0.999,
        "ema.limit": 0.999,
        "sampler.rule._target_": "genbench.corruptions.gaussian_rules.ReverseDiffusion",
        "sampler.corrector.steps": 1,
        "sampler.corrector.ratio": 0.16,
    },
    "edm": {
        **DDPMPP,
        "model.network.multipliers": [2, 2, 2],
        "model.network.dropout": 0.13,
        "model.network.augment_features": 9,
        "model.augment._target_": "genbench.generators.augmentation.AugmentationPipe",
        "model.augment.p": 0.12,
        "model.label_dropout": 0.0,
        "model.estimator.parameterisation.data_std": 0.5,
        "model.corruption.schedule.p_mean": -1.2,
        "model.corruption.schedule.p_std": 1.2,
        "dataset.flip": False,
        "optim.lr": 1e-3,
        "optim.clip": None,
        "optim.warmup": 10_000_000 // 512,
        "trainer.batch_size": 512,
        "trainer.steps": 200_000_000 // 512,
        "ema._target_": "genbench.harness.ema.HalfLife",
        "ema.images": 500_000,
        "ema.ramp": 0.05,
        "sampler.name": "heun",
        "sampler.steps": 18,
        "sampler.churn": 0.0,
        "sampler.grid.sigma_max": 80.0,
        "sampler.grid.sigma_min": 0.002,
        "sampler.grid.rho": 7.0,
    },
    "flow": {
        **DDPMPP,
        "model.network.dropout": 0.15,
        "optim.lr": 2e-4,
        "optim.warmup": 5000,
        "optim.clip": 1.0,
        "trainer.batch_size": 128,
        "trainer.ema_decay": 0.999999,
        "ema.limit": 0.999999,
        "dataset.flip": True,
        "sampler.name": "rk45",
        "sampler.rtol": 1e-5,
        "sampler.atol": 1e-5,
    },
    "iddpm": {
        "model.corruption.schedule._target_": "genbench.corruptions.schedules.Cosine",
        "model.corruption.schedule.steps": 4000,
        "model.estimator.bound_weight": 4.0,
        "model.network.out_channels": 6,
        "model.network.blocks": 3,
        "model.network.attention": [16, 8],
        "model.network.heads": 4,
        "model.network.scale_shift": True,
        "model.network.dropout": 0.3,
        "model.network.time_scale": 0.25,
        "dataset.flip": False,
        "optim.lr": 1e-4,
        "optim.clip": None,
        "trainer.batch_size": 128,
        "trainer.steps": 500_000,
        "trainer.ema_decay": 0.9999,
        "sampler.steps": 4000,
    },
}

EVALUATIONS = {
    "ncsn": 1000,
    "ncsnv2": 1161,
    "score_sde-vp": 1000,
    "score_sde-subvp": 1000,
    "score_sde-ve": 2000,
    "edm": 35,
    "flow": None,
    "iddpm": 4000,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_reference_recipes_are_the_published_ones(compose, name):
    config = compose(f"experiment=cifar10/{name}")
    constants = {**PUBLISHED[name], "dataset.name": "cifar10", "metrics.n_samples": 50_000}
    assert {key: at(config, key) for key in constants} == constants
    assert assembly(config).sampler().evaluations() == EVALUATIONS[name]
    assert config["trainer"]["precision"] == "fp32"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_whole(compose, name):
    """It is the model and data set it is named after, builds, and its sampler drives it."""
    dataset, named = name.split("/")
    sections = compose(f"experiment={name}")["model"]
    small = []
    if "parameterisation" in sections:
        small = ["network.channels=8"]
    elif sections["name"] == "mdsm":
        small = ["energy_network.channels=8"]
    config = compose(f"experiment={name}", *small)
    assert config["dataset"]["name"] == dataset
    assert named.split("-")[0] == config["model"]["name"]
    built = assembly(config)
    generator, sampler = built.generator(), built.sampler()
    assert isinstance(generator, sampler.needs)
    sampler.check(generator)


@pytest.mark.parametrize("name", SHORT)
def test_short_experiments_are_short(compose, name):
    config = compose(f"experiment={name}")
    assert config["metrics"]["n_samples"] == 10_000
    built = assembly(config)
    if built.sampler().evaluations() == 1:  # the reference networks are small enough, trained for less
        assert config["trainer"]["steps"] <= 20_000
        return
    assert built.sampler().evaluations() <= 100
    assert 6_000_000 <= parameter_count(built.generator()) <= 7_500_000
    assert (config["trainer"]["steps"], config["trainer"]["batch_size"]) == (30_000, 128)


def test_every_reference_recipe_has_a_short_one():
    reference = {name for name in EXPERIMENTS if name.startswith("cifar10/")}
    short = {name for name in reference if name.endswith("-short")}
    assert {f"{name}-short" for name in reference - short if not name.endswith("-cpu")} == short


def test_edms_network_has_its_published_size_and_is_told_the_augmentation(compose):
    config = compose("model=edm", "dataset=cifar10")
    assert 55_600_000 < parameter_count(assembly(config).generator()) < 55_800_000
    small = compose("model=edm", "dataset=cifar10", "network.channels=8", "network.blocks=1")
    built = assembly({**small, "trainer": {**small["trainer"], "batch_size": 4}})
    generator = built.generator()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    seen = []
    generator.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("augment")), with_kwargs=True
    )
    generator.loss(Batch(images, None, torch.arange(4)), Step(0, 1))
    generator.denoise(images, torch.full((4,), 0.5))
    assert seen[0].shape == (4, 9)
    assert seen[1] is None  # nothing is asked for but images as they are


@pytest.mark.parametrize("network", ["unet_improved", "unet", "ddpmpp"])
def test_a_learned_variance_doubles_the_channels_of_any_network(compose, network):
    config = compose("model=iddpm", f"network={network}", "network.channels=8")
    assert config["model"]["network"]["out_channels"] == 2
    generator = assembly(config).generator()
    posterior = generator.denoise(torch.randn(2, 1, 8, 8), torch.full((2,), 0.5))
    assert posterior.share.shape == posterior.mean.shape == (2, 1, 8, 8)
    assert "out_channels" not in compose("network=unet_improved")["model"]["network"]


def test_the_bound_of_improved_ddpm_is_weighted_by_its_number_of_times(compose):
    for steps in (1000, 4000):
        config = compose("model=iddpm", f"schedule.steps={steps}")
        assert config["model"]["estimator"]["bound_weight"] == steps / 1000


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_ncsnv2_is_sampled_at_every_level_it_was_trained_at(compose, dataset):
    config = compose("model=ncsnv2", f"dataset={dataset}")
    assert config["sampler"]["steps"] == config["model"]["corruption"]["schedule"]["levels"]


RECIPES = [
    f"model={file.stem} dataset={file.parent.name}"
    for file in sorted((conf_dir() / "recipe").glob("*/*.yaml"))
    if file.stem in {"ddpm", "iddpm", "ncsn", "ncsnv2", "score_sde", "edm", "flow"}
]


# Experiments on other data sets are their recipes under a name.
NAMED = [f"experiment={name}" for name in EXPERIMENTS if name.startswith("cifar10/")]


@pytest.mark.parametrize("chosen", [*RECIPES, *NAMED])
def test_a_typed_sampler_is_the_same_whatever_the_recipe(compose, chosen):
    """What is said of one sampler must not survive into another."""
    assert compose(*chosen.split(), "sampler=heun")["sampler"] == compose("sampler=heun")["sampler"]


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "cifar10"])
def test_parts_typed_over_a_recipe_are_built(compose, dataset):
    typed = [
        ("edm", "parameterisation=eps"),
        ("edm", "grid=uniform"),
        ("ncsnv2", "corruption=ve"),
    ]
    for model, part in typed:
        built = assembly(compose(f"model={model}", f"dataset={dataset}", part, "network.channels=8"))
        built.generator()
        built.sampler()
