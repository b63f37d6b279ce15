"""`python -m genbench.leaderboard`: the commands in order, their exit statuses, and what they print."""

from __future__ import annotations

from pathlib import Path

from genbench.leaderboard.__main__ import main
from genbench.leaderboard.record import schema


def test_submit_build_check_and_a_tampered_digit(make_runs, tmp_path, capsys) -> None:
    root = tmp_path / "board"
    runs = [str(run) for run in make_runs()]
    assert main(["submit", *runs, "--name", "Ada", "--division", "open", "--to", str(root)]) == 0
    assert f"Next: python -m genbench.leaderboard build --to {root}" in capsys.readouterr().out
    assert main(["check", str(root)]) == 1
    assert "README.md: out of date" in capsys.readouterr().out
    assert main(["build", "--to", str(root)]) == 0
    capsys.readouterr()
    assert main(["check", str(root)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["ok"] * 6

    (result,) = root.glob("submissions/*/*/results/seed1.json")
    result.write_text(result.read_text().replace("1.2\n", "1.0\n"))
    assert main(["check", str(root)]) == 1
    assert "results/seed1.json: its contents changed" in capsys.readouterr().out


def test_a_refusal_is_one_error_and_status_one(make_run, tmp_path, capsys) -> None:
    assert main(["submit", str(make_run(0)), "--division", "closed", "--to", str(tmp_path / "board")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: These runs do not qualify for the closed division:")
    assert captured.out == ""
    assert not (tmp_path / "board").exists()


def test_schema_prints_what_is_committed(capsys) -> None:
    committed = Path(__file__).parents[2] / "leaderboard"
    for what in ("result", "submission", "verified"):
        assert main(["schema", what]) == 0
        assert capsys.readouterr().out == (committed / f"{what}.schema.json").read_text()
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == schema()
