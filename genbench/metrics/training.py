"""From a trained classifier to a shipped extractor: weights in float16, and a card of what they are worth.

`python -m genbench task=extractor dataset=NAME` trains a `Classifier` and ends here. Everything on the card
is measured with the file as written, so rounding the weights to float16 is part of what is measured:

    floor      FD of the test split                                      against the training split
    ceiling    FD of n images from N(m_p, s_p^2) for every pixel p alone, clipped and quantised
    subsets    FD of random parts of the training split as large as the test split

Beside them lie the training split's moments, from which the leaderboard derives distances again.

FD is biased upwards in small samples, so a set of n real images is as good as real when its FD lies within
the spread of training subsets of the same n, not when it lies below the floor of another n.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from genbench.contracts import UserError
from genbench.data.images import ImageSet
from genbench.generators.classifier import Classifier
from genbench.metrics.card import Card
from genbench.metrics.extractors import Extractor, Shipped
from genbench.metrics.fid import frechet_distance, gaussian
from genbench.metrics.identity import making
from genbench.metrics.moments import Moments
from genbench.metrics.packed import reference_path, write_reference
from genbench.ops.quantize import QUANTISER, dequantize, quantize
from genbench.ops.random import Keys

BATCH = 500
SUBSETS = 5


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 `images` [N, C, H, W] whose label [N] is `network`'s first choice, in [0, 1].

    `network` maps images in [-1, 1] to (features, logits); it is left in the mode it was found in.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            _, logits = network(dequantize(images[start : start + BATCH].to(device)))
            right += int((logits.argmax(dim=1).cpu() == labels[start : start + BATCH].cpu()).sum())
    network.train(training)
    return right / len(images)


def export(
    classifier: Classifier,
    train: ImageSet,
    test: ImageSet,
    folder: Path,
    *,
    n_samples: int,
    command: str,
    device: torch.device | str = "cpu",
) -> Card:
    """Writes a trained `classifier` to `folder`: `<name>.safetensors`, its card `<name>.json`, and the
    moments of `train` as `<name>.reference.safetensors`. Returns the card.

    name is the data set's; n_samples is the track's standard sample count; command is what trains it again.
    Raises UserError where a weight does not fit float16 or the data set has no labels.
    """
    if test.labels is None:
        raise UserError(f"{test.name} has no labels to measure an extractor's accuracy with")
    folder.mkdir(parents=True, exist_ok=True)
    blob = save(_halved(classifier.network))
    path = folder / f"{train.name}.safetensors"
    path.write_bytes(blob)
    facts: dict[str, Any] = {
        "name": train.name,
        "image_shape": classifier.image_shape,
        "architecture": classifier.architecture,
        "features": classifier.network.features,
        "parameters": sum(p.numel() for p in classifier.network.parameters()),
        "sha256": hashlib.sha256(blob).hexdigest(),
        "train_sha256": train.sha256,
        "n_train": len(train),
        "n_samples": n_samples,
        "n_test": len(test),
        "quantiser": QUANTISER,
        "command": command,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("torch", "genbench")}},
    }
    unmeasured: dict[str, Any] = dict.fromkeys(
        ("test_accuracy", "floor", "ceiling", "subset_mean", "subset_std"), 0.0
    )
    Card(**facts, **unmeasured).write(folder)
    extractor = Shipped(train.name, folder).to(device)
    layers = _features(extractor, train.images)
    reference = Moments.of(layers)
    card = Card(**facts, **_measured(extractor, train, test, n_samples, layers, reference))
    card.write(folder)
    made_of = making(
        images=train.sha256,
        split=train.split,
        count=len(train),
        extractor=extractor.name,
        weights=extractor.sha256,
        layer=extractor.roles["features"],
        resize=extractor.resize,
        quantiser=QUANTISER,
    )
    write_reference(gaussian(reference), made_of, reference_path(train.name, folder))
    return card


def pixelwise_gaussian(images: Tensor, count: int, seed: int = 0) -> Tensor:
    """`count` uint8 images whose pixels are independent, each Gaussian with its own mean and deviation.

    images: uint8 [N, C, H, W], whose pixels' means and deviations are matched before clipping and quantising.
    """
    pixels = dequantize(images).double()
    mean, deviation = pixels.mean(dim=0), pixels.std(dim=0)
    drawn = []
    for index in torch.arange(count, device=images.device).split(BATCH):
        noise = Keys(index, seed).normal(tuple(images.shape[1:]))
        drawn.append(quantize((mean + deviation * noise.double()).float()))
    return torch.cat(drawn)


def _measured(
    extractor: Extractor, train: ImageSet, test: ImageSet, n_samples: int, layers: Tensor, reference: Moments
) -> dict[str, Any]:
    """The card's measured entries; layers: features of the training images; reference: their moments."""
    generator = torch.Generator().manual_seed(0)
    chosen = [torch.randperm(len(train), generator=generator)[: len(test)] for _ in range(SUBSETS)]
    subsets = torch.tensor([frechet_distance(Moments.of(layers[rows]), reference) for rows in chosen])
    gaussian = pixelwise_gaussian(train.images, n_samples)
    logits = torch.cat(
        [extractor(part)[extractor.roles["logits"]].cpu() for part in test.images.split(BATCH)]
    )
    right = logits.argmax(dim=1) == test.labels.cpu() if test.labels is not None else torch.zeros(1)
    return {
        "test_accuracy": float(right.double().mean()),
        "floor": frechet_distance(Moments.of(_features(extractor, test.images)), reference),
        "ceiling": frechet_distance(Moments.of(_features(extractor, gaussian)), reference),
        "subset_mean": float(subsets.mean()),
        "subset_std": float(subsets.std()),
    }


def _features(extractor: Extractor, images: Tensor) -> Tensor:
    """Features float32 [N, D] of uint8 images [N, C, H, W], on the CPU."""
    return torch.cat([extractor(part)[extractor.roles["features"]].cpu() for part in images.split(BATCH)])


def _halved(network: nn.Module) -> dict[str, Tensor]:
    """The state of `network` in float16, without counters, which evaluation does not use."""
    state = {name: t.detach().cpu() for name, t in network.state_dict().items() if t.is_floating_point()}
    halved = {name: tensor.half().contiguous() for name, tensor in state.items()}
    unfit = [name for name, tensor in halved.items() if not bool(tensor.isfinite().all())]
    if unfit:
        raise UserError(f"weights do not fit float16: {', '.join(unfit)}; train with more weight decay")
    return halved
