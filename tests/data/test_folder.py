"""A user's own folder or zip: found, split, labelled, resized, or refused with what to type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import edm_files, encode, random_images

from genbench.contracts import UserError
from genbench.data.folder import Folder
from genbench.data.images import digests

Write = Callable[[Mapping[str, bytes]], Path]


def load(path: Path, split: str = "train", **options: object) -> object:
    settings = {"resolution": 8, "channels": 3} | options
    return Folder(str(path), **settings).load(path.parent / "data_root", split)


def test_pictures_and_labels_are_found_however_deep(write: Write) -> None:
    images, labels = random_images(6), np.arange(6) % 3
    found = load(write(edm_files(images, labels)), classes=3)
    assert sorted(digests(found.images.numpy(), found.labels.numpy())) == sorted(digests(images, labels))
    assert (found.name, found.classes, found.levels) == ("folder", 3, 256)


def test_labels_nobody_asked_for_are_left_alone(write: Write) -> None:
    path = write(edm_files(random_images(6), np.arange(6)))
    assert load(path).labels is None


def test_the_test_split_is_the_folder_test(write: Write) -> None:
    images = random_images(5)
    names = ["a.png", "test/b.png", "tests/c.png", "test/deep/d.png", "x/test/e.png"]
    pairs = [[name, number] for number, name in enumerate(names)]
    files = {name: encode(image) for name, image in zip(names, images, strict=True)}
    path = write(files | {"dataset.json": json.dumps({"labels": pairs}).encode()})
    assert load(path, "train", classes=5).labels.sort().values.tolist() == [0, 2, 4]
    assert load(path, "test", classes=5).labels.sort().values.tolist() == [1, 3]
    assert "3 images" in Folder(str(path), 8, 3).locate(path, "train")


def test_no_test_split_is_said(write: Write) -> None:
    path = write(edm_files(random_images(2), None))
    with pytest.raises(UserError, match=r"no test split.*test/"):
        load(path, "test")


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"x"}, {"test/a.png": b""}])
def test_an_empty_collection_is_refused(write: Write, tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "collection"
    if not files:
        path.mkdir()
    path = write(files) if files else path
    folder = Folder(str(path), 8, 3)
    for ask in (folder.locate, folder.load):
        with pytest.raises(UserError, match="collection holds no PNG, JPEG or WebP"):
            ask(tmp_path, "train")


def test_another_size_says_what_to_type(write: Write) -> None:
    path = write({"a.png": encode(random_images(1)[0]), "b.png": encode(random_images(1, resolution=16)[0])})
    with pytest.raises(UserError, match=r"(?s)b\.png in .* 16x16 .*expected 8x8.*dataset\.resize=true"):
        load(path)
    found = load(path, resize=True)
    assert found.images.shape == (2, 3, 8, 8)
    assert "bicubic" in found.provenance["crop"]
    assert (found.images == torch.from_numpy(random_images(1)[0])).flatten(1).all(1).any()  # 8x8 is kept


def test_other_channels_are_refused_by_name(write: Write) -> None:
    path = write({"a.png": encode(random_images(1, channels=1)[0])})
    with pytest.raises(UserError, match=r"a\.png in .* 1 channel.*expected 3"):
        load(path)
    assert load(path, channels=1).images.shape == (1, 1, 8, 8)


def test_classes_without_labels_are_refused(write: Write) -> None:
    path = write(edm_files(random_images(2), None))
    with pytest.raises(UserError, match=r"no labels but dataset\.classes=2.*dataset\.json"):
        load(path, classes=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": None}, r"dataset\.path=DIR"),
        ({"path": "/nowhere"}, "nothing at /nowhere"),
        ({"channels": 2}, r"dataset\.channels=2"),
        ({"resolution": 0}, r"dataset\.resolution=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, options: dict, says: str) -> None:
    folder = Folder(**({"path": str(tmp_path), "resolution": 8, "channels": 3} | options))
    with pytest.raises(UserError, match=says):
        folder.locate(tmp_path, "train")


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(encode(random_images(1)[0]))
    assert "1 images" in Folder("~/mine", 8, 3).locate(tmp_path, "train")
