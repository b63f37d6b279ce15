"""A diffusers checkpoint as a model: its UNet2DModel, weights and all, under the noise it was trained with.

The folder is what `save_pretrained` leaves of a DDPM or DDIM pipeline, or of a model and of a scheduler:

    config.json, diffusion_pytorch_model.safetensors      the network, here or in unet/
    scheduler_config.json                                 the betas, here or in scheduler/

The network is diffusers' own class: nothing of it is written anew. Of the scheduler only the training noise
and the meaning of the output count, for steps are taken by our samplers. Its index n = 0 ... T - 1 is our
time (n + 1) / T, and grid=uniform visits what it calls timestep_spacing="leading", as DDPM and DDIM do there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench.contracts import Phase, UserError
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.schedules import Cosine, DiscreteVP, Linear
from genbench.digests import sha256_of
from genbench.generators.denoising import Denoising
from genbench.generators.estimators import Regression
from genbench.generators.parameterisations import X0, Epsilon, Parameterisation, V

NETWORK, SCHEDULER = "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def _scaled_linear(steps: int, start: float, end: float) -> DiscreteVP:
    """Linear in the root of beta, as latent diffusion has it."""
    return DiscreteVP(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)


def _sigmoid(steps: int, start: float, end: float) -> DiscreteVP:
    """A logistic curve from -6 to 6, as GeoDiff has it."""
    rise = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
    return DiscreteVP(start + (end - start) * rise)


SCHEDULES: Mapping[str, Callable[[int, float, float], DiscreteVP]] = {
    "linear": Linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": lambda steps, start, end: Cosine(steps),
    "sigmoid": _sigmoid,
}
"""diffusers' `beta_schedule`: (T, beta_start, beta_end) -> the schedule."""

PREDICTIONS: Mapping[str, Callable[[], Parameterisation]] = {
    "epsilon": Epsilon,
    "sample": X0,
    "v_prediction": V,
}
"""diffusers' `prediction_type`."""


@dataclass(frozen=True)
class CheckpointFolder:
    """The three files of a checkpoint, found and read but for the weights.

    network, scheduler: the two configurations; root: the folder of the network. Nothing is unpickled.
    """

    network: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    root: Path
    sha256: str
    """SHA-256 of the SHA-256 of weights, network's and scheduler's configuration."""

    @classmethod
    def open(cls, path: str | None) -> CheckpointFolder:
        """Raises UserError where a file is missing or not what it should be."""
        if not path:
            raise UserError("model=diffusers needs to know where: type model.path=DIR.")
        folder = Path(path).expanduser()
        root = next((at for at in (folder / "unet", folder) if (at / NETWORK).is_file()), None)
        told = next((at for at in (folder / "scheduler", folder) if (at / SCHEDULER).is_file()), None)
        if root is None or told is None:
            missing = (
                f"{NETWORK} (nor unet/{NETWORK})" if root is None else f"{SCHEDULER} (nor in scheduler/)"
            )
            raise UserError(
                f"model.path={folder} has no {missing}. Expected a folder that diffusers' "
                "DDPMPipeline.save_pretrained left; a repository of the hub is had by hf download REPOSITORY "
                "--local-dir DIR."
            )
        if not (root / WEIGHTS).is_file():
            raise UserError(
                f"{root} has no {WEIGHTS}. Other formats of weights are not read, and pickles (.bin) never: "
                "load it where you trust it and call save_pretrained(DIR, safe_serialization=True)."
            )
        if (root / f"{WEIGHTS}.index.json").is_file():
            raise UserError(
                f"{root} has {WEIGHTS}.index.json, by which diffusers would read other files than {WEIGHTS}. "
                "Remove it, or save the weights as one file: save_pretrained(DIR, max_shard_size='100GB')."
            )
        network, scheduler = _object(root / NETWORK), _object(told / SCHEDULER)
        if network.get("_class_name") != "UNet2DModel":
            raise UserError(
                f"{root / NETWORK} is of a {network.get('_class_name')}; expected a UNet2DModel, which makes "
                "images out of noise alone."
            )
        files = (root / WEIGHTS, root / NETWORK, told / SCHEDULER)
        digest = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
        return cls(network, scheduler, root, digest)

    def schedule(self) -> DiscreteVP:
        """The noise it was trained with. What a scheduler leaves out has diffusers' default."""
        said = self.scheduler
        name = str(said.get("beta_schedule", "linear"))
        if said.get("rescale_betas_zero_snr"):
            raise UserError(f"{self._noise()} rescales betas until no signal is left at T; that is not read.")
        if said.get("trained_betas") is not None:
            return DiscreteVP(torch.tensor(said["trained_betas"], dtype=torch.float64))
        if name not in SCHEDULES:
            raise UserError(
                f"{self._noise()} has beta_schedule={name}; expected one of {', '.join(SCHEDULES)}, or "
                "trained_betas."
            )
        steps = said.get("num_train_timesteps", 1000)
        return SCHEDULES[name](steps, said.get("beta_start", 1e-4), said.get("beta_end", 0.02))

    def parameterisation(self) -> Parameterisation:
        """What the network's output stands for."""
        name = self.scheduler.get("prediction_type", "epsilon")
        if name not in PREDICTIONS:
            raise UserError(
                f"{self._noise()} has prediction_type={name}; expected one of {', '.join(PREDICTIONS)}."
            )
        inputs, outputs = (self.network.get(f"{end}_channels", 3) for end in ("in", "out"))
        if inputs != outputs:
            raise UserError(
                f"{self.root / NETWORK} makes {outputs} channels of {inputs}; expected as many. (A learnt "
                "variance doubles them, and is not read.)"
            )
        return PREDICTIONS[name]()

    def check_shape(self, image_shape: Sequence[int]) -> None:
        """Raises UserError where the network's images are not of `image_shape`, [C, H, W]."""
        size = self.network.get("sample_size")
        height, width = size if isinstance(size, list) else (size, size)
        found = (self.network.get("in_channels", 3), height, width)
        if any(made not in (None, wanted) for made, wanted in zip(found, image_shape, strict=True)):
            made, wanted = ("x".join(map(str, shape)) for shape in (found, image_shape))
            raise UserError(
                f"{self.root} makes images of {made} (channels, height, width), and this data set's "
                f"are {wanted}. Type the data set it was trained on, dataset=NAME."
            )

    def classes(self) -> int:
        """How many classes the network knows; 0 for none."""
        if self.network.get("class_embed_type") is not None:
            raise UserError(
                f"{self.root / NETWORK} embeds its condition as {self.network['class_embed_type']}; expected "
                "classes by number (num_class_embeds), or none."
            )
        return self.network.get("num_class_embeds") or 0

    def _noise(self) -> str:
        return f"{SCHEDULER} of {self.root} ({self.scheduler.get('_class_name')})"


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} holds a {type(found).__name__}; expected a JSON object.")
    return found


class UNet(nn.Module):
    """diffusers' network called as ours: (x [B, C, H, W], time [B], labels [B] or None) -> [B, C, H, W]."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None and bool((labels < 0).any()):
            raise UserError(
                'This checkpoint knows classes and no "no label", which guidance contrasts with. Type '
                "sampler.guidance=0."
            )
        return self.unet(x, time, class_labels=labels).sample


class DiffusersCheckpoint(Denoising):
    """`model=diffusers`: a denoiser that comes with its weights.

    path: the folder; image_shape: [C, H, W] of the data set it is scored against; sha256: of the checkpoint
    (see `CheckpointFolder`), where it must be a particular one. Raises UserError where the folder holds
    anything else, or diffusers is not installed.
    """

    def __init__(self, path: str | None, image_shape: Sequence[int], sha256: str | None = None) -> None:
        folder = CheckpointFolder.open(path)
        if sha256 not in (None, folder.sha256):
            raise UserError(
                f"model.path={path} is not the checkpoint of this run: found {folder.sha256[:12]}, expected "
                f"{sha256[:12] if sha256 else sha256}. Give it a run_dir of its own."
            )
        folder.check_shape(image_shape)
        corruption, estimator = Gaussian(folder.schedule()), Regression(folder.parameterisation())
        classes = folder.classes()
        super().__init__(UNet(_load(folder)), corruption, estimator, image_shape, classes)
        self.weights_sha256 = folder.sha256

    def phases(self) -> Sequence[Phase]:
        """Nothing is trained."""
        return []


def _load(folder: CheckpointFolder) -> nn.Module:
    """The network with every weight in its place."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise UserError(
            "model=diffusers needs the package diffusers, which is not installed; type pip install diffusers"
        ) from error
    try:
        unet, report = UNet2DModel.from_pretrained(
            folder.root,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"diffusers could not load {folder.root}: {reason[:300]}") from error
    # It fills what the file lacks with random numbers, and says so in a log.
    if astray := {name: keys for name, keys in report.items() if keys}:
        told = "; ".join(
            f"{name.replace('_', ' ')} {sorted(map(str, keys))[0]}" for name, keys in astray.items()
        )
        raise UserError(f"{folder.root / WEIGHTS} does not fit its {NETWORK}: {told}.")
    return unet.float()
