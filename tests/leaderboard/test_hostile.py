"""A corpus of hostile directories and archives: each refused in a clear line; nothing written, none run."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from fakes import fill

from genbench.data.arrays import load_images
from genbench.errors import UserError
from genbench.leaderboard.__main__ import main
from genbench.leaderboard.checking import MOST_PROBLEMS, check
from genbench.leaderboard.evidence import to_bytes
from genbench.leaderboard.inventory import MOST_ENTRIES
from genbench.leaderboard.page import build
from genbench.leaderboard.submitting import sums
from genbench.leaderboard.untrusted import RECORD_LIMIT, read_json, read_yaml

MEMORY = 400 << 20
"""Bytes by which a refusal may raise the peak: decoded pictures of 2^26 pixels fit, bombs do not."""


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry beneath a folder: its kind, size and time of change."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            facts = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (facts.st_mode, facts.st_size, facts.st_mtime_ns)
    return found


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch) -> Callable[[Callable[[], Any]], Any]:
    """Runs something and asserts that it changed no file under tmp_path, ran nothing, and cost little."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("os.system was called"))

    def run(action: Callable[[], Any]) -> Any:
        before, began = snapshot(tmp_path), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            return action()
        finally:
            assert snapshot(tmp_path) == before
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY >> 10
            assert time.process_time() - began < 20, "a refusal takes no time to speak of"

    return run


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """One submission, closed and in order."""
    fill(tmp_path / "board", 1, images=False)
    (directory,) = (tmp_path / "board" / "submissions").glob("*/*")
    return directory


def one_line(message: str) -> None:
    assert message.isprintable(), repr(message)
    assert len(message) < 2500


ARCHIVES = sorted(hostile.archives(Path("unused")))
PICTURES = sorted(hostile.pictures(Path("unused")))


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_arrays(guarded, tmp_path, name: str) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "samples.npz"
    path.write_bytes(hostile.archives(mark)[name])
    with pytest.raises(UserError) as caught:
        guarded(lambda: load_images(path, 1, 8, tmp_path))
    one_line(str(caught.value))
    assert str(path) in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", PICTURES)
def test_hostile_pictures(guarded, tmp_path, name: str) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "images.zip"
    path.write_bytes(hostile.pictures(mark)[name])
    with pytest.raises(UserError) as caught:
        guarded(lambda: load_images(path, 1, 8, tmp_path))
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_pipe_among_pictures_is_not_waited_for(guarded, tmp_path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    os.mkfifo(folder / "a.png")
    with pytest.raises(UserError, match="no regular file"):
        guarded(lambda: load_images(folder, 1, 8, tmp_path))


def plant(directory: Path, kind: str) -> None:
    """Makes a submission hostile in one way."""
    result, grid = directory / "results" / "seed0.json", directory / "samples.png"
    secret = directory.parents[3] / "secret"
    secret.write_text("{}")
    match kind:
        case "a pipe for a record":
            result.unlink()
            os.mkfifo(result)
        case "a link to a secret":
            result.unlink()
            result.symlink_to(secret)
        case "a link to a device":
            grid.unlink()
            grid.symlink_to("/dev/zero")
        case "a link for a directory":
            (directory / "evidence").rename(directory.parents[3] / "elsewhere")
            (directory / "evidence").symlink_to(directory.parents[3] / "elsewhere")
        case "a link to itself":
            grid.unlink()
            grid.symlink_to("samples.png")
        case "a hard link to a secret":
            grid.unlink()
            grid.hardlink_to(secret)
        case "a folder for a file":
            grid.unlink()
            grid.mkdir()
        case "a file for a folder":
            for item in (directory / "evidence").iterdir():
                item.unlink()
            (directory / "evidence").rmdir()
            (directory / "evidence").write_text("")
        case "another case":
            (directory / "Submission.json").write_text("{}")
        case "a device's name":
            (directory / "CON").write_text("")
        case "control codes in a name":
            (directory / "\x1b[2J\n\u202eok").write_text("")
        case "bytes that are no text in a name":
            Path(os.fsdecode(os.fsencode(directory) + b"/\xff\xfe.json")).write_text("")
        case "a hundred thousand names":
            for number in range(MOST_ENTRIES + 1):
                (directory / "results" / f"seed{number + 3}.json").write_text("{}")
        case "code":
            (directory / "conftest.py").write_text("import os; os.system('true')")
        case "a sparse giant":
            with grid.open("ab") as file:
                file.truncate(1 << 40)
        case "climbing sums":
            with (directory / "SHA256SUMS").open("a") as file:
                file.write(f"{'0' * 64}  ../../../../etc/passwd\n{'0' * 64}  /etc/passwd\n")
        case "executable YAML":
            (directory / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch hacked']\n")
        case "unfolding YAML":
            lines = [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9) if n else 'lol'}]" for n in range(30)]
            (directory / "config.yaml").write_text("\n".join(lines))
        case "pickled evidence":
            (directory / "evidence" / "seed0.safetensors").write_bytes(
                hostile.archives(directory / "executed")["a pickle"]
            )
        case "a header of gigabytes":
            (directory / "evidence" / "seed0.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}")
        case "a false picture":
            grid.write_bytes(b"<svg onload='hacked()'/>")
        case "markup for a submitter":
            rewrite(directory, "submitter", "<script>hacked()</script>")
        case "a formula for a submitter":
            rewrite(directory, "submitter", "=HYPERLINK(1)")
        case "reordered text for a submitter":
            rewrite(directory, "submitter", "ada\u202egnp.exe")
        case "an infinite mean":
            path = directory / "submission.json"
            path.write_text(path.read_text().replace('"nfe": ', '"nfe": 1e999, "was": ', 1))
        case "a path for a result":
            path = directory / "submission.json"
            path.write_text(path.read_text().replace("results/seed0.json", "../../../../secret", 1))


KINDS = [
    "a pipe for a record",
    "a link to a secret",
    "a link to a device",
    "a link for a directory",
    "a link to itself",
    "a hard link to a secret",
    "a folder for a file",
    "a file for a folder",
    "another case",
    "a device's name",
    "control codes in a name",
    "bytes that are no text in a name",
    "a hundred thousand names",
    "code",
    "a sparse giant",
    "climbing sums",
    "executable YAML",
    "unfolding YAML",
    "pickled evidence",
    "a header of gigabytes",
    "a false picture",
    "markup for a submitter",
    "a formula for a submitter",
    "reordered text for a submitter",
    "an infinite mean",
    "a path for a result",
]


def rewrite(directory: Path, key: str, value: Any) -> None:
    path = directory / "submission.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def reseal(directory: Path) -> None:
    """Makes the sums of regular files true again, so that only the deed itself is left to be found."""
    files = {
        p.relative_to(directory).as_posix(): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and not p.is_symlink() and p.stat().st_size < 1 << 24 and p.name != "SHA256SUMS"
    }
    (directory / "SHA256SUMS").write_text(sums(files), errors="surrogateescape")


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_submissions(guarded, submission, tmp_path, capsys, kind: str, sealed: bool) -> None:
    assert check(submission) == []
    plant(submission, kind)
    if sealed and kind != "climbing sums":
        reseal(submission)
    problems = guarded(lambda: check(submission))
    assert 0 < len(problems) <= MOST_PROBLEMS + 1, "nobody reads a thousand lines"
    assert any("holds more than" in str(p) for p in problems) == (kind == "a hundred thousand names")
    for problem in problems:
        one_line(str(problem))
    board = submission.parents[2]
    assert guarded(lambda: main(["check", str(board)])) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert (captured.out + captured.err).replace("\n", "").isprintable()
    with contextlib.suppress(UserError):
        assert "hacked()</script>" not in guarded(lambda: build(board))
    assert not (submission / "executed").exists()
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("deep", b"[" * RECORD_LIMIT),
        ("closed deep", b"[" * 400_000 + b"]" * 400_000),
        ("many digits", b"[" + b"9" * 900_000 + b"]"),
        # Quadratic in the number of keys, a million bytes took a minute; two equal ones stand at the end.
        ("many keys", b"{" + b",".join(b'"%d":0' % n for n in range(80_000)) + b',"79999":0}'),
        ("bom", b"\xef\xbb\xbf{}"),
        ("utf-16", '{"a": 1}'.encode("utf-16")),
        ("nul", b'{"a": 1}\0'),
        ("nan", b'{"a": NaN}'),
        ("two", b"{} {}"),
        ("not text", b"\xff\xfe\xfd"),
    ],
)
def test_hostile_json(guarded, tmp_path, name: str, contents: bytes) -> None:
    path = tmp_path / "submission.json"
    path.write_bytes(contents)
    with pytest.raises(UserError) as caught:
        guarded(lambda: read_json(path))
    one_line(str(caught.value))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [lol, lol]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
        "a: !!python/object/new:os.system ['touch hacked']\n",
        "!!python/object/apply:subprocess.check_output [[touch, hacked]]\n",
        "<<: {a: 1}\na: !!python/module:os\n",
        "? [a, [b]]\n: 1\n",
        "a: \x1b[2J\n",
    ],
)
def test_hostile_yaml(guarded, tmp_path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        guarded(lambda: read_yaml(path))
    one_line(str(caught.value))


def test_evidence_has_room_for_nothing_else(submission) -> None:
    """Bytes behind the tensors, a note in the header, blanks behind it: none is what writing gives."""
    path = submission / "evidence" / "seed0.safetensors"
    contents = path.read_bytes()
    length = int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8 : 8 + length])
    noted = json.dumps(header | {"__metadata__": {"note": "<script>"}}).encode()
    for changed in (
        contents + b"\0",
        len(noted).to_bytes(8, "little") + noted + contents[8 + length :],
        (length + 8).to_bytes(8, "little") + contents[8 : 8 + length] + b" " * 8 + contents[8 + length :],
    ):
        path.write_bytes(changed)
        reseal(submission)
        (problem,) = check(submission)
        assert problem.path == path
        one_line(str(problem))


def test_moments_that_are_no_numbers_are_refused(submission) -> None:
    from safetensors.torch import load, save

    path = submission / "evidence" / "seed0.safetensors"
    for value in (float("nan"), float("inf"), 1e300):
        tensors = load(path.read_bytes())
        tensors["digits.covariance"][5] = value
        path.write_bytes(save(tensors))
        reseal(submission)
        (problem,) = check(submission)
        assert "is not finite, or beyond 1e9" in problem.message


def test_evidence_of_other_shapes_is_refused(submission) -> None:
    path = submission / "evidence" / "seed0.safetensors"
    path.write_bytes(to_bytes(np.zeros((64, 8, 8, 1), np.uint8), {}))
    reseal(submission)
    (problem,) = check(submission)
    assert "expected the tensors images, digits.mean, digits.covariance" in problem.message
