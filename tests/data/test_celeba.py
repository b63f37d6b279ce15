"""CelebA from a small layout of its own: which pictures, which square, and decoding only once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import edm_files, encode, random_images, write_folder, write_zip
from PIL import Image
from torchvision.transforms import functional as oracle

from genbench.contracts import UserError
from genbench.data import cache
from genbench.data.cache import FOLDER
from genbench.data.celeba import CENTRE, CelebA, Window, read_partition
from genbench.data.images import digests

DDIM = Window(x=89, y=121, size=128)
SPLITS = [0, 0, 1, 2, 0, 2]


class SmallCelebA(CelebA):
    counts = {"train": 3, "test": 2}  # noqa: RUF012 - a class variable in the base class


def faces() -> np.ndarray:
    """uint8 [6, 3, 218, 178]: smooth enough for JPEG, different in every place."""
    coarse = torch.from_numpy(random_images(6, 3, 8)).float()
    return torch.nn.functional.interpolate(coarse, (218, 178), mode="bilinear").round().byte().numpy()


def layout(root: Path, zipped: bool = False, format: str = "PNG") -> np.ndarray:
    """torchvision's files, the pictures as they are (Pillow looks at contents, not at names)."""
    images = faces()
    names = [f"{number:06d}.jpg" for number in range(1, 7)]
    lines = "".join(f"{name} {split}\n" for name, split in zip(names, SPLITS, strict=True))
    pictures = {name: encode(image, format) for name, image in zip(names, images, strict=True)}
    write_folder(root / "celeba", {"list_eval_partition.txt": lines.encode()})
    if zipped:
        inside = {f"img_align_celeba/{name}": data for name, data in pictures.items()}
        write_zip(root / "celeba" / "img_align_celeba.zip", inside)
    else:
        write_folder(root / "celeba" / "img_align_celeba", pictures)
    return images


@pytest.mark.parametrize(("crop", "box"), [(CENTRE, (39, 179, 19, 159)), (DDIM, (57, 185, 25, 153))])
def test_the_square_and_the_resizing_are_those_of_the_papers(
    tmp_path: Path, crop: Window, box: tuple[int, int, int, int]
) -> None:
    images = layout(tmp_path)
    found = SmallCelebA(crop=crop).load(tmp_path, "train")
    top, bottom, left, right = box
    expected = []
    for image in images[[0, 1, 4]]:
        square = Image.fromarray(image[:, top:bottom, left:right].transpose(1, 2, 0))
        expected.append(oracle.pil_to_tensor(oracle.resize(square, [64, 64])).numpy())
    assert found.images.shape == (3, 3, 64, 64)
    assert found.labels is None
    assert sorted(digests(found.images.numpy(), None)) == sorted(digests(np.stack(expected), None))


def test_the_default_is_torchvisions_centre_crop(tmp_path: Path) -> None:
    image = Image.fromarray(layout(tmp_path)[0].transpose(1, 2, 0))
    ours = CENTRE(image, 64, "x")
    theirs = oracle.resize(oracle.center_crop(image, [140, 140]), [64, 64])
    assert ours.tobytes() == theirs.tobytes()


def test_a_window_of_the_resolution_is_a_slice(tmp_path: Path) -> None:
    images = layout(tmp_path)
    found = SmallCelebA(crop=Window(x=50, y=70, size=64)).load(tmp_path, "test")
    expected = images[[3, 5], :, 38:102, 18:82]
    assert sorted(digests(found.images.numpy(), None)) == sorted(digests(expected, None))


@pytest.mark.parametrize("split", ["train", "test"])
def test_jpegs_in_a_folder_and_in_the_zip_are_the_same_set(tmp_path: Path, split: str) -> None:
    layout(tmp_path / "a", format="JPEG")
    layout(tmp_path / "b", zipped=True, format="JPEG")
    one, other = (SmallCelebA().load(tmp_path / root, split) for root in ("a", "b"))
    assert one.sha256 == other.sha256


def test_the_crop_is_recorded(tmp_path: Path) -> None:
    layout(tmp_path)
    for crop, says in ((CENTRE, "140x140 window centred at (x=89, y=109)"), (DDIM, "128x128 window")):
        assert says in SmallCelebA(crop=crop).load(tmp_path, "test").provenance["crop"]
    finished = edm_files(random_images(2, 3, 64), None)
    (tmp_path / "z").mkdir()
    write_zip(tmp_path / "z" / "celeba-test-64x64.zip", finished)
    assert SmallCelebA().load(tmp_path / "z", "test").provenance["crop"] == "as prepared in the zip"


def test_pictures_are_decoded_once_for_each_crop_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout(tmp_path)
    hashes = {
        (crop, split): SmallCelebA(crop=crop).load(tmp_path, split).sha256
        for crop in (CENTRE, DDIM)
        for split in ("train", "test")
    }
    assert len(set(hashes.values())) == 4
    assert len(list((tmp_path / FOLDER).glob("celeba-*.safetensors"))) == 4
    monkeypatch.setattr(cache, "decode_all", lambda *_: pytest.fail("decoded again"))
    for (crop, split), sha256 in hashes.items():
        assert SmallCelebA(crop=crop).load(tmp_path, split).sha256 == sha256


def test_a_window_outside_the_picture_is_refused(tmp_path: Path) -> None:
    layout(tmp_path)
    for crop in (Window(89, 121, 200), Window(63, 121, 128), Window(89, 155, 128), Window(89, 50, 128)):
        with pytest.raises(UserError, match=r"0000\d\d\.jpg in .*178x218 pixels.*dataset\.source\.crop"):
            SmallCelebA(crop=crop).load(tmp_path, "train")


def test_a_listed_picture_that_is_missing_is_named(tmp_path: Path) -> None:
    layout(tmp_path)
    (tmp_path / "celeba/img_align_celeba/000005.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 000005\.jpg.*1 files missing"):
        SmallCelebA().load(tmp_path, "train")


@pytest.mark.parametrize("line", ["000002.jpg", "000002.jpg 3", "000002.jpg 0 0"])
def test_a_bad_line_of_the_partition_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"000001.jpg 0\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt, line 2"):
        read_partition(tmp_path / "list.txt", "train")


def test_an_incomplete_copy_is_not_the_published_set(tmp_path: Path) -> None:
    layout(tmp_path)
    with pytest.raises(UserError, match=r"holds 3 images.*162,770"):
        CelebA().load(tmp_path, "train")


def test_without_gdown_there_is_no_download_to_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for ask in (CelebA().locate, CelebA().load):
        with pytest.raises(UserError, match=r"(?s)pip install gdown.*celeba-64x64\.zip"):
            ask(tmp_path, "train")
