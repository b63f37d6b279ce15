"""genbench list: every choice has a line that says what it is."""

from __future__ import annotations

import pytest

from genbench.cli import Typed
from genbench.configuration import conf_dir
from genbench.errors import UserError
from genbench.help import HIDDEN, choices, described
from genbench.tasks import list as task


@pytest.mark.parametrize("group", sorted(set(choices(conf_dir())) - {"recipe"}))
def test_every_choice_says_what_it_is(group):
    silent = [name for name, line in described(conf_dir(), group).items() if len(line) < 10]
    assert not silent


def test_all_groups_or_those_named_are_listed(capsys):
    task.run({"groups": ["model", "dataset"]}, Typed([], [], None))
    out = capsys.readouterr().out
    assert "  ddpm                       DDPM (Ho, Jain & Abbeel 2020)" in out
    assert "non-commercial research only" in out  # of CelebA's licence
    assert "sampler=" not in out
    task.run({"groups": []}, Typed([], [], None))
    out = capsys.readouterr().out
    assert all(f"{name}=\n" in out for name in set(choices(conf_dir())) - set(HIDDEN))
    with pytest.raises(UserError, match=r"modle: there is no such group.* Did you mean model\?"):
        task.run({"groups": ["modle"]}, Typed([], [], None))


def test_what_a_search_path_adds_is_listed_too(tmp_path, capsys):
    """Beside folders of code; where a name is genbench's already, that is what Hydra takes."""
    for folder in ("corruption", "__pycache__"):
        (tmp_path / folder).mkdir()
    (tmp_path / "corruption" / "static.yaml").write_text("# Television between channels. More of it.\n")
    (tmp_path / "corruption" / "vp.yaml").write_text("# Hidden by genbench's own.\n")
    for groups in (["corruption"], []):
        task.run({"groups": groups}, Typed([f"hydra.searchpath=[file://{tmp_path}]"], [], None))
        out = capsys.readouterr().out.splitlines()
        assert any(line.split() == ["static", "Television", "between", "channels."] for line in out)
        assert any(line.startswith("  vp ") and "Hidden" not in line for line in out)
