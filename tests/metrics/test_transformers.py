"""DINOv2 and CLIP: torch-fidelity's networks under random weights; nothing is unpickled; what to type."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity import feature_extractor_clip, feature_extractor_dinov2

from genbench.errors import UserError
from genbench.metrics.extractors import Inception
from genbench.metrics.transformers import CLIP, DINOv2, clip_pixels

CPU = torch.device("cpu")


def images(n: int = 3, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub directory and no network."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.request.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub"


# ------------------------------------------------------------------------------------------------- DINOv2


class Patches(nn.Module):
    """In DINOv2's place: as many features, of patches of as many pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 1024, 14, stride=14)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x).mean(dim=(2, 3))


@pytest.fixture
def dinov2(hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of weights for `Patches`, which torch.hub finds as DINOv2's code, without weights of its own."""

    def load(repository: str, name: str, pretrained: bool = True, **options: Any) -> nn.Module:
        assert (repository, name) == ("facebookresearch/dinov2", "dinov2_vitl14")
        assert not pretrained, "torch.hub would unpickle the weights itself"
        return Patches()

    monkeypatch.setattr(torch.hub, "load", load)
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    torch.save(Patches().state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_dinov2_prepares_images_as_torch_fidelity_does(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = DINOv2(dinov2)
    found = extractor(images())
    network = Patches()
    network.load_state_dict(torch.load(dinov2, weights_only=True))
    monkeypatch.setattr(torch.hub, "load", lambda *words, **options: network)
    oracle = feature_extractor_dinov2.FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    torch.testing.assert_close(found["dinov2"], oracle(images())[0], rtol=1e-5, atol=1e-6)
    assert {layer: rows.shape[1] for layer, rows in found.items()} == extractor.dimensions
    grey = images(2, 1)
    assert torch.equal(extractor(grey)["dinov2"], extractor(grey.repeat(1, 3, 1, 1))["dinov2"])


def test_dinov2_says_what_is_missing_and_what_to_type(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DINOv2's weights are missing.*metrics\.weights=PATH"):
        DINOv2().check((3, 32, 32), 100, CPU)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(
        UserError, match=r"DINOv2's code is missing.*torch\.hub\.load\('facebookresearch/dinov2'"
    ):
        DINOv2(tmp_path / "weights.pth").check((3, 32, 32), 100, CPU)
    (hub / "facebookresearch_dinov2_main").mkdir(parents=True)
    (line,) = DINOv2(tmp_path / "weights.pth").check((3, 32, 32), 6000, CPU)
    assert "33 to 200 minutes" in line
    with pytest.raises(UserError, match="found 4 channels"):
        DINOv2(tmp_path / "weights.pth").check((4, 32, 32), 100, CPU)


def test_weights_of_another_network_are_refused(dinov2: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, dinov2)
    with pytest.raises(UserError, match="another network than DINOv2"):
        _ = DINOv2(dinov2).sha256


# --------------------------------------------------------------------------------------------------- CLIP


def clip_state() -> dict[str, Tensor]:
    """CLIP's tensors for a vision transformer of two layers on 28 pixels, and one of its text's."""
    torch.manual_seed(0)
    network = feature_extractor_clip.CLIPVisual(768, 28, 2, 64, 14)
    return {**network.state_dict(), "text_projection": torch.zeros(512, 768)}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    torch.save(clip_state(), tmp_path / "clip.pth")
    return tmp_path / "clip.pth"


@pytest.mark.usefixtures("hub")
def test_clip_is_torch_fidelitys_network_and_its_embeddings_have_unit_length(clip: Path) -> None:
    extractor = CLIP(clip)
    found = extractor(images())["clip"]
    network = feature_extractor_clip.build_model(clip_state(), torch.float32)
    with torch.no_grad():
        expected = network.visual(clip_pixels(images(), 28))
    torch.testing.assert_close(found * expected.norm(dim=1, keepdim=True), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert {extractor.dimensions[layer] for layer in extractor.roles.values()} == {768}
    assert (extractor.metric("cmmd"), extractor.metric("fd")) == ("cmmd", "fd_clip")


def test_clip_prepares_images_as_its_authors_do() -> None:
    """Already of the right size: only scaled and standardised. A flat image stays flat in any size."""
    pixels = clip_pixels(images(), 32)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    expected = (images().float() / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(pixels, expected, rtol=1e-6, atol=1e-6)
    flat = clip_pixels(torch.full((1, 3, 8, 8), 51, dtype=torch.uint8), 336)
    assert flat.shape == (1, 3, 336, 336)
    torch.testing.assert_close(
        flat, ((0.2 - mean) / std)[None, :, None, None].expand_as(flat), rtol=1e-5, atol=1e-5
    )


@pytest.mark.usefixtures("hub")
def test_only_the_published_archive_is_opened_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TorchScript archive of another sum is neither run nor believed."""

    class Program(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    torch.jit.save(torch.jit.script(Program()), tmp_path / "program.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *words, **options: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="plain weights"):
        _ = CLIP(tmp_path / "program.pt").sha256
    with pytest.raises(UserError, match=r"CLIP's weights are missing.*metrics\.weights=PATH"):
        CLIP().check((3, 32, 32), 100, CPU)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="another network than CLIP"):
        _ = CLIP(tmp_path / "other.pth").sha256


@pytest.mark.parametrize("extractor", [Inception, DINOv2, CLIP])
def test_a_published_network_goes_to_its_device_when_it_is_loaded(extractor: type) -> None:
    made = extractor()
    assert made.to("cuda:1") is made
    assert made.device == torch.device("cuda:1")  # though neither weights nor such a device need be here
