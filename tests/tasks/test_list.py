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
    with pytest.raises(UserError, match="modle; the groups are"):
        task.run({"groups": ["modle"]}, Typed([], [], None))
