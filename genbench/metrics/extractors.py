"""Feature extractors: uint8 images in, named layers of features out, always in evaluation mode and float32.

`Shipped` is a small classifier that genbench trained on the data set itself and carries along (works
offline, in seconds). `Inception` is torch-fidelity's port of the 2015 TensorFlow Inception network, whose
pool features define FID (Heusel et al. 2017) and whose unbiased logits define IS; its weights are fetched
once or given as a file. Two more published networks stand in `genbench.metrics.transformers`. Each says which
layer plays which role, and the digest of its weights goes into every number computed with it.

    features     the layer whose law is compared: Fréchet distance, KID, precision and recall, ...
    logits       the layer whose softmax the inception score reads
    spatial      a layer before its positions were averaged: sFID
    embedding    a layer on the unit sphere: CMMD
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from genbench.contracts import UserError
from genbench.metrics.card import SHIPPED, Card
from genbench.metrics.weights import Weights, state_dict
from genbench.networks.classifier import ConvClassifier
from genbench.ops.precision import exact
from genbench.ops.quantize import dequantize

SPATIAL = "mixed_6/conv[:7]"

BARE = {"fd": "fid", "fd_infinity": "fid_infinity", "sfd": "sfid"} | {
    kind: kind for kind in ("is", "kid", "precision", "recall", "density", "coverage")
}
"""The names of Inception's metrics that say no extractor, by kind."""


class Extractor(Protocol):
    """What metrics need of a network: its name, what identifies its numbers, and its layers."""

    name: str
    """As metric names carry it: "digits", "fashion_mnist", "cifar10", "inception"."""
    resize: str
    """What happens to an image before the network, e.g. "none" or "TF1 bilinear 299x299"."""
    roles: Mapping[str, str]
    """The layer that plays each role; `features` at least."""
    dimensions: Mapping[str, int]
    """The size of each layer."""
    standard_count: int
    """The number of samples at which a metric's name needs no count: the track's, or Inception's 50,000."""

    def metric(self, kind: str) -> str:
        """The name of a metric of `kind` ("fd", "is", ...) computed with this extractor."""

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        """Lines a user should see before a run that will score `images` images of `image_shape` (C, H, W).

        Cheap (at most about ten seconds). Raises UserError where the run could not be scored at its end.
        """

    def to(self, device: torch.device | str) -> Extractor:
        """The same extractor, working on `device`."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Layers float32 [B, D] of images uint8 [B, C, H, W], on the extractor's device."""


class Shipped:
    """A classifier that came with genbench, or one that `task=extractor` wrote to `folder`.

    Raises UserError where there is none of that name, or where the weights are not those of its card.
    """

    resize = "none"
    roles: Mapping[str, str] = MappingProxyType({"features": "pool", "logits": "logits"})

    def __init__(self, name: str, folder: str | Path | None = None) -> None:
        where = SHIPPED if folder is None else Path(folder)
        self.name = name
        self.card = Card.read(name, where)
        self.standard_count = self.card.n_samples
        self.dimensions: Mapping[str, int] = {
            "pool": self.card.features,
            "logits": self.card.architecture["classes"],
        }
        path = where / f"{name}.safetensors"
        self.network = _folded(_classifier(path, self.card)).eval().requires_grad_(False)
        self.device = torch.device("cpu")

    def metric(self, kind: str) -> str:
        return f"{kind}_{self.name}"

    @property
    def sha256(self) -> str:
        return self.card.sha256

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        if tuple(image_shape) != self.card.image_shape:
            raise UserError(
                f"the extractor {self.name!r} takes images of shape {self.card.image_shape} (C, H, W), found "
                f"{tuple(image_shape)}; type metrics=inception, or the extractor trained on this data set"
            )
        return []

    def to(self, device: torch.device | str) -> Shipped:
        self.device = torch.device(device)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        return self

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        _expect_bytes(images, self.card.image_shape[0])
        with torch.no_grad(), exact(self.device):
            pixels = dequantize(images.to(self.device)).contiguous(memory_format=torch.channels_last)
            pool, logits = self.network(pixels)
        return {"pool": pool, "logits": logits}


class Published(ABC):
    """An extractor around a network that others published, loaded when it is first needed."""

    standard_count = 50_000

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Self:
        """The same extractor, working on `device`."""
        self.device = torch.device(device)
        return self

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Any, str]:
        """The network and the digest of its weights file."""
        return self._load()

    @abstractmethod
    def _load(self) -> tuple[Any, str]:
        """What `_loaded` keeps. Raises UserError for weights of another network."""


class Inception(Published):
    """torch-fidelity's "inception-v3-compat": the network of FID and IS, with TensorFlow 1's resizing inside.

    weights: a state dict written by torch.save, or None for torch-fidelity's own file: fetched once into
    torch's hub directory. Nothing in either is executed: both are read with `weights_only=True`. Grey images
    are repeated over three channels. Weights are looked at when first needed; `check` says early whether
    that will work.

    The layer of sFID is that of guided-diffusion's evaluator, "mixed_6/conv:0" in the TensorFlow graph: the
    output, after normalisation and ReLU, of the 1x1 convolution that opens the seventh mixed block
    (`Mixed_6d.branch1x1` here), 17 x 17 positions of its first 7 channels, 2,023 numbers.
    """

    name = "inception"
    resize = "TF1 bilinear 299x299"
    roles: Mapping[str, str] = MappingProxyType(
        {"features": "2048", "logits": "logits_unbiased", "spatial": SPATIAL}
    )
    dimensions: Mapping[str, int] = MappingProxyType({"2048": 2048, "logits_unbiased": 1008, SPATIAL: 2023})

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self._given = None if weights is None else Path(weights)

    def metric(self, kind: str) -> str:
        # Names that have always meant Inception's features are bare; whatever else is computed says so.
        return BARE.get(kind, f"{kind}_{self.name}")

    @property
    def weights(self) -> Weights:
        """The file of its weights."""
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        # The name of torch-fidelity's file ends in digits of its SHA-256.
        digits = URL_INCEPTION_V3.rsplit("-", 1)[1].removesuffix(".pth")
        return Weights("Inception", URL_INCEPTION_V3, digits, self._given)

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        expect_channels("Inception", image_shape)
        self.weights.demand()
        return price("Inception", images, device, 2, 17)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        images = coloured(images)
        network = self._loaded[0].to(self.device).to(memory_format=torch.channels_last)
        layers: dict[str, Tensor] = {}

        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            layers[SPATIAL] = output[:, :7].flatten(1).float()

        with torch.no_grad(), exact(self.device), network.Mixed_6d.branch1x1.register_forward_hook(note):
            found = network(images.to(self.device))
        return layers | dict(zip(self._asked, found))

    @property
    def _asked(self) -> list[str]:
        """The layers torch-fidelity gives by name."""
        return [layer for layer in self.roles.values() if layer != SPATIAL]

    def _load(self) -> tuple[nn.Module, str]:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        weights = self.weights
        blob, sha256 = weights.read()
        # torch-fidelity unpickles its weights file without restraint. It is given one that we have just
        # written ourselves, from tensors that were read safely.
        clean = io.BytesIO()
        torch.save(state_dict(blob, weights.path), clean)
        clean.seek(0)
        try:
            network = FeatureExtractorInceptionV3(
                self.name, self._asked, feature_extractor_weights_path=clean
            )
        except RuntimeError as error:
            detail = str(error).splitlines()[0]
            raise UserError(
                f"{weights.path} holds weights of another network ({detail}); expected torch-fidelity's "
                f"{weights.url.rsplit('/', 1)[1]}"
            ) from error
        for module in network.eval().modules():
            if isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
                # A tenth of the time, for a change in the last digit of float32.
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        return network, sha256


def expect_channels(title: str, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError unless images of shape (C, H, W) are grey or coloured."""
    if image_shape[0] not in (1, 3):
        raise UserError(f"{title} takes grey or colour images, found {image_shape[0]} channels")


def price(title: str, images: int, device: torch.device, slow: float, fast: float) -> list[str]:
    """A line on how long `images` images will take on a CPU, at `slow` to `fast` images a second."""
    if device.type != "cpu":
        return []
    longest, shortest = (f"{images / rate / 60:,.0f}" for rate in (slow, fast))
    return [
        f"{title} on a CPU manages {slow:g} to {fast:g} images a second: {images:,} images will take "
        f"{shortest} to {longest} minutes. A smaller metrics.n_samples costs less (and stands in the names)."
    ]


def coloured(images: Tensor) -> Tensor:
    """Images uint8 [B, 3, H, W], grey ones repeated. Raises ValueError for any others."""
    if images.ndim == 4 and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    _expect_bytes(images, 3)
    return images


def _classifier(path: Path, card: Card) -> ConvClassifier:
    """The network of `card` with the weights in `path`, in float32; UserError where they do not fit."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing, though its card is there; reinstall genbench or train it: {card.command}"
        )
    blob = path.read_bytes()
    found = hashlib.sha256(blob).hexdigest()
    if found != card.sha256:
        raise UserError(
            f"{path} has sha256 {found[:12]}, its card says {card.sha256[:12]}: weights and card are not of "
            f"one training; reinstall genbench or train it again: {card.command}"
        )
    network = ConvClassifier(**card.architecture)
    try:
        state = {name: tensor.float() for name, tensor in load_safetensors(blob).items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} does not hold the weights of {card.architecture}: {error}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise UserError(f"{path} does not fit its card: missing {missing}, unexpected {unexpected}")
    return network


def _folded(network: ConvClassifier) -> ConvClassifier:
    """The same function in evaluation mode, with each batch normalisation folded into its convolution."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, norm = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(convolution, norm)
                    module[place + 1] = nn.Identity()
    return network


def _expect_bytes(images: Tensor, channels: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(
            f"expected images uint8 [B, {channels}, H, W], found {images.dtype} {tuple(images.shape)}; "
            "genbench.ops.quantize turns images in [-1, 1] into uint8"
        )
