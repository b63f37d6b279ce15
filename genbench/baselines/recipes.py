"""Which experiment a record is of: the one whose settings it has, whatever was typed to get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra

from genbench import cli
from genbench.configuration import AS_BEFORE, conf_dir, differences
from genbench.help import choices
from genbench.precisions import settled_as


@contextmanager
def composing() -> Iterator[None]:
    """Within, configurations can be composed."""
    cli.register_resolvers()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def departures(recorded: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """What of a recorded configuration is otherwise in what these overrides mean today, "key: was -> is".

    Settings that the record does not know came later, and by default do what was done before, but for those
    of `AS_BEFORE`, which are absent exactly where they say so. A precision that is left to the device is
    whatever the record's device took.
    """
    now = settled_as(cli.composed(overrides), recorded)
    lines = differences(recorded, now)
    return [line for line in lines if ": (absent) -> " not in line or line.partition(":")[0] in AS_BEFORE]


def experiment(recorded: Mapping[str, Any]) -> str | None:
    """`dataset/name` of the experiment with all the settings recorded; None where there is none."""
    start = f"{recorded['dataset']['name']}/{recorded['model']['name']}"
    names = [name for name in choices(conf_dir())["experiment"] if name.startswith(start)]
    seed = f"seed={recorded['seed']}"
    return next((name for name in names if not departures(recorded, [f"experiment={name}", seed])), None)
