"""Feature extractors: uint8 images in, named layers of features out, always in evaluation mode and float32.

Two kinds. `Shipped` is a small classifier that genbench trained on the data set itself and carries along
(works offline, in seconds). `Inception` is torch-fidelity's port of the 2015 TensorFlow Inception network,
whose pool features define FID (Heusel et al. 2017) and whose unbiased logits define IS; its weights are
fetched once or given as a file. Each names the layer that plays the role of `features` (Fréchet distance)
and of `logits` (inception score), and the digest of its weights goes into every number computed with it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from genbench.contracts import UserError
from genbench.metrics.card import SHIPPED, Card
from genbench.networks.classifier import ConvClassifier
from genbench.ops.precision import exact
from genbench.ops.quantize import dequantize


class Extractor(Protocol):
    """What metrics need of a network: its name, what identifies its numbers, and its layers."""

    name: str
    """As metric names carry it: "digits", "fashion_mnist", "cifar10", "inception"."""
    resize: str
    """What happens to an image before the network, e.g. "none" or "TF1 bilinear 299x299"."""
    features: str
    """The layer whose Gaussian the Fréchet distance compares."""
    logits: str
    """The layer whose softmax the inception score reads."""
    dimensions: Mapping[str, int]
    """The size of each of the two layers."""
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
    features = "pool"
    logits = "logits"

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


class Inception:
    """torch-fidelity's "inception-v3-compat": the network of FID and IS, with TensorFlow 1's resizing inside.

    weights: a state dict written by torch.save, or None for torch-fidelity's own file: fetched once into
    torch's hub directory. Nothing in either is executed: both are read with `weights_only=True`. Grey images
    are repeated over three channels. Weights are looked at when first needed; `check` says early whether
    that will work.
    """

    name = "inception"
    resize = "TF1 bilinear 299x299"
    features = "2048"
    logits = "logits_unbiased"
    dimensions: Mapping[str, int] = MappingProxyType({"2048": 2048, "logits_unbiased": 1008})
    standard_count = 50_000

    def __init__(self, weights: str | Path | None = None) -> None:
        self.weights = None if weights is None else Path(weights).expanduser()
        self.device = torch.device("cpu")

    def metric(self, kind: str) -> str:
        # The Fréchet distance in Inception's features has a name of its own; the others have none to add.
        return {"fd": "fid"}.get(kind, kind)

    @property
    def path(self) -> Path:
        """Where the weights are, or will be once they have been fetched."""
        return self.weights or Path(torch.hub.get_dir()) / "checkpoints" / _url().rsplit("/", 1)[1]

    def obstacle(self, timeout: float = 10.0) -> str | None:
        """Why the weights cannot be had, or None where they are at hand or can be fetched.

        Without a file it asks the server, for at most `timeout` seconds.
        """
        if self.path.is_file():
            return None
        if self.weights is not None:
            return f"the file metrics.weights={self.weights} does not exist"
        try:
            with urllib.request.urlopen(urllib.request.Request(_url(), method="HEAD"), timeout=timeout):
                return None
        except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
            return f"{self.path} does not exist and {_url()} cannot be reached ({error})"

    def check(self, image_shape: tuple[int, int, int], images: int, device: torch.device) -> list[str]:
        if image_shape[0] not in (1, 3):
            raise UserError(f"Inception takes grey or colour images, found {image_shape[0]} channels")
        obstacle = self.obstacle()
        if obstacle:
            raise UserError(
                f"Inception's weights are missing: {obstacle}. Fetch {_url()} on a machine with a network "
                "and type metrics.weights=PATH, or score with the data set's extractor (metrics=<dataset>)"
            )
        if device.type != "cpu":
            return []
        slow, fast = (f"{images / rate / 60:,.0f}" for rate in (2, 17))
        return [
            f"Inception on a CPU manages 2 to 17 images a second: {images:,} images will take {fast} to "
            f"{slow} minutes. A smaller metrics.n_samples costs less (and is named fid@N)."
        ]

    def to(self, device: torch.device | str) -> Inception:
        self.device = torch.device(device)
        return self

    @property
    def sha256(self) -> str:
        return self._loaded[1]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        _expect_bytes(images, 3)
        network = self._loaded[0].to(self.device).to(memory_format=torch.channels_last)
        with torch.no_grad(), exact(self.device):
            found = network(images.to(self.device))
        return dict(zip((self.features, self.logits), found))

    @cached_property
    def _loaded(self) -> tuple[nn.Module, str]:
        """The network and the digest of its weights file."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        if self.weights is None and not self.path.is_file():
            _fetch(_url(), self.path)
        if not self.path.is_file():
            raise UserError(f"Inception's weights are missing: {self.obstacle()}")
        blob = self.path.read_bytes()
        state = _state_dict(blob, self.path)
        # torch-fidelity unpickles its weights file without restraint. It is given one that we have just
        # written ourselves, from tensors that were read safely.
        clean = io.BytesIO()
        torch.save(state, clean)
        clean.seek(0)
        try:
            network = FeatureExtractorInceptionV3(
                self.name, [self.features, self.logits], feature_extractor_weights_path=clean
            )
        except RuntimeError as error:
            detail = str(error).splitlines()[0]
            raise UserError(
                f"{self.path} holds weights of another network ({detail}); expected torch-fidelity's "
                f"{_url().rsplit('/', 1)[1]}"
            ) from error
        for module in network.eval().modules():
            if isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
                # A tenth of the time, for a change in the last digit of float32.
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        return network, hashlib.sha256(blob).hexdigest()


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


def _url() -> str:
    """Where torch-fidelity keeps the weights it calls its own."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return URL_INCEPTION_V3


def _fetch(url: str, path: Path) -> None:
    """Downloads `url` to `path` in one step; its name ends in digits of its sha256, which must agree."""
    prefix = path.stem.rsplit("-", 1)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        torch.hub.download_url_to_file(url, name, hash_prefix=prefix, progress=False)
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Inception's weights could not be fetched from {url} ({error}); fetch the file by other means "
            "and type metrics.weights=PATH"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _state_dict(blob: bytes, path: Path) -> dict[str, Tensor]:
    """Named tensors from a torch.save file, read without executing anything in it."""
    try:
        state = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as plain weights ({str(error).splitlines()[0]}); expected a state dict "
            "of tensors written by torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds {type(state).__name__}, expected a state dict of tensors")
    return dict(state)
