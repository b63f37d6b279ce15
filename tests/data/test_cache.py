"""The cache of decoded images: believed only while its pictures and its own bytes are what they were."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from picture_files import edm_files, encode, random_images, write_folder

from genbench.data import cache
from genbench.data.cache import FOLDER, decode_or_reuse, decoded_once
from genbench.data.decoding import Exact, Resized
from genbench.data.pictures import FolderOfPictures

PIXELS = random_images(4)


class Counted:
    """A decoder that counts how often it was needed."""

    def __init__(self, pixels: np.ndarray = PIXELS) -> None:
        self.pixels, self.calls = pixels, 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.pixels


def test_the_second_time_is_read_back(tmp_path: Path) -> None:
    decode, file = Counted(), tmp_path / "sub" / "x.safetensors"
    for _ in range(3):
        assert np.array_equal(decoded_once(file, {"a": "1"}, decode), PIXELS)
    assert decode.calls == 1
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_key_decodes_again_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    decoded_once(file, {"a": "1"}, Counted())
    other = Counted(random_images(4, seed=1))
    assert np.array_equal(decoded_once(file, {"a": "2"}, other), other.pixels)
    again = Counted()
    assert np.array_equal(decoded_once(file, {"a": "2"}, again), other.pixels)
    assert again.calls == 0


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty", "not safetensors"])
def test_a_damaged_file_is_never_believed(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, decode = tmp_path / "x.safetensors", Counted()
    decoded_once(file, {}, decode)
    data = file.read_bytes()
    damaged = {
        "flipped bit": data[:-7] + bytes([data[-7] ^ 1]) + data[-6:],
        "truncated": data[:-9],
        "empty": b"",
        "not safetensors": b"x" * 99,
    }
    file.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(decoded_once(file, {}, decode), PIXELS)
    assert decode.calls == 2
    assert "decoding again" in caplog.text
    assert np.array_equal(decoded_once(file, {}, decode), PIXELS)
    assert decode.calls == 2


def test_a_write_that_fails_keeps_the_old_file_and_costs_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "x.safetensors"
    decoded_once(file, {"a": "1"}, Counted())
    before = file.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(cache, "save_file", full)
    assert np.array_equal(decoded_once(file, {"a": "2"}, Counted()), PIXELS)
    assert "no space left" in caplog.text
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == [file.name]


def test_a_folder_that_cannot_be_made_costs_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "flat").write_text("a file where a folder should be")
    assert np.array_equal(decoded_once(tmp_path / "flat" / "x", {}, Counted()), PIXELS)


def test_pictures_that_need_work_are_kept_and_never_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(5, resolution=16)
    folder = write_folder(tmp_path / "pictures", edm_files(images, None))
    calls = []
    real = cache.decode_all
    monkeypatch.setattr(cache, "decode_all", lambda *args: (calls.append(args), real(*args))[1])

    def load(resolution: int = 8) -> np.ndarray:
        pictures = FolderOfPictures(folder)
        return decode_or_reuse(pictures, pictures.names, 3, resolution, Resized(), tmp_path, "toy-train")

    first = load()
    assert np.array_equal(load(), first)
    assert len(calls) == 1
    load(resolution=4)
    assert len(calls) == 2
    assert len(list((tmp_path / FOLDER).iterdir())) == 2
    assert np.array_equal(load(), first)  # the other resolution did not push it out
    assert len(calls) == 2
    changed = folder / "00000/img00000002.png"
    changed.write_bytes(encode(255 - images[2]))
    assert not np.array_equal(load(), first)
    assert len(calls) == 3


def test_small_pictures_taken_as_they_are_leave_nothing_behind(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures", edm_files(random_images(5), None))
    pictures = FolderOfPictures(folder)
    decode_or_reuse(pictures, pictures.names, 3, 8, Exact(), tmp_path, "toy-train")
    assert not (tmp_path / FOLDER).exists()
