"""result.json: what the schema refuses, and that what it accepts survives a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.errors import UserError
from genbench.leaderboard.record import Result, now, schema
from genbench.leaderboard.untrusted import RECORD_LIMIT, read_bytes, read_json, read_yaml, write_atomically


def refusal(path: Path) -> str:
    """The message with which a file is refused: one line that begins with the file's name."""
    with pytest.raises(UserError) as caught:
        Result.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


WRONG = [
    ("schema_version", 2, "schema_version"),
    ("schema_version", "1", "schema_version"),
    ("metrics.0.value", "1.25", "metrics.0.value"),
    ("metrics.0.value", True, "metrics.0.value"),
    ("metrics.0.value", 10**400, "metrics.0.value"),
    ("metrics.0.n_samples", 2000.0, "metrics.0.n_samples"),
    ("metrics.0.better", "up", "metrics.0.better"),
    ("metrics.0.name", "FID\n", "metrics.0.name"),
    ("metrics.0.extractor_sha256", "d" * 63, "metrics.0.extractor_sha256"),
    ("metrics.0.extractor_sha256", "D" * 64, "metrics.0.extractor_sha256"),
    ("metrics.0.std", -0.1, "metrics.0.std"),
    ("dataset.sha256", "a" * 64 + "\n", "dataset.sha256"),
    ("dataset.resolution", 0, "dataset.resolution"),
    ("git.dirty", "no", "git.dirty"),
    ("git.commit", "HEAD", "git.commit"),
    ("model.name", "", "model.name"),
    ("model.name", "a" * 101, "model.name"),
    ("model.name", "a\nb", "model.name"),
    ("model.name", "a\u202eb", "model.name"),
    ("model.name", "a\u200bb", "model.name"),
    ("model.name", "a<b>", "model.name"),
    ("model.name", "=HYPERLINK(1)", "model.name"),
    ("model.name", "@SUM(1)", "model.name"),
    ("training.stopped", "crashed", "training.stopped"),
    ("training.seed", -1, "training.seed"),
    ("sampling.nfe_max", 49, "sampling"),
    ("sampling.seeds", [0, 0], "sampling"),
    ("sampling.conditional", 0, "sampling.conditional"),
    ("weights", "best", "weights"),
    ("created", "yesterday", "created"),
    ("created", "2025-01-31T12:00:00+01:00", "created"),
    ("command", ["a" * 1001], "command.0"),
    ("config.long", "a" * 1001, "config"),
    ("config.big", 2**63, "config"),
    ("config.half", "\ud800", "config"),
    ("extra", 1, "extra"),
    ("metrics.0.extra", 1, "metrics.0.extra"),
    ("versions.torch", 2, "versions.torch"),
    ("metrics.1.name", "fd_digits", "distinct"),
    ("metrics", [], None),
]


@pytest.mark.parametrize(("key", "value", "named"), WRONG)
def test_what_is_wrong_is_refused_and_named(plain, result_file, key, value, named) -> None:
    path = result_file(plain(changes={key: value}))
    if named is None:
        assert Result.read(path)
    else:
        assert named in refusal(path)


def test_a_missing_key_is_refused(plain, result_file) -> None:
    value = plain()
    for key in sorted(value):
        assert key in refusal(result_file({k: v for k, v in value.items() if k != key}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("key", ["value", "label_dropout"])
def test_numbers_must_be_finite_even_in_the_configuration(plain, result_file, number: str, key: str) -> None:
    marked = json.dumps(plain(changes={"metrics.0.value": 77.5, "config.model.label_dropout": 77.5}))
    assert f'"{key}": 77.5' in marked
    assert "finite" in refusal(result_file(marked.replace(f'"{key}": 77.5', f'"{key}": {number}')))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_no_json_file_holds_anything_but_finite_numbers(result_file, number: str) -> None:
    with pytest.raises(UserError, match="not a finite number"):
        read_json(result_file(f"[{number}]"))


def test_duplicate_keys_are_refused(plain, result_file) -> None:
    text = json.dumps(plain())
    twice = text.replace('"value": 1.25', '"value": 9, "value": 1.25')
    assert "'value' stands twice" in refusal(result_file(twice))


NO_RECORDS = ["", "[]", "null", "{", "[" * 100_000, '{"a": ' * 5000, "1" * 5000, "\ud800"]


@pytest.mark.parametrize("text", NO_RECORDS)
def test_what_is_no_record_is_refused(result_file, tmp_path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal(path)


def test_size_links_and_special_files_are_refused(plain, result_file, tmp_path) -> None:
    assert "larger" in refusal(result_file(json.dumps(plain()) + " " * RECORD_LIMIT))
    link = tmp_path / "link.json"
    link.symlink_to(result_file(plain()))
    assert "symbolic link" in refusal(link)
    os.mkfifo(tmp_path / "pipe.json")
    assert "regular file" in refusal(tmp_path / "pipe.json")
    assert "cannot be read" in refusal(tmp_path / "absent.json")
    assert "regular file" in refusal(tmp_path)


def test_a_deep_or_endless_configuration_is_refused(plain, result_file) -> None:
    deep: Any = 0
    for _ in range(25):
        deep = [deep]
    assert "deep" in refusal(result_file(plain(changes={"config.deep": deep})))
    assert "10,000 values" in refusal(result_file(plain(changes={"config.long": [0] * 10_001})))


INCEPTION = {"extractor": "inception", "extractor_sha256": "6726825d" + "0" * 56}
DINOV2 = {"extractor": "dinov2", "extractor_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "fid"}, "Inception's"),
        ({"name": "fid", **INCEPTION}, "must be named fid@2000"),
        ({"name": "fid@1999", **INCEPTION}, "computed from 2000"),
        ({"name": "is", "better": "higher", **INCEPTION}, "must be named is@2000"),
        ({"name": "kid_dinov2", **DINOV2}, "must be named kid_dinov2@2000"),
        ({"name": "cmmd"}, "Clip's"),
        ({"name": "c_t_digits"}, 'expected "neither"'),
        ({"better": "neither"}, 'expected "lower" or "higher"'),
        ({"name": "fd_cifar10"}, "must carry"),
        ({"name": "fd_digits@500"}, "computed from 2000"),
        ({"n_samples": 2001, "name": "fd_digits@2001"}, "2000 were drawn"),
        ({"extractor": None, "name": "fd"}, "both"),
        ({"std": None}, "needs std"),
        ({"std": 0.1, "n_seeds": 1}, "needs std"),
        ({"n_seeds": 3}, "n_seeds 3"),
    ],
)
def test_metric_names_and_counts_cannot_mislead(plain, result_file, changes, said: str) -> None:
    metric = plain()["metrics"][0] | changes
    assert said in refusal(result_file(plain(changes={"metrics": [metric]})))


@pytest.mark.parametrize(
    ("changes", "samples"),
    [
        ({"name": "fid", **INCEPTION}, 50_000),
        ({"name": "fid@10000", **INCEPTION}, 10_000),
        ({"name": "fd_digits@500"}, 500),
        ({"name": "sfid@10000", **INCEPTION}, 10_000),
        ({"name": "authenticity_inception", "better": "neither", **INCEPTION}, 50_000),
        ({"name": "fd_dinov2", **DINOV2}, 50_000),
        ({"name": "cmmd", "extractor": "clip", "extractor_sha256": "0" * 64}, 50_000),
        ({"name": "fd_infinity_digits", "bootstrap_std": 0.1}, 2000),
        ({"name": "c_t_digits@500", "better": "neither", "value": -7.5}, 500),
        (
            {"name": "bits_per_dim", "extractor": None, "extractor_sha256": None, "n_seeds": 1, "std": None},
            360,
        ),
    ],
)
def test_true_metric_names_are_accepted(plain, result_file, changes, samples: int) -> None:
    metric = plain()["metrics"][0] | {"n_samples": samples} | changes
    value = plain(changes={"metrics": [metric], "sampling.n_samples": samples})
    assert Result.read(result_file(value)).metrics[0].name == changes["name"]


def test_fid_of_fifty_thousand_has_one_name(plain, result_file) -> None:
    metric = plain()["metrics"][0] | INCEPTION | {"n_samples": 50_000, "name": "fid@50000"}
    assert "must be named fid" in refusal(
        result_file(plain(changes={"metrics": [metric], "sampling.n_samples": 50_000}))
    )


NUMBERS = st.floats(-1e15, 1e15) | st.integers(-(10**15), 10**15)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e300, 1e300) | st.text(max_size=20)
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="<>"),
    min_size=1,
    max_size=100,
).filter(lambda name: name[0] not in "=+-@")


@settings(max_examples=40, deadline=None)
@given(value=NUMBERS, config=st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4), name=LINES)
def test_a_record_survives_its_file(tmp_path_factory, plain, value, config, name) -> None:
    record = Result.model_validate(
        plain(changes={"metrics.0.value": value, "config": config, "model.name": name})
    )
    path = tmp_path_factory.mktemp("record") / "result.json"
    record.write(path)
    again = Result.read(path)
    assert again == record
    assert again.metrics[0].value == value
    first = path.read_bytes()
    assert list(json.loads(first)["training"]) == sorted(type(again.training).model_fields)
    again.write(path)
    assert path.read_bytes() == first


def test_writing_is_all_or_nothing(tmp_path, monkeypatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def die(*_: object) -> None:
        raise OSError("power cut")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, die)
            with pytest.raises(OSError, match="power cut"):
                write_atomically(path, b"new")
        assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("result.json", b"old")]


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "a: 1\na: 2\n",
        "a: {b: 1, b: 2}\n",
        "a: !!python/object/apply:os.system ['true']\n",
        "a: !!python/name:os.system\n",
        "[" * 5000,
        "a: [",
    ],
)
def test_yaml_makes_plain_values_only(tmp_path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="not an acceptable YAML file") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_exactly_the_limit_is_read(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, 10) == b"x" * 10
    with pytest.raises(UserError, match="larger"):
        read_bytes(path, 9)


def test_schema_says_what_the_reader_enforces() -> None:
    exported = json.loads(schema())
    objects = [exported, *(part for part in exported["$defs"].values() if part.get("type") == "object")]
    assert len(objects) == 8
    assert all(part["additionalProperties"] is False for part in objects if part["title"] != "JsonValue")
    assert exported["properties"]["schema_version"]["const"] == 1
    assert set(exported["required"]) == set(Result.model_fields)


def test_now_is_a_moment_a_record_accepts(plain) -> None:
    assert Result.model_validate(plain(changes={"created": now()}))
