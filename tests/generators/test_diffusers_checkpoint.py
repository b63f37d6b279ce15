"""A diffusers checkpoint gives diffusers' own answers and trajectories, and what is none is refused by name.

Where diffusers is not installed, what does not need it is tested all the same.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genbench.contracts import UserError
from genbench.corruptions.gaussian_rules import Eta
from genbench.generators.diffusers_checkpoint import CheckpointFolder, DiffusersCheckpoint
from genbench.generators.parameterisations import X0, Epsilon, V
from genbench.ops.random import Keys
from genbench.samplers.grids import Uniform
from genbench.samplers.restore import Restore

SHAPE = (1, 8, 8)
NETWORK = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_start": 1e-4, "beta_end": 0.05}
SCHEDULER |= {"beta_schedule": "linear"}

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed (the extra `peers`)"
)


def folder(
    at: Path, network: Any = None, scheduler: Any = None, nested: bool = False, weights: bool = True
) -> Path:
    """A checkpoint's files, with one tensor for weights; as `save_pretrained` of a pipeline where nested."""
    root, told = (at / "unet", at / "scheduler") if nested else (at, at)
    for place in (root, told):
        place.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps({**NETWORK, **(network or {})}))
    (told / "scheduler_config.json").write_text(json.dumps({**SCHEDULER, **(scheduler or {})}))
    if weights:
        save_file({"x": torch.zeros(3)}, root / "diffusion_pytorch_model.safetensors")
    return at


# -------------------------------------------------------------------------------- read without diffusers


@pytest.mark.parametrize("nested", [False, True])
def test_both_ways_of_saving_are_found(nested: bool, tmp_path: Path) -> None:
    found = CheckpointFolder.open(str(folder(tmp_path / "a", nested=nested)))
    assert (found.network["in_channels"], found.schedule().steps) == (1, 100)
    assert found.classes() == 0


def test_its_hash_is_of_weights_and_both_configurations(tmp_path: Path) -> None:
    def sha256(name: str, **changes: Any) -> str:
        return CheckpointFolder.open(str(folder(tmp_path / name, **changes))).sha256

    first = sha256("a")
    assert sha256("elsewhere", nested=True) == first
    assert sha256("b", scheduler={"prediction_type": "sample"}) != first
    assert sha256("c", network={"norm_eps": 1e-6}) != first
    save_file({"x": torch.ones(3)}, tmp_path / "a" / "diffusion_pytorch_model.safetensors")
    assert CheckpointFolder.open(str(tmp_path / "a")).sha256 != first


@pytest.mark.parametrize(
    ("scheduler", "betas"),
    [
        ({}, torch.linspace(1e-4, 0.05, 100).double()),
        ({"beta_schedule": "scaled_linear"}, torch.linspace(0.01, 0.05**0.5, 100).double() ** 2),
        ({"trained_betas": [0.1, 0.2, 0.3]}, torch.tensor([0.1, 0.2, 0.3]).double()),
        ({"num_train_timesteps": 1000, "beta_end": 0.02}, torch.linspace(1e-4, 0.02, 1000).double()),
    ],
)
def test_betas_are_those_of_the_scheduler(
    scheduler: dict[str, Any], betas: torch.Tensor, tmp_path: Path
) -> None:
    schedule = CheckpointFolder.open(str(folder(tmp_path, scheduler=scheduler))).schedule()
    t = torch.arange(1, len(betas) + 1).double() / len(betas)
    assert torch.allclose(schedule.alpha(t) ** 2, (1 - betas).cumprod(0), rtol=1e-6)
    assert schedule.conditioning(t).tolist() == list(range(len(betas)))


@pytest.mark.parametrize(
    ("said", "kind"),
    [({}, Epsilon), ({"prediction_type": "sample"}, X0), ({"prediction_type": "v_prediction"}, V)],
)
def test_outputs_stand_for_what_the_scheduler_says(said: dict[str, Any], kind: type, tmp_path: Path) -> None:
    assert type(CheckpointFolder.open(str(folder(tmp_path, scheduler=said))).parameterisation()) is kind


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"network": {"_class_name": "UNet2DConditionModel"}},
            "a UNet2DConditionModel; expected a UNet2DModel",
        ),
        ({"network": {"sample_size": 32, "in_channels": 3, "out_channels": 3}}, "images of 3x32x32"),
        ({"network": {"sample_size": [8, 16]}}, "images of 1x8x16"),
        ({"network": {"out_channels": 2}}, "makes 2 channels of 1"),
        ({"network": {"class_embed_type": "timestep"}}, "embeds its condition as timestep"),
        ({"scheduler": {"beta_schedule": "laplace"}}, "beta_schedule=laplace; expected one of linear"),
        ({"scheduler": {"beta_schedule": None}}, "beta_schedule=None"),
        ({"scheduler": {"prediction_type": "flow"}}, "prediction_type=flow; expected one of epsilon"),
        ({"scheduler": {"rescale_betas_zero_snr": True}}, "no signal is left"),
        ({"weights": False}, r"has no diffusion_pytorch_model.safetensors.*pickles \(.bin\) never"),
    ],
)
def test_what_is_not_read_is_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        DiffusersCheckpoint(str(folder(tmp_path, **changes)), SHAPE)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "contents", "said"),
    [
        ("config.json", None, r"has no config.json \(nor unet/config.json\)"),
        ("scheduler_config.json", None, r"has no scheduler_config.json \(nor in scheduler/\)"),
        ("config.json", "{", "config.json is not JSON"),
        ("scheduler_config.json", "[1]", "holds a list"),
    ],
)
def test_files_that_are_not_there_are_named(
    file: str, contents: str | None, said: str, tmp_path: Path
) -> None:
    path = folder(tmp_path) / file
    path.unlink() if contents is None else path.write_text(contents)
    with pytest.raises(UserError, match=said):
        CheckpointFolder.open(str(tmp_path))


def test_a_folder_must_be_given_and_be_the_one_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"type model\.path=DIR"):
        DiffusersCheckpoint(None, SHAPE)
    with pytest.raises(UserError, match="is not the checkpoint of this run"):
        DiffusersCheckpoint(str(folder(tmp_path)), SHAPE, sha256="0" * 64)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is not None, reason="diffusers is installed")
def test_without_diffusers_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip install diffusers"):
        DiffusersCheckpoint(str(folder(tmp_path)), SHAPE)


# ------------------------------------------------------------------------------------ against diffusers

TRAINED = [
    {},
    {"num_train_timesteps": 1000, "beta_end": 0.02},
    {"beta_schedule": "scaled_linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "sample"},
    {"prediction_type": "v_prediction"},
]


def saved(at: Path, scheduler: dict[str, Any], **network: Any) -> Any:
    """Random weights, saved by diffusers as a pipeline; the pipeline."""
    import diffusers

    torch.manual_seed(3)
    known = {name: value for name, value in NETWORK.items() if name != "_class_name"}
    unet = diffusers.UNet2DModel(**known, **network).eval()
    steps = {**SCHEDULER, **scheduler, "clip_sample": False}
    pipeline = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler.from_config(steps))
    pipeline.save_pretrained(at)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@needs_diffusers
@pytest.mark.parametrize("scheduler", TRAINED, ids=str)
def test_estimates_are_those_of_diffusers(scheduler: dict[str, Any], tmp_path: Path) -> None:
    """x0_hat and eps_hat at every tenth time; diffusers keeps its alphas in float32, hence 1e-5 and no less.

    Near t = 1 errors of alpha are those of x0_hat = (x_t - sigma eps) / alpha, so both are compared as
    they enter a step: alpha x0_hat, sigma eps_hat.
    """
    pipeline = saved(tmp_path, scheduler)
    model = DiffusersCheckpoint(str(tmp_path), SHAPE).eval()
    total = model.corruption.steps
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    pipeline.scheduler.set_timesteps(total)
    for index in range(0, total, total // 10):
        t = torch.tensor((index + 1) / total, dtype=torch.float64)
        alpha, sigma = model.corruption.alpha(t), model.corruption.sigma(t)
        with torch.inference_mode():
            mean = model.denoise(x, t).mean
            output = pipeline.unet(x, index).sample
            step = pipeline.scheduler.step(output, index, x)
        assert torch.allclose(alpha * mean, alpha * step.pred_original_sample, rtol=0, atol=1e-5)
        noise = (x - alpha * step.pred_original_sample) / sigma
        assert torch.allclose((x - alpha * mean) / sigma, noise, rtol=0, atol=1e-5 / float(sigma))


@needs_diffusers
@pytest.mark.parametrize("scheduler", TRAINED, ids=str)
def test_ddim_makes_the_images_that_diffusers_pipeline_makes(
    scheduler: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same noise in ten steps. The images compared are in [0, 1], as the pipeline returns them."""
    from diffusers.pipelines.ddim import pipeline_ddim

    pipeline = saved(tmp_path, scheduler)
    model = DiffusersCheckpoint(str(tmp_path), SHAPE).eval()
    keys = Keys(torch.arange(4), 7)
    start = model.corruption.terminal((4, *SHAPE), keys, {})
    monkeypatch.setattr(pipeline_ddim, "randn_tensor", lambda *_, **__: start.clone())
    theirs = pipeline(batch_size=4, num_inference_steps=10, output_type="pt").images
    with torch.inference_mode():
        ours = Restore(10, Uniform(), Eta(0.0), clip=False)(model, keys)
    assert ours.nfe.tolist() == [10] * 4
    found = (ours.images / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(found, theirs, rtol=0, atol=1e-5)
    assert float(theirs.std()) > 0.05


@needs_diffusers
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_every_schedule_is_the_one_of_diffusers(name: str, tmp_path: Path) -> None:
    """Theirs is a product in float32."""
    from diffusers import DDPMScheduler

    scheduler = {name: value for name, value in SCHEDULER.items() if name != "_class_name"}
    theirs = DDPMScheduler(**{**scheduler, "beta_schedule": name})
    read = CheckpointFolder.open(str(folder(tmp_path, scheduler={"beta_schedule": name}))).schedule()
    found = read.alpha(torch.arange(1, 101).double() / 100) ** 2
    assert torch.allclose(found, theirs.alphas_cumprod.double(), rtol=1e-5, atol=1e-9)


@needs_diffusers
def test_classes_are_told_and_guidance_is_refused(tmp_path: Path) -> None:
    pipeline = saved(tmp_path, {}, num_class_embeds=5)
    model = DiffusersCheckpoint(str(tmp_path), SHAPE).eval()
    assert model.classes == 5
    pipeline.scheduler.set_timesteps(100)
    x, labels = torch.ones(2, *SHAPE), torch.tensor([1, 4])
    t = torch.tensor(0.5, dtype=torch.float64)
    with torch.inference_mode():
        output = pipeline.unet(x, 49, class_labels=labels).sample
        expected = pipeline.scheduler.step(output, 49, x).pred_original_sample
        assert torch.allclose(model.denoise(x, t, labels).mean, expected, rtol=0, atol=1e-5)
        with pytest.raises(UserError, match=r"sampler\.guidance=0"):
            Restore(2, Uniform(), Eta(0.0), guidance=1.0)(model, Keys(torch.arange(2), 0), labels)


@needs_diffusers
@pytest.mark.parametrize("damage", ["missing", "another", "resized", "torn"])
def test_weights_that_do_not_fit_are_refused(damage: str, tmp_path: Path) -> None:
    """diffusers itself would fill what is missing with random numbers."""
    saved(tmp_path, {})
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    first = "conv_in.weight"
    if damage == "missing":
        del weights[first]
    elif damage == "another":
        weights["another"] = torch.zeros(1)
    elif damage == "resized":
        weights[first] = torch.zeros(2, 2)
    save_file(weights, file)
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"does not fit|could not load") as refusal:
        DiffusersCheckpoint(str(tmp_path), SHAPE)
    assert "\n" not in str(refusal.value)
