"""Extractors: shipped ones are what their cards say; Inception is torch-fidelity's; nothing is executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import urllib.request
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
import torch_fidelity
import torch_fidelity.feature_extractor_inceptionv3 as torch_fidelity_inception
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from genbench.contracts import UserError
from genbench.metrics.card import SHIPPED, Card
from genbench.metrics.choice import check, choose
from genbench.metrics.extractors import SPATIAL, Inception, Shipped
from genbench.metrics.fid import frechet_distance
from genbench.metrics.inception_score import inception_score
from genbench.metrics.moments import Moments

CPU = torch.device("cpu")


def images(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)


# ------------------------------------------------------------------------------------------------ shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped digits extractor, to be damaged."""
    for suffix in ("json", "safetensors"):
        shutil.copy(SHIPPED / f"digits.{suffix}", tmp_path)
    return tmp_path


def test_batch_normalisation_is_folded_without_changing_the_function() -> None:
    from safetensors.torch import load_file

    from genbench.networks.classifier import ConvClassifier
    from genbench.ops.quantize import dequantize

    card = Card.read("digits")
    network = ConvClassifier(**card.architecture)
    network.load_state_dict(load_file(SHIPPED / "digits.safetensors"), strict=False)
    pool, logits = network.eval()(dequantize(images(50)))
    layers = Shipped("digits")(images(50))
    torch.testing.assert_close(layers["pool"], pool, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers["logits"], logits, rtol=1e-4, atol=1e-4)
    assert layers["pool"].shape == (50, card.features)


def test_features_do_not_depend_on_the_batch_nor_on_the_training_mode() -> None:
    extractor = Shipped("digits")
    whole = extractor(images(64))["pool"]
    extractor.network.train()
    extractor.network.eval()
    parts = torch.cat([extractor(part)["pool"] for part in images(64).split([1, 7, 56])])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in extractor.network.modules())
    assert not whole.requires_grad


def test_autocast_around_it_does_not_reach_it() -> None:
    extractor = Shipped("digits")
    outside = extractor(images(8))["pool"]
    with torch.autocast("cpu", torch.bfloat16):
        inside = extractor(images(8))["pool"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_convolutions_run_in_full_precision_and_settings_are_restored() -> None:
    setting = torch.backends.cudnn.conv
    before, inside = setting.fp32_precision, []
    extractor = Shipped("digits")
    extractor.network.head.register_forward_hook(lambda *call: inside.append(setting.fp32_precision))
    setting.fp32_precision = "tf32"
    try:
        extractor(images(1))
        with pytest.raises(RuntimeError):
            extractor(torch.zeros(1, 1, 0, 0, dtype=torch.uint8))
        assert inside == ["ieee"]
        assert setting.fp32_precision == "tf32"
    finally:
        setting.fp32_precision = before


def test_a_float_image_is_refused() -> None:
    with pytest.raises(ValueError, match="quantize"):
        Shipped("digits")(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\[B, 1, H, W\]"):
        Shipped("digits")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_weights_other_than_the_cards_are_refused(folder: Path) -> None:
    blob = bytearray((folder / "digits.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "digits.safetensors").write_bytes(blob)
    with pytest.raises(UserError, match="not of one training"):
        Shipped("digits", folder)


def test_a_damaged_card_is_refused(folder: Path) -> None:
    card = json.loads((folder / "digits.json").read_text())
    del card["floor"]
    (folder / "digits.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="floor"):
        Shipped("digits", folder)


def test_missing_extractors_and_weights_say_what_to_type(folder: Path) -> None:
    with pytest.raises(UserError, match="task=extractor dataset=svhn"):
        Shipped("svhn")
    (folder / "digits.safetensors").unlink()
    with pytest.raises(UserError, match="reinstall"):
        Shipped("digits", folder)


def test_images_of_another_shape_are_refused_before_the_run() -> None:
    with pytest.raises(UserError, match=r"\(1, 8, 8\)"):
        check([Shipped("digits")], (3, 32, 32), 100, CPU)
    with pytest.raises(UserError, match="too few"):
        check([Shipped("digits")], (1, 8, 8), 9, CPU)
    assert check([Shipped("digits")], (1, 8, 8), 2000, CPU) == []


# ---------------------------------------------------------------------------------------------- inception


def unreachable(*args: object, **kwargs: object) -> None:
    raise urllib.request.URLError("no network in this test")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing in torch's hub directory."""
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_missing_weights_are_refused_with_what_to_type() -> None:
    for extractor in (Inception(), Inception("/nowhere/weights.pth")):
        with pytest.raises(UserError, match=r"metrics\.weights="):
            check([extractor], (3, 32, 32), 50_000, CPU)


@pytest.mark.usefixtures("offline")
def test_inception_is_offered_to_colour_images_on_an_accelerator_and_demanded_when_asked() -> None:
    cuda = torch.device("cuda")
    digits = Shipped("digits")
    chosen, lines = choose([digits], "auto", 3, cuda)
    assert chosen == [digits]
    assert len(lines) == 1
    assert "metrics.weights" in lines[0]
    assert choose([digits], "auto", 3, CPU) == ([digits], [])
    assert choose([digits], "auto", 1, cuda) == ([digits], [])
    assert choose([digits], False, 3, cuda) == ([digits], [])
    chosen, _ = choose([digits], True, 3, CPU)
    assert [extractor.name for extractor in chosen] == ["digits", "inception"]
    with pytest.raises(UserError, match="weights"):
        check(chosen[1:], (3, 32, 32), 50_000, CPU)
    with pytest.raises(UserError, match="auto, true or false"):
        choose([digits], "sometimes", 3, CPU)


def test_weights_at_hand_bring_inception_and_on_a_cpu_its_price(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"looked at only when first used")
    chosen, lines = choose([Shipped("digits")], "auto", 3, torch.device("cuda"), str(weights))
    assert [extractor.name for extractor in chosen] == ["digits", "inception"]
    assert lines == []
    (price,) = check(chosen[1:], (3, 32, 32), 50_000, CPU)
    assert "49 to 417 minutes" in price
    assert check(chosen[1:], (3, 32, 32), 50_000, torch.device("cuda")) == []


class Explosive:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_weights_are_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    torch.save({"weight": Explosive(trap)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Explosive(trap), protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(UserError, match="plain weights"):
            _ = Inception(tmp_path / name).sha256
    assert not trap.exists()
    pickle.loads(pickle.dumps(Explosive(trap)))
    assert trap.exists(), "the trap itself does not work"


class Images(Dataset):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def pictures(n: int, seed: int) -> Tensor:
    """Colour images that differ in colour, contrast and coarseness: [n, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for number in range(n):
        coarse = torch.rand(1, 3, 2 ** (1 + number % 5), 2 ** (1 + number % 5), generator=generator)
        picture = torch.nn.functional.interpolate(coarse, 32)[0] ** (0.3 + number % 7)
        drawn.append((picture * 255).to(torch.uint8))
    return torch.stack(drawn)


def oracle_settings(weights: Path) -> dict[str, object]:
    """No cache (it is keyed without the weights), no worker processes, no GPU."""
    quiet = {"cuda": False, "cache": False, "verbose": False, "save_cpu_ram": True}
    return {**quiet, "batch_size": 10, "feature_extractor_weights_path": str(weights)}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of the right shapes, scaled so that activations neither vanish nor explode."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(torch_fidelity_inception, "load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(
            torch_fidelity_inception.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None
        )
        network = torch_fidelity_inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.mul_(6**0.5)
    network.fc.weight.mul_(30)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


class EarlyInception(Inception):
    """With the first two of Inception's layers in place of the last: cheap, and of full rank for few images.

    70 images cannot span 2,048 features. torch-fidelity takes roots of the eigenvalues of a product of two
    singular covariances, most of them rounding, and is right to five digits there; here it is to seven.
    """

    roles = MappingProxyType({"features": "64", "logits": "192"})


@pytest.mark.slow
def test_fid_is_torch_fidelitys_on_the_same_images(random_weights: Path) -> None:
    a, b = pictures(70, 0), pictures(70, 1)
    extractor = EarlyInception(random_weights)
    fid = frechet_distance(Moments.of(extractor(a)["64"]), Moments.of(extractor(b)["64"]))
    oracle = torch_fidelity.calculate_metrics(
        input1=Images(a),
        input2=Images(b),
        fid=True,
        feature_layer_fid="64",
        **oracle_settings(random_weights),
    )
    assert fid == pytest.approx(oracle["frechet_inception_distance"], rel=1e-6)


@pytest.mark.slow
def test_is_is_torch_fidelitys_on_the_same_images(random_weights: Path) -> None:
    a = pictures(20, 0)
    mean, spread = inception_score(Inception(random_weights)(a)["logits_unbiased"])
    oracle = torch_fidelity.calculate_metrics(input1=Images(a), isc=True, **oracle_settings(random_weights))
    assert mean == pytest.approx(oracle["inception_score_mean"], rel=1e-6)
    assert spread == pytest.approx(oracle["inception_score_std"], rel=1e-4)
    assert mean > 1.005, "too close to 1, the least possible score, for this to tell anything"


@pytest.mark.slow
def test_inceptions_layers_are_torch_fidelitys(random_weights: Path) -> None:
    a = pictures(3, 0)
    extractor = Inception(random_weights)
    found = extractor(a)
    network = torch_fidelity_inception.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(random_weights)
    )
    with torch.no_grad():
        pool, logits = network(a)
    torch.testing.assert_close(found["2048"], pool, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["logits_unbiased"], logits, rtol=1e-5, atol=1e-5)
    assert {name: layer.shape[1] for name, layer in found.items()} == extractor.dimensions
    # sFID's layer by hand: the first 7 channels of the first branch of the block that torch calls 6d.
    with torch.no_grad():
        pixels = interpolate_bilinear_2d_like_tensorflow1x(a.float(), size=(299, 299), align_corners=False)
        middle = (pixels - 128) / 128
        for name, block in network.named_children():
            if name == "Mixed_6d":
                break
            middle = block(middle)
        spatial = network.Mixed_6d.branch1x1(middle)
    assert spatial.shape == (3, 192, 17, 17)
    torch.testing.assert_close(found[SPATIAL].reshape(3, 7, 17, 17), spatial[:, :7], rtol=1e-4, atol=1e-5)
    assert extractor.sha256 == hashlib.sha256(random_weights.read_bytes()).hexdigest()
    # Grey images are the same grey in three channels.
    grey = a[:1, :1]
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)), rtol=0, atol=0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="another network"):
        _ = Inception(path).sha256
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds list"):
        _ = Inception(path).sha256
