"""Reference statistics: computed once, never stale, and a damaged cache is computed again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genbench.data.images import ImageSet
from genbench.metrics import reference as module
from genbench.metrics.reference import Real, Reference, refer


class Pixels:
    """An extractor whose features are some of the pixels, and which counts the images it sees."""

    name = "pixels"
    resize = "none"
    sha256 = "0" * 64

    def __init__(self) -> None:
        self.seen = 0
        self.roles = {"features": "pool", "logits": "logits"}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.seen += len(images)
        flat = images.flatten(1).float()
        return {"pool": flat[:, :5], "logits": flat[:, 5:8]}


@pytest.fixture
def images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (120, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet("toy", "train", pixels, None, 0, 256, "a" * 64, {})


def known(images: ImageSet, folder: Path | None, extractor: Pixels | None = None) -> tuple[Reference, int]:
    """The reference, and how many images had to be looked at for it."""
    extractor = extractor or Pixels()
    found = refer(images, extractor, ["features"], (), folder, batch_size=50)  # type: ignore[arg-type]
    return found["features"], extractor.seen


def test_the_second_time_nothing_is_computed(images: ImageSet, tmp_path: Path) -> None:
    first, work = known(images, tmp_path / "new")
    assert work == 120
    second, work = known(images, tmp_path / "new")
    assert work == 0
    assert second.moments.sha256 == first.moments.sha256
    assert second.images == first.images == "train, 120 images"
    assert second.sha256 == first.sha256
    assert [file.suffix for file in (tmp_path / "new").iterdir()] == [".safetensors"]


def test_without_a_folder_nothing_is_kept(images: ImageSet) -> None:
    assert known(images, None)[1] == known(images, None)[1] == 120


def change(what: str, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> tuple[ImageSet, Pixels]:
    extractor = Pixels()
    if what == "content":
        images = replace(images, sha256="b" * 64)
    elif what == "split":
        images = replace(images, split="test")
    elif what == "count":
        images = replace(images, images=images.images[:100].contiguous())
    elif what == "quantiser":
        monkeypatch.setattr(module, "QUANTISER", "another")
    else:
        changed = {
            "weights": ("sha256", "1" * 64),
            "layer": ("roles", {"features": "logits"}),
            "resize": ("resize", "twice"),
        }
        setattr(extractor, *changed[what])
    return images, extractor


@pytest.mark.parametrize("what", ["content", "split", "count", "quantiser", "weights", "layer", "resize"])
def test_whatever_determines_the_statistics_is_in_the_key(
    what: str, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = known(images, tmp_path)
    changed, extractor = change(what, images, monkeypatch)
    after, work = known(changed, tmp_path, extractor)
    assert work > 0
    assert after.sha256 != before.sha256


@pytest.mark.parametrize("place", [0, 200, -1])
def test_a_damaged_file_is_computed_again(images: ImageSet, tmp_path: Path, place: int) -> None:
    first, _ = known(images, tmp_path)
    (file,) = tmp_path.iterdir()
    blob = bytearray(file.read_bytes())
    blob[place] ^= 1
    file.write_bytes(blob)
    second, work = known(images, tmp_path)
    assert work == 120
    assert second.moments.sha256 == first.moments.sha256
    assert known(images, tmp_path)[1] == 0


def test_another_sets_file_under_this_name_is_not_believed(images: ImageSet, tmp_path: Path) -> None:
    known(images, tmp_path)
    (mine,) = tmp_path.iterdir()
    other = replace(images, sha256="c" * 64, images=images.images.flip(0).contiguous())
    known(other, tmp_path)
    (theirs,) = set(tmp_path.iterdir()) - {mine}
    mine.write_bytes(theirs.read_bytes())
    assert known(images, tmp_path)[1] == 120


def test_a_folder_that_cannot_be_written_costs_a_warning(
    images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    found, work = known(images, tmp_path / "file" / "folder")
    assert work == 120
    assert found.moments.n == 120
    assert "could not be kept" in caplog.text


Found = tuple[dict[str, Reference], int]


def everything(images: ImageSet, folder: Path, roles: list[str], whole: list[str]) -> Found:
    extractor = Pixels()
    return refer(images, extractor, roles, whole, folder, batch_size=50), extractor.seen  # type: ignore[arg-type]


def test_whole_layers_are_kept_too_and_one_pass_gives_them_all(images: ImageSet, tmp_path: Path) -> None:
    roles = ["features", "logits"]
    first, work = everything(images, tmp_path, roles, roles)
    assert work == 120
    second, work = everything(images, tmp_path, roles, roles)
    assert work == 0
    flat = images.images.flatten(1).float()
    for role, expected in (("features", flat[:, :5]), ("logits", flat[:, 5:8])):
        assert torch.equal(first[role].features(), expected)
        assert torch.equal(second[role].features(), expected)
    assert first["features"].sha256 != first["logits"].sha256


def test_rows_are_computed_where_only_moments_were_known(images: ImageSet, tmp_path: Path) -> None:
    moments, _ = known(images, tmp_path)
    with pytest.raises(ValueError, match="only moments are known"):
        moments.features()
    found, work = everything(images, tmp_path, ["features"], ["features"])
    assert work == 120
    assert found["features"].sha256 == moments.sha256
    assert known(images, tmp_path)[1] == 0


@pytest.mark.parametrize("what", ["content", "split", "count", "quantiser"])
def test_rows_are_never_anothers(
    what: str, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(images, tmp_path, ["features"], ["features"])
    changed, _ = change(what, images, monkeypatch)
    found, work = everything(changed, tmp_path, ["features"], ["features"])
    assert work == len(changed)
    assert len(found["features"].features()) == len(changed)


def test_damaged_rows_are_computed_again(images: ImageSet, tmp_path: Path) -> None:
    everything(images, tmp_path, ["features"], ["features"])
    (file,) = tmp_path.glob("*-rows.safetensors")
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(blob)
    found, work = everything(images, tmp_path, ["features"], ["features"])
    assert work == 120
    assert torch.equal(found["features"].features(), images.images.flatten(1).float()[:, :5])


def test_labels_come_along_and_what_was_not_prepared_is_refused(images: ImageSet, tmp_path: Path) -> None:
    labelled = replace(images, labels=torch.arange(120) % 3, classes=3)
    found, _ = everything(labelled, tmp_path, ["features"], [])
    assert torch.equal(found["features"].labels, torch.arange(120) % 3)
    real = Real("train", {("features", "train"): found["features"]})
    assert real() is real("features", "train") is found["features"]
    with pytest.raises(ValueError, match="features of test were not prepared; there are: features of train"):
        real(split="test")
