"""Two published vision transformers as extractors: DINOv2 and CLIP, both through torch-fidelity.

Both see any image as 224 or 336 pixels of colour. Nothing that is downloaded is unpickled; DINOv2's network,
however, is code, which torch.hub fetches from its authors' repository and runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import UserError
from genbench.metrics.extractors import Published, coloured, expect_channels, price
from genbench.metrics.weights import Weights, state_dict, unreachable
from genbench.ops.precision import exact

_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
_DINOV2_CODE = "facebookresearch/dinov2"

_CLIP = "clip-vit-l-14-336px"

_RATES = {224: (0.5, 3.0), 336: (0.2, 1.0)}
"""Images a second of a ViT-L/14 on a CPU, by resolution, from one core to several.

One core with AVX512 took 2 s of CPU time an image of 224; one of 336 has 2.3 times the positions.
"""


class DINOv2(Published):
    """DINOv2 ViT-L/14, whose features make FD-DINOv2 (Stein et al. 2023): 1,024 of them, of the class token.

    torch-fidelity's extractor: TensorFlow 1's bilinear resizing to 224 pixels and ImageNet's normalisation
    (dgm-eval resizes otherwise: numbers of the two do not mix). weights: its authors' file, or None for the
    one in torch's hub directory, fetched where it is missing. The network's code must be there or fetchable.
    """

    name = "dinov2"
    resize = "TF1 bilinear 224x224"
    roles: Mapping[str, str] = MappingProxyType({"features": "dinov2"})
    dimensions: Mapping[str, int] = MappingProxyType({"dinov2": 1024})

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.weights = Weights("DINOv2", _DINOV2, given=None if weights is None else Path(weights))

    def metric(self, kind: str) -> str:
        return f"{kind}_{self.name}"

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        expect_channels("DINOv2", image_shape)
        self.weights.demand()
        self._demand_code()
        return price("DINOv2", images, device, *_RATES[224])

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        network = self._loaded[0].to(self.device)
        with torch.no_grad(), exact(self.device):
            (found,) = network(coloured(images).to(self.device))
        return {"dinov2": found}

    def _load(self) -> tuple[nn.Module, str]:
        from torch_fidelity.feature_extractor_base import FeatureExtractorBase
        from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

        class Loaded(FeatureExtractorDinoV2):
            """torch-fidelity's extractor around a given network: its own constructor unpickles one."""

            def __init__(self, model: nn.Module) -> None:
                FeatureExtractorBase.__init__(self, "dinov2-vit-l-14", ["dinov2"])
                self.feature_extractor_internal_dtype = torch.float32
                self.model = model

        blob, sha256 = self.weights.read()
        # As torch-fidelity does: with xFormers the numbers would depend on whether that is installed.
        os.environ["XFORMERS_DISABLED"] = "1"
        try:
            model: Any = torch.hub.load(
                _DINOV2_CODE, "dinov2_vitl14", pretrained=False, trust_repo=True, verbose=False
            )
        except (OSError, RuntimeError) as error:
            raise UserError(f"DINOv2's code could not be loaded ({error}). {_advice()}") from error
        _fill(model, state_dict(blob, self.weights.path), self.weights)
        return Loaded(model.float()).eval().requires_grad_(False), sha256

    def _demand_code(self) -> None:
        """Raises UserError, with what to type, where the network's code cannot be had."""
        folder = _hub() / f"{_DINOV2_CODE.replace('/', '_')}_main"
        if not folder.is_dir() and unreachable(f"https://github.com/{_DINOV2_CODE}"):
            raise UserError(f"DINOv2's code is missing: {folder} does not exist. {_advice()}")


def _hub() -> Path:
    return Path(torch.hub.get_dir())


def _advice() -> str:
    fetch = f"import torch; torch.hub.load('{_DINOV2_CODE}', 'dinov2_vitl14')"
    return f'With a network type: python -c "{fetch}", and copy that torch hub directory to {_hub()}'


class CLIP(Published):
    """CLIP ViT-L/14 at 336 pixels, used as CMMD's authors do: bicubic resizing, embeddings of unit length.

    The network is torch-fidelity's; its own extractor resizes otherwise and does not normalise. weights:
    OpenAI's file (a TorchScript archive, believed by its published SHA-256 alone), or a plain state dict of
    the same tensors; None for OpenAI's, fetched where it is missing.
    """

    name = "clip"
    resize = "bicubic 336x336"
    roles: Mapping[str, str] = MappingProxyType({"features": "clip", "embedding": "clip"})
    dimensions: Mapping[str, int] = MappingProxyType({"clip": 768})

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self._given = None if weights is None else Path(weights)

    def metric(self, kind: str) -> str:
        return kind if kind == "cmmd" else f"{kind}_{self.name}"

    @property
    def weights(self) -> Weights:
        """The file of its weights."""
        from torch_fidelity.feature_extractor_clip import MODEL_BASE_URL, MODEL_METADATA

        known = MODEL_METADATA[_CLIP]
        url = f"{MODEL_BASE_URL}/{known['hash']}/{known['filename']}.pt"
        return Weights("CLIP", url, known["hash"], self._given, f"{_CLIP}-{known['hash']}.pt")

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        expect_channels("CLIP", image_shape)
        self.weights.demand()
        return price("CLIP", images, device, *_RATES[336])

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        network = self._loaded[0].to(self.device)
        with torch.no_grad(), exact(self.device):
            pixels = clip_pixels(coloured(images).to(self.device), network.visual.input_resolution)
            return {"clip": F.normalize(network.visual(pixels), dim=1)}

    def _load(self) -> tuple[nn.Module, str]:
        from torch_fidelity.feature_extractor_clip import build_model

        weights = self.weights
        blob, sha256 = weights.read()
        # A TorchScript archive is a program: only the one its publisher names is opened as such.
        published = sha256 == weights.digits
        state = dict(torch.jit.load(weights.path, map_location="cpu").state_dict()) if published else None
        if state is None:
            state = state_dict(blob, weights.path)
        try:
            network = build_model(state, torch.float32)
        except (RuntimeError, KeyError) as error:
            raise _of_another(weights, error) from error
        return network, sha256


def clip_pixels(images: Tensor, size: int) -> Tensor:
    """CLIP's input float32 [B, 3, size, size] of images uint8 [B, 3, H, W], resized in [0, 1]."""
    mean = images.new_tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float32)
    std = images.new_tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float32)
    resized = F.interpolate(images.float() / 255, size=(size, size), mode="bicubic")
    return (resized - mean[:, None, None]) / std[:, None, None]


def _fill(model: nn.Module, state: Mapping[str, Tensor], weights: Weights) -> None:
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise _of_another(weights, error) from error


def _of_another(weights: Weights, error: Exception) -> UserError:
    detail = str(error).splitlines()[0]
    return UserError(
        f"{weights.path} holds weights of another network than {weights.title} ({detail}); expected those of "
        f"{weights.url}"
    )
