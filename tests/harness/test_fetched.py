"""Checkpoints by address: fetched once, only with their sum, and never another file's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from genbench.errors import UserError
from genbench.harness.checkpoint import Checkpoint
from genbench.harness.fetched import local

CONTENTS = b"tensors"
DIGEST = hashlib.sha256(CONTENTS).hexdigest()
SEAL = Checkpoint(Path("step-00000003.safetensors"), 3, DIGEST).to_json()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder with both files of a checkpoint, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "step-00000003.safetensors").write_bytes(CONTENTS)
    (folder / "step-00000003.json").write_text(SEAL)
    return folder


def address(folder, digest=DIGEST):
    return f"{folder.as_uri()}/step-00000003.safetensors@sha256:{digest}"


def test_an_address_is_fetched_once_with_its_seal(published):
    path = local(address(published))
    assert path.read_bytes() == CONTENTS
    assert path.with_suffix(".json").is_file()
    for file in published.iterdir():
        file.unlink()
    assert local(address(published)) == path


def test_another_file_is_refused_and_not_kept(published, tmp_path):
    with pytest.raises(UserError, match="could not be fetched"):
        local(address(published, "0" * 64))
    assert not list(tmp_path.glob("cache/**/*.safetensors"))


@pytest.mark.parametrize("ending", ["", "@sha256:", "@sha256:12", f"@sha256:{'G' * 64}"])
def test_an_address_needs_its_sum(published, ending):
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        local(f"{published.as_uri()}/step-00000003.safetensors{ending}")


def test_a_cached_file_that_was_changed_is_refused(published):
    path = local(address(published))
    path.write_bytes(b"others")
    with pytest.raises(UserError, match="another file"):
        local(address(published))


def test_a_path_may_have_a_sum(published):
    path = published / "step-00000003.safetensors"
    assert local(str(path)) == path
    assert local(f"{path}@sha256:{DIGEST}") == path
    with pytest.raises(UserError, match="another file"):
        local(f"{path}@sha256:{'0' * 64}")


def test_an_address_of_another_kind_is_refused(published):
    with pytest.raises(UserError, match=r"step-….safetensors"):
        local(f"{published.as_uri()}/model.bin@sha256:{DIGEST}")


def test_a_seal_that_is_none_is_not_kept(published):
    seal = published / "step-00000003.json"
    seal.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="could not be fetched"):
        local(address(published))
    seal.write_text(SEAL)
    assert local(address(published)).is_file()
