"""`submit wandb:...` with a stand-in for W&B's client: what a folder gives, and plain files only."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genbench.errors import UserError
from genbench.leaderboard.__main__ import main
from genbench.leaderboard.from_wandb import fetch

ADDRESS = "wandb:lab/genbench/a1b2c3d4"


class Entry:
    """One file of an artifact; `size` and `ref` may lie."""

    def __init__(self, source: Path, name: str, **lies: Any) -> None:
        self.source, self.name = source, name
        self.ref, self.size = lies.get("ref"), lies.get("size", source.stat().st_size)
        self.downloaded = False

    def download(self, root: str, skip_cache: bool) -> str:
        assert skip_cache, "W&B's cache is nobody's business here"
        self.downloaded = True
        Path(root).mkdir(parents=True)
        return str(shutil.copy(self.source, Path(root) / self.name, follow_symlinks=False))


class Artifact:
    def __init__(self, kind: str, entries: dict[str, Entry], aliases: tuple[str, ...] = ("latest",)) -> None:
        self.type, self.entries, self.aliases = kind, entries, list(aliases)

    def get_entry(self, name: str) -> Entry:
        return self.entries[name]


def artifacts_of(run: Path) -> dict[str, Artifact]:
    result = {
        "result.json": Entry(run / "result.json", "result.json"),
        "grid.png": Entry(run / "samples" / "grid.png", "grid.png"),
    }
    return {
        "result": Artifact("result", result),
        "samples": Artifact(
            "samples", {"samples.npz": Entry(run / "samples" / "samples.npz", "samples.npz")}
        ),
    }


@pytest.fixture
def w_and_b(monkeypatch) -> dict[str, list[Artifact]]:
    """Stands for the module wandb, which answers for the runs that tests put into this."""
    runs: dict[str, list[Artifact]] = {}

    class Api:
        def __init__(self, timeout: int) -> None:
            assert timeout <= 60

        def run(self, path: str) -> Any:
            if path not in runs:
                raise ValueError(f"Could not find run <Run {path}>\n\x1b[31m(not found)")
            return types.SimpleNamespace(logged_artifacts=lambda: runs[path])

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Api=Api))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def test_a_run_at_w_and_b_is_submitted_as_its_folder_is(w_and_b, make_runs, tmp_path) -> None:
    folders = make_runs()
    options = ["--name", "Ada", "--division", "open"]
    assert main(["submit", *map(str, folders), *options, "--to", str(tmp_path / "one")]) == 0
    addresses = []
    for number, folder in enumerate(folders):
        older = Artifact("result", {}, aliases=("v0",))
        w_and_b[f"lab/genbench/run{number}"] = [older, *artifacts_of(folder).values(), older]
        addresses.append(f"wandb:lab/genbench/run{number}")
    # folders and addresses may stand beside each other
    assert main(["submit", str(folders[0]), *addresses[1:], *options, "--to", str(tmp_path / "two")]) == 0
    one, two = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) == 3 * 2 + 4


def entry(artifacts: dict[str, Artifact], kind: str, name: str) -> Entry:
    return artifacts[kind].entries[name]


def link(artifacts: dict[str, Artifact]) -> None:
    file = entry(artifacts, "result", "result.json")
    place = file.source.with_name("link.json")
    place.symlink_to("/etc/passwd")
    file.source = place


def swollen(artifacts: dict[str, Artifact]) -> None:
    file = entry(artifacts, "result", "grid.png")
    with file.source.open("ab") as opened:
        opened.truncate((8 << 20) + 1)


HOSTILE: dict[str, tuple[Callable[[dict[str, Artifact]], Any], str]] = {
    "a reference to a file here": (
        lambda a: setattr(entry(a, "result", "result.json"), "ref", "file:///etc/passwd"),
        "result.json is a reference to another place",
    ),
    "a huge file": (
        lambda a: setattr(entry(a, "samples", "samples.npz"), "size", 1 << 40),
        "samples.npz has 1099511627776 bytes; at most 1,073,741,824",
    ),
    "no size": (lambda a: setattr(entry(a, "result", "grid.png"), "size", None), "grid.png has None bytes"),
    "a huge file that says it is small": (swollen, "grid.png is not the file of"),
    "a link": (link, "result.json is not the file of"),
    "no result": (lambda a: a.pop("result"), "no artifact of the type 'result'"),
    "no samples": (lambda a: a.pop("samples"), "'samples'; train with logger.samples=true, or submit"),
    "a result without a grid": (
        lambda a: a["result"].entries.pop("grid.png"),
        "(grid.png) could not be fetched",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_plain_file_is_refused_in_one_line(case: str, w_and_b, make_run, tmp_path) -> None:
    change, said = HOSTILE[case]
    artifacts = artifacts_of(make_run(0))
    change(artifacts)
    w_and_b["lab/genbench/a1b2c3d4"] = list(artifacts.values())
    with pytest.raises(UserError) as caught:
        fetch(ADDRESS, tmp_path / "fetched")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    for artifact in artifacts.values():
        for each in artifact.entries.values():
            if each.ref is not None or not isinstance(each.size, int) or each.size > 1 << 30:
                assert not each.downloaded


@pytest.mark.parametrize(
    "address",
    [
        "wandb:",
        "wandb:lab",
        "wandb:lab/genbench",
        "wandb:lab/genbench/a/b",
        "wandb:lab/gen bench/a",
        "wandb:lab/genbench/a\x1b[2J",
        "wandb:https://evil.example/a",
    ],
)
def test_other_addresses_are_refused_before_anyone_is_asked(address: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="expected wandb:ENTITY/PROJECT/RUN") as caught:
        fetch(address, tmp_path / "fetched")
    assert str(caught.value).isprintable()


def test_what_w_and_b_says_is_one_line(w_and_b, tmp_path) -> None:
    with pytest.raises(UserError, match="could not be fetched from W&B \\(Could not find run") as caught:
        fetch(ADDRESS, tmp_path / "fetched")
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("Submit the run's folder instead.")


def test_offline_says_so_and_what_to_type(w_and_b, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["submit", ADDRESS, "--to", str(tmp_path / "board")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {ADDRESS} is at W&B, which is offline here (WANDB_MODE=offline). "
        "Type wandb login, or submit the run's folder."
    )
    assert not (tmp_path / "board").exists()


def test_a_record_from_there_is_read_as_strictly_as_any(w_and_b, make_run, tmp_path, capsys) -> None:
    run = make_run(0)
    (run / "result.json").write_text('{"schema_version": 1, "schema_version": 1}')
    w_and_b["lab/genbench/a1b2c3d4"] = list(artifacts_of(run).values())
    assert main(["submit", ADDRESS, "--to", str(tmp_path / "board")]) == 1
    assert "the key 'schema_version' stands twice" in capsys.readouterr().err
    assert not (tmp_path / "board").exists()
