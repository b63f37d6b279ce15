"""Folders and zips: the same noun, in memory, with nothing taken on trust."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from picture_files import write_folder, write_zip

from genbench.contracts import UserError
from genbench.data import pictures
from genbench.data.pictures import FolderOfPictures, ZipOfPictures, open_pictures

Write = Callable[[Mapping[str, bytes]], Path]


def test_names_are_sorted_relative_and_only_those_of_pictures(write: Write) -> None:
    files = [
        "b/c.JPG",
        "a.png",
        "b/a.webp",
        "z.jpeg",
        "dataset.json",
        "notes.txt",
        "b/._a.png",
        "__MACOSX/a.png",
    ]
    found = open_pictures(write({name: name.encode() for name in files}))
    assert found.names == ["a.png", "b/a.webp", "b/c.JPG", "z.jpeg"]
    assert [found.read(name) for name in found.names] == [name.encode() for name in found.names]
    assert found.has("dataset.json")
    assert not found.has("c.png")
    with pytest.raises(UserError, match=r"c\.png"):
        found.read("c.png")


def test_nothing_there_is_said() -> None:
    with pytest.raises(UserError, match=r"nothing at /nowhere/a\.zip"):
        open_pictures(Path("/nowhere/a.zip"))


@pytest.mark.parametrize("damage", ["not a zip", "truncated", "empty"])
def test_a_broken_zip_is_named_at_once(tmp_path: Path, damage: str) -> None:
    file = write_zip(tmp_path / "a.zip", {f"{i}.png": bytes(1000) for i in range(20)})
    data = file.read_bytes()
    file.write_bytes({"not a zip": b"hello" * 99, "truncated": data[:-30], "empty": b""}[damage])
    with pytest.raises(UserError, match=r"a\.zip is not a readable zip"):
        ZipOfPictures(file)


def test_a_zip_whose_bytes_changed_fails_at_the_entry(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"a.png": b"A" * 1000, "b.png": b"B" * 1000})
    file.write_bytes(file.read_bytes().replace(b"B" * 1000, b"B" * 999 + b"C"))
    found = ZipOfPictures(file)
    assert found.read("a.png") == b"A" * 1000
    with pytest.raises(UserError, match=r"b\.png in .*a\.zip is damaged"):
        found.read("b.png")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"a.png": b"A" * 10})
    data = bytearray(file.read_bytes())
    data[6] |= 1  # the flag in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png in .*a\.zip is encrypted"):
        ZipOfPictures(file).read("a.png")


def test_an_entry_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10_001))
    monkeypatch.setattr(pictures, "ENTRY_BYTES", 10_001)
    assert len(ZipOfPictures(file).read("a.png")) == 10_001
    monkeypatch.setattr(pictures, "ENTRY_BYTES", 10_000)
    with pytest.raises(UserError, match=r"a\.png in .* unpacks to 10,001 bytes"):
        ZipOfPictures(file).read("a.png")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "a", {"a.png": bytes(101)})
    monkeypatch.setattr(pictures, "ENTRY_BYTES", 100)
    with pytest.raises(UserError, match=r"a\.png holds more than 100 bytes"):
        FolderOfPictures(folder).read("a.png")


def test_a_name_that_climbs_out_of_a_zip_writes_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    file = write_zip(inner / "a.zip", {"../evil.png": b"x", "/abs.png": b"y"})
    before = sorted(tmp_path.rglob("*"))
    found = ZipOfPictures(file)
    assert [found.read(name) for name in found.names] == [b"x", b"y"]
    assert sorted(tmp_path.rglob("*")) == before


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.png", b"1")
            archive.writestr("a.png", b"2")
    with pytest.raises(UserError, match=r"a\.zip holds several entries of one name"):
        ZipOfPictures(tmp_path / "a.zip")


def test_the_fingerprint_changes_with_every_change(write: Write) -> None:
    path = write({"a.png": b"A", "b.png": b"B"})
    first = open_pictures(path).fingerprint()
    assert open_pictures(path).fingerprint() == first
    seen = {first}
    os.utime(path if path.is_file() else path / "a.png", ns=(5, 5))
    seen.add(open_pictures(path).fingerprint())
    if path.is_dir():
        (path / "a.png").rename(path / "c.png")
        seen.add(open_pictures(path).fingerprint())
        (path / "d.png").write_bytes(b"D")
        seen.add(open_pictures(path).fingerprint())
        assert len(seen) == 4
    else:
        # Same size, same date: the checksums in the directory tell.
        write_zip(path, {"a.png": b"A", "b.png": b"C"})
        os.utime(path, ns=(5, 5))
        seen.add(open_pictures(path).fingerprint())
        assert len(seen) == 3
