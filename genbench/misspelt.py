"""What to say of a command line that cannot be composed: what was typed, the nearest names, where all are.

Hydra's own answers are about its configuration files, which who types a command need not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genbench import searchpath
from genbench.configuration import resolve
from genbench.errors import UserError
from genbench.help import choices
from genbench.words import key_of

REFUSALS = (HydraException, OmegaConfBaseException)
"""What Hydra raises where it cannot compose what was typed."""

SHOWN = 4
"""Near names that are shown at most."""

ALIKE, VERY_ALIKE = 0.6, 0.75
"""Difflib's ratio, from 0 to 1, from which on two words are alike."""

LESS_ALIKE = 0.15
"""How much less alike than the nearest name others may be that are shown."""

REFUSED = re.compile(r"Could not override '([^']+)'")
"""How Hydra begins where a key or a group is not there to be set."""

SEVERAL = re.compile(r"Ambiguous value for argument '(.+)'")
"""How it begins where a sweep was typed without -m."""


def explained(error: Exception, typed: Sequence[str], folder: Path, tasks: Collection[str] = ()) -> UserError:
    """The answer to the overrides `typed` that Hydra refused with `error`.

    folder: that of the configuration's groups; tasks: words that may stand in front of overrides.
    """
    said = str(error).strip() or type(error).__name__
    if isinstance(error, OverrideParseException):
        return UserError(_unread(error.override, folder, tasks))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return UserError(_no_choice(error, typed, choices(folder)))
    if found := REFUSED.match(said):
        return UserError(_no_setting(found[1], typed, folder))
    if found := SEVERAL.match(said):
        return UserError(
            f"{found[1]} are several values: type -m in front for a run of each, [...] for a list."
        )
    if added := [word for word in typed if word.startswith("+") and key_of(word) in choices(folder)]:
        return UserError(f"{added[0]}: a run has its {key_of(added[0])} already; type it without +.")
    return UserError(f"{' '.join(typed)}: {said.splitlines()[0]}")


def refuse_dashes(arguments: Sequence[str], folder: Path) -> None:
    """Raises UserError for settings typed as options, `--model ddpm`, which Hydra answers with its own."""
    for argument in arguments:
        name, _, value = argument.removeprefix("--").replace("-", "_").partition("=")
        if argument.startswith("--") and name.split(".")[0] in _names(folder):
            raise UserError(f"{argument}: settings have no dashes; type {name}={value or 'VALUE'}.")


def near(word: str, names: Collection[str]) -> list[str]:
    """Those of `names` that may have been meant, likeliest first.

    They have the last part of `word`; else one like it, beside `word` (as trainer.steps is beside
    trainer.stesp); else, if very much like it, anywhere.
    """
    before, last = _parted(word)
    alike = {name: _likeness(_parted(name)[1], last) for name in names}
    beside = [name for name in names if _parted(name)[0] == before]
    for among, least in ((names, 1.0), (beside, ALIKE), (names, VERY_ALIKE)):
        best = max((alike[name] for name in among), default=0.0)
        if best >= least:
            found = [name for name in among if alike[name] >= max(least, best - LESS_ALIKE)]
            return sorted(found, key=lambda name: -_likeness(name, word))[:SHOWN]
    return []


def _parted(name: str) -> tuple[str, str]:
    """What stands before the last part of a dotted setting or a named recipe, and that part."""
    before, _, last = name.replace("/", ".").rpartition(".")
    return before, last


def _likeness(a: str, b: str) -> float:
    """From 0, nothing in common, to 1, the same."""
    return SequenceMatcher(None, a, b).ratio()


def _names(folder: Path) -> set[str]:
    """What may be typed without a dot."""
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return {*choices(folder), *settings} - {"defaults"}


def _no_choice(
    error: MissingConfigException, typed: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> str:
    group, _, name = str(error.missing_cfg_file).partition("/")
    known = sorted({*groups.get(group, ()), *(error.options or ())})
    if group in map(key_of, typed):
        line = f"there is no {group}={name}."
    else:
        line = f"{str(error).splitlines()[0].rstrip('.')}, and {group}= was not typed."
    elsewhere, question = _choosing(name, groups), meant(name, known)
    if elsewhere:
        line += f" {' and '.join(elsewhere)} can be typed."
    line += f"{question} All: genbench list {group}"
    if elsewhere or question or searchpath.KEY in map(key_of, typed):
        return line
    return f"{line}; one of your own needs '{searchpath.KEY}=[{searchpath.SCHEME}DIR]' too"


def _no_setting(key: str, typed: Sequence[str], folder: Path) -> str:
    groups = choices(folder)
    word = next((each for each in typed if each.partition("=")[0].lstrip("+") == key), key)
    name, at, _ = key.partition("@")
    if at and name in groups:
        return f"{word}: type {name}={word.partition('=')[2]}, without what stands from @ on."
    settings = _settings(typed, groups, folder)
    top = name.split(".")[0]
    if top in groups and top not in settings:
        line = f"{word}: nothing in this run takes a {top}."
        if takers := list(_takers(top, folder)):
            line += f" What does: {', '.join(takers)}."
        return line + meant(name, [each for each in settings if each.endswith(f".{name}")])
    known = {*settings, *groups} if "." not in name else settings
    return f"{word}: there is no setting {name}.{meant(name, known)} All of this run: add --cfg job"


def _unread(word: str, folder: Path, tasks: Collection[str]) -> str:
    name, is_set, value = word.partition("=")
    if is_set:
        return f"{word} cannot be read as NAME=VALUE; signs need quotes: \"{name}='{value}'\""
    names = _names(folder)
    if chosen := _choosing(word, choices(folder)) or ([f"{word}=VALUE"] if word in names else []):
        return f"{word}: type {' or '.join(chosen)}."
    if (Path(word) / "config.yaml").is_file():
        return f"{word}: type evaluate {word}, sample {word}, or run_dir={word} to go on with that run."
    return f"{word}: type NAME=VALUE.{meant(word, [*names, *tasks])} All: genbench --help"


def _choosing(name: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Every override that chooses `name`."""
    return [f"{group}={name}" for group, names in groups.items() if name in names]


def meant(word: str, names: Collection[str]) -> str:
    """A question after those of `names` that `word` may stand for, with a space in front; or nothing."""
    found = near(word, names)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _settings(typed: Sequence[str], groups: Collection[str], folder: Path) -> list[str]:
    """Dotted keys of values, and sections, of the run that what was typed chooses, whatever it sets besides;
    those of the default run where it cannot be composed either."""
    chosen = [each for each in typed if key_of(each) in {*groups, searchpath.KEY} and "@" not in each]
    for overrides in (chosen, []):
        try:
            with initialize_config_dir(str(folder), version_base="1.3"):
                cfg = compose("config", overrides)
        except REFUSALS:
            continue
        try:
            return list(_dotted(resolve(cfg)))
        except UserError:  # a value that must be typed is missing
            return list(_dotted(OmegaConf.to_container(cfg, resolve=False)))
    return []


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if not isinstance(value, Mapping) or not prefix:
            yield f"{prefix}{key}"
        yield from _dotted(value, f"{prefix}{key}.")


def _takers(part: str, folder: Path) -> Iterator[str]:
    """The choices, "sampler=restore", that are made of a part such as `rule`."""
    for group, names in choices(folder).items():
        for name in names:
            if part in _parts(folder / group, name):
                yield f"{group}={name}"


def _parts(group: Path, name: str) -> set[str]:
    file = group / f"{name}.yaml"
    written = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    found = set()
    for entry in (written or {}).get("defaults", ()):
        key, value = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, None)
        if value is None and key != "_self_":
            found |= _parts(group, key)
        elif part := re.match(r"/(\w+)@", key):
            found.add(part[1])
    return found
