"""Class labels of a folder or zip of pictures: the `dataset.json` of EDM's layout.

    {"labels": [["00000/img00000000.png", 6], ["00000/img00000001.png", 9], ...]}

or `{"labels": null}`. Names are relative to the root of the folder or zip. Every picture needs exactly one
label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from genbench.contracts import UserError
from genbench.data.pictures import Pictures

FILE = "dataset.json"


def read_labels(pictures: Pictures, classes: int) -> dict[str, int] | None:
    """The label of every picture by its name, or None where there is no label file or it says null.

    Raises UserError, naming the file, where it is not of the form above, labels a picture that is not there
    or one twice, leaves one out, or has a label outside [0, classes).
    """
    if not pictures.has(FILE):
        return None
    where = f"{FILE} in {pictures.path}"
    try:
        pairs = json.loads(pictures.read(FILE))["labels"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{where} is not JSON with a key "labels" ({error!r}).') from error
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        raise UserError(f'{where}: "labels" must be null or a list of [file name, integer] pairs.')
    labels = {name.replace("\\", "/"): label for name, label in pairs}
    _check_names(labels, len(pairs), pictures, where)
    for name, label in labels.items():
        if not 0 <= label < classes:
            raise UserError(f"{where} gives {name} the label {label}; expected 0 to {classes - 1}.")
    return labels


def labels_of(names: Sequence[str], labels: dict[str, int]) -> np.ndarray:
    """int64 [N]: the labels of `names`, in their order."""
    return np.array([labels[name] for name in names], dtype=np.int64)


def _is_pair(pair: object) -> bool:
    """Whether a JSON value is [name, integer] (JSON's true is an int to Python, and not one to us)."""
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int


def _check_names(labels: dict[str, int], pairs: int, pictures: Pictures, where: str) -> None:
    """Raises UserError unless labels and pictures are one to one."""
    if len(labels) != pairs:
        raise UserError(f"{where} labels some picture twice: {pairs} labels for {len(labels)} names.")
    names = set(pictures.names)
    missing = sorted(labels.keys() - names)
    if missing:
        raise UserError(f"{where} labels {missing[0]}, which is not there ({len(missing)} missing).")
    unlabelled = sorted(names - labels.keys())
    if unlabelled:
        raise UserError(
            f"{where} has {len(labels)} labels for {len(names)} pictures; {unlabelled[0]} has none."
        )
