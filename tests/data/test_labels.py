"""dataset.json: read in both kinds of collection; whatever does not fit the pictures is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from genbench.contracts import UserError
from genbench.data.labels import labels_of, read_labels
from genbench.data.pictures import open_pictures

Write = Callable[[Mapping[str, bytes]], Path]
NAMES = ["a.png", "b/c.png", "d.png"]


def labelled(write: Write, content: bytes | object) -> dict[str, int] | None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_labels(open_pictures(write(dict.fromkeys(NAMES, b"") | {"dataset.json": data})), classes=3)


def test_labels_are_found_by_name(write: Write) -> None:
    labels = labelled(write, {"labels": [["d.png", 2], ["a.png", 0], ["b\\c.png", 1]]})
    assert labels_of(["b/c.png", "d.png", "a.png"], labels).tolist() == [1, 2, 0]


def test_null_or_no_file_means_unlabelled(write: Write) -> None:
    assert labelled(write, {"labels": None}) is None


def test_no_file_means_unlabelled(write: Write) -> None:
    assert read_labels(open_pictures(write({"a.png": b""})), classes=3) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([1], "not JSON with a key"),
        ({"label": []}, "not JSON with a key"),
        ({"labels": {"a.png": 1}}, "list of"),
        ({"labels": [["a.png", 1.5], ["b/c.png", 1], ["d.png", 1]]}, "list of"),
        ({"labels": [["a.png", True], ["b/c.png", 1], ["d.png", 1]]}, "list of"),
        ({"labels": [["a.png", [0, 1]], ["b/c.png", 1], ["d.png", 1]]}, "list of"),
        ({"labels": [["a.png", 1], ["b/c.png", 1], ["e.png", 1]]}, r"labels e\.png, which is not there"),
        ({"labels": [["a.png", 1], ["b/c.png", 1]]}, r"2 labels for 3 pictures; d\.png has none"),
        ({"labels": [["a.png", 1], ["b/c.png", 1], ["d.png", 1], ["a.png", 1]]}, "twice: 4 labels for 3"),
        ({"labels": [["a.png", 1], ["b/c.png", 3], ["d.png", 1]]}, r"b/c\.png the label 3; expected 0 to 2"),
        ({"labels": [["a.png", 1], ["b/c.png", -1], ["d.png", 1]]}, r"b/c\.png the label -1"),
    ],
)
def test_what_does_not_fit_is_refused(write: Write, content: object, says: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.json in .*collection.*{says}"):
        labelled(write, content)
