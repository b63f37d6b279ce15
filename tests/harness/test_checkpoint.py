"""Checkpoints: exact, checksummed, and readable whatever interrupted the one being written."""

import itertools
import json
import logging
import math
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genbench.errors import UserError
from genbench.harness import durable, statefile
from genbench.harness.checkpoint import Checkpoints, flatten, unflatten


def same(a, b) -> bool:
    """Equality of type, structure and bits; a NaN equals a NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def bits(tensor: Tensor) -> bytes:
    values = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return values.reshape(-1).view(torch.uint8).numpy().tobytes()


def example(number: int) -> dict:
    """A small state that says which one it is."""
    generator = torch.Generator().manual_seed(number)
    return {
        "step": number,
        "model": {"weight": torch.randn(3, 5, generator=generator), "count": torch.tensor(number)},
        "optimizers": {0: {"lr": 0.1 * number, "betas": (0.9, 0.99)}},
    }


def flipped(path: Path, position: int) -> bytes:
    """Flips the lowest bit of one byte of a file and returns what was there before."""
    before = path.read_bytes()
    path.write_bytes(before[:position] + bytes([before[position] ^ 1]) + before[position + 1 :])
    return before


# ---------------------------------------------------------------------------------------- exact round trips


def tensors() -> st.SearchStrategy[Tensor]:
    """Tensors of every dtype, contiguous or not, from random bits (so NaNs with payloads and -0.0 too)."""

    def make(dtype, shape, seed, view):
        generator = torch.Generator().manual_seed(seed)
        count = math.prod(shape) * dtype.itemsize
        raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count,), generator=generator)
        return view(raw.to(torch.uint8).view(dtype).reshape(shape))

    views = [
        lambda t: t,
        lambda t: t.transpose(0, -1) if t.ndim else t,
        lambda t: t[..., ::2] if t.ndim else t,
        lambda t: t.expand(2, *t.shape),
        lambda t: t.conj() if t.is_complex() else t,
        lambda t: t.requires_grad_() if t.is_floating_point() and t.dtype.itemsize > 1 else t,
    ]
    shapes = st.lists(st.integers(0, 3), max_size=4).map(tuple)
    dtypes = st.sampled_from(list(statefile._DTYPES))
    return st.builds(make, dtypes, shapes, st.integers(0, 2**32), st.sampled_from(views))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = (
    st.text(max_size=5)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.tuples(st.integers(), st.text(max_size=2))
)
states = st.recursive(
    scalars | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(states)
def test_any_state_comes_back_bit_for_bit(state):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        path.write_bytes(b"".join(statefile.serialise(state)))
        assert same(statefile.read(path), without_grad(state))


def without_grad(state):
    """What is expected back: the same values, detached."""
    named, skeleton = flatten(state)
    json.dumps(skeleton, allow_nan=False)  # the skeleton is JSON, strictly
    return unflatten(named, skeleton)


def test_values_that_are_conjugated_or_negated_only_in_name_are_written_as_they_read(tmp_path):
    numbers = torch.tensor([1 + 2j, 3 - 4j]).conj()
    state = {"conjugate": numbers, "negative": numbers.imag}
    assert numbers.is_conj()
    assert numbers.imag.is_neg()
    loaded = Checkpoints.read(Checkpoints(tmp_path).save(1, state))
    assert loaded["conjugate"].tolist() == [1 - 2j, 3 + 4j]
    assert loaded["negative"].tolist() == [-2.0, 4.0]


def test_every_tensor_is_aligned_in_the_file(tmp_path):
    state = [torch.zeros(3, dtype=dtype) for dtype in statefile._DTYPES]
    written = b"".join(statefile.serialise(state))
    (length,) = struct.unpack("<Q", written[:8])
    header = json.loads(written[8 : 8 + length])
    sizes = {text: dtype.itemsize for dtype, text in statefile._DTYPES.items()}
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    assert len(entries) == len(state)
    assert all((8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0 for entry in entries)


@settings(deadline=None, max_examples=40)
@given(states)
def test_unflatten_is_the_inverse_of_flatten(state):
    assert same(without_grad(state), state)


def test_names_are_paths_that_any_reader_of_safetensors_understands(tmp_path):
    state = {"model": nn.Linear(2, 3).state_dict(), "optimizer": {0: {"momentum": torch.ones(2)}}}
    Checkpoints(tmp_path).save(1, state)
    loaded = safetensors.torch.load_file(tmp_path / "step-00000001.safetensors")
    assert set(loaded) == {"model/weight", "model/bias", "optimizer/0/momentum"}
    assert torch.equal(loaded["model/weight"], state["model"]["weight"])


def test_clashing_paths_stay_apart(tmp_path):
    state = {
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
        "__metadata__": torch.full((1,), 2.0),
        1: {"1": 3},
    }
    checkpoints = Checkpoints(tmp_path)
    assert same(checkpoints.read(checkpoints.save(1, state)), state)


def test_a_shared_tensor_is_stored_once_and_shared_again(tmp_path):
    weight = torch.randn(100, 100)
    checkpoints = Checkpoints(tmp_path)
    loaded = checkpoints.read(
        checkpoints.save(1, {"in": weight, "out": weight, "view": weight.t(), "part": weight[1]})
    )
    assert loaded["in"] is loaded["out"]
    assert torch.equal(loaded["view"], weight.t())
    assert torch.equal(loaded["part"], weight[1])
    assert checkpoints.latest().path.stat().st_size < 2.1 * weight.nbytes


@pytest.mark.parametrize("bad", [object(), torch.nn.ReLU(), {1, 2}, b"bytes", torch.eye(2).to_sparse()])
def test_what_would_need_pickling_is_refused_by_name_before_anything_is_written(tmp_path, bad):
    checkpoints = Checkpoints(tmp_path / "new")
    with pytest.raises(TypeError, match=r"at optimizer/3\)"):
        checkpoints.save(1, {"optimizer": {3: bad}})
    assert not checkpoints.folder.exists()


@pytest.mark.parametrize(
    "options", [{"fused": True}, {"amsgrad": True, "foreach": True}, {"weight_decay": 0.1}]
)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, options):
    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU()).to(
            memory_format=torch.channels_last
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def train(parts, steps):
        model, optimizer, schedule = parts
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(8, 1, 6, 6)).square().mean().backward()
            optimizer.step()
            schedule.step()

    whole, first, second = fresh(), fresh(), fresh()
    train(whole, range(6))
    train(first, range(3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, [part.state_dict() for part in first])
    for part, state in zip(second, checkpoints.load(checkpoints.latest()), strict=True):
        part.load_state_dict(state)
    train(second, range(3, 6))
    assert same([dict(part.state_dict()) for part in second], [dict(part.state_dict()) for part in whole])


# ------------------------------------------------------------------------------------------- interrupted


class KilledError(BaseException):
    """Stands for SIGKILL: no `except Exception` of ours may see it."""


class Interrupted(durable.Files):
    """Dies at the k-th operation on the disk: before it, in the middle of it, or just after it.

    With `power_cut` the machine dies with the process, as unkindly as POSIX allows: what was written but not
    synced is cut to half, and of the renames and deletions since the last sync of the folder the first one
    ("first") or all of them ("all") never happened.
    """

    def __init__(self, at: int, when: str, power_cut: str | None = None) -> None:
        self.left, self.when, self.power_cut = at, when, power_cut
        self.unsynced: set[Path] = set()
        self.pending: list[tuple[Path, bytes | None]] = []

    def _do(self, operation, half=None) -> None:
        self.left -= 1
        if self.left >= 0:
            operation()
            return
        if self.when == "half" and half is not None:
            half()
        elif self.when == "after":
            operation()
        self._cut()
        raise KilledError

    def _cut(self) -> None:
        if self.power_cut is None:
            return
        for path in self.unsynced:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        undone = self.pending[:1] if self.power_cut == "first" else self.pending[::-1]
        for path, before in undone:
            if before is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(before)

    def _remember(self, path: Path) -> None:
        self.pending.append((path, path.read_bytes() if path.exists() else None))

    def create(self, path):
        opened = []

        def create() -> None:
            opened.append(super(Interrupted, self).create(path))
            self.unsynced.add(path)

        self._do(create)
        return opened[0]

    def write(self, handle, chunk):
        parent = super()
        self._do(
            lambda: parent.write(handle, chunk), lambda: parent.write(handle, bytes(chunk)[: len(chunk) // 2])
        )

    def sync(self, handle):
        def sync() -> None:
            super(Interrupted, self).sync(handle)
            self.unsynced.discard(Path(handle.name))

        self._do(sync)

    def replace(self, source, target):
        def replace() -> None:
            self._remember(target)
            super(Interrupted, self).replace(source, target)
            self.unsynced = {target if path == source else path for path in self.unsynced}

        self._do(replace)

    def remove(self, path):
        def remove() -> None:
            self._remember(path)
            super(Interrupted, self).remove(path)

        self._do(remove)

    def sync_folder(self, folder):
        self._do(self.pending.clear)


def every_interruption(folder: Path, monkeypatch, prepare, act):
    """Interrupts `act` at each of its operations in turn; yields the folder's checkpoints after each."""
    for k in itertools.count():
        here = folder / str(k)
        prepare(Checkpoints(here))
        monkeypatch.setattr(durable, "files", Interrupted(k, *every_interruption.how))
        try:
            act(Checkpoints(here))
            finished = True
        except KilledError:
            finished = False
        monkeypatch.setattr(durable, "files", durable.Files())
        yield Checkpoints(here)
        if finished:
            assert k > 3
            return


ways = pytest.mark.parametrize(
    "how",
    [("before",), ("half",), ("after",), *itertools.product(("before", "half", "after"), ("first", "all"))],
    ids="-".join,
)


def save_first_two(checkpoints):
    checkpoints.save(1, example(1), score=1.0)
    checkpoints.save(2, example(2), score=3.0)


@ways
def test_a_save_interrupted_anywhere_leaves_the_one_before_or_the_new_one(tmp_path, monkeypatch, how):
    every_interruption.how = how
    seen = []
    for checkpoints in every_interruption(
        tmp_path,
        monkeypatch,
        save_first_two,
        lambda c: Checkpoints(c.folder, keep=1).save(3, example(3), score=2.0),
    ):
        newest = checkpoints.latest()
        seen.append(newest.step)
        assert same(checkpoints.load(newest), example(newest.step))
        assert same(checkpoints.load(checkpoints.best()), example(1))
        if len(how) == 1:  # nothing is half deleted either, so that nothing needs to be warned of
            for sealed in checkpoints._sealed():
                sealed.verify()
        # and the next save clears up whatever was left
        Checkpoints(checkpoints.folder, keep=1).save(4, example(4))
        assert {path.name for path in checkpoints.folder.iterdir()} == {
            f"step-0000000{step}.{ending}" for step in (1, 4) for ending in ("json", "safetensors")
        }
    assert seen == sorted(seen)
    assert set(seen) == {2, 3}


@ways
def test_saving_the_only_step_again_endangers_nothing(tmp_path, monkeypatch, how):
    every_interruption.how = how
    seen = []
    for checkpoints in every_interruption(
        tmp_path, monkeypatch, lambda c: c.save(7, example(1)), lambda c: c.save(7, example(2))
    ):
        state = checkpoints.load(checkpoints.latest())
        seen.append(state["step"])
        assert same(state, example(state["step"]))
        for number in (3, 4):  # back to the plain name and away from it
            checkpoints.save(7, example(number))
            assert same(checkpoints.load(checkpoints.latest()), example(number))
            assert len(list(checkpoints.folder.iterdir())) == 2
    assert set(seen) == {1, 2}


@ways
def test_a_score_added_later_endangers_nothing(tmp_path, monkeypatch, how):
    every_interruption.how = how
    scores = []
    for checkpoints in every_interruption(
        tmp_path, monkeypatch, lambda c: c.save(7, example(7), config_hash="h"), lambda c: c.rescore(7, 0.5)
    ):
        newest = checkpoints.latest()
        assert same(checkpoints.load(newest), example(7))
        assert newest.config_hash == "h"
        scores.append(newest.score)
    assert set(scores) == {None, 0.5}


def test_what_a_killed_save_left_makes_room_before_the_next_one_writes(tmp_path, monkeypatch):
    class Watching(durable.Files):
        def create(self, path):
            assert list(tmp_path.glob(f"*{durable.PARTIAL}")) == []
            return super().create(path)

    monkeypatch.setattr(durable, "files", Interrupted(2, "half"))
    with pytest.raises(KilledError):
        Checkpoints(tmp_path).save(1, example(1))
    assert len(list(tmp_path.glob(f"*{durable.PARTIAL}"))) == 1
    monkeypatch.setattr(durable, "files", Watching())
    Checkpoints(tmp_path).save(2, example(2))


def test_a_full_disk_is_reported_and_costs_nothing(tmp_path, monkeypatch):
    class Full(durable.Files):
        def write(self, handle, chunk):
            raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, example(1))
    monkeypatch.setattr(durable, "files", Full())
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, example(2))
    assert same(checkpoints.load(checkpoints.latest()), example(1))


@pytest.mark.slow
def test_processes_killed_at_random_instants():
    script = Path(__file__).parents[1] / "soak" / "kill_checkpoints.py"
    subprocess.run([sys.executable, script, "--kills", "10"], check=True, timeout=120)


# ------------------------------------------------------------------------------------------------- damaged


def test_any_flipped_byte_of_the_tensors_is_noticed(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    save_first_two(checkpoints)
    path = tmp_path / "step-00000002.safetensors"
    for position in range(path.stat().st_size):
        before = flipped(path, position)
        assert checkpoints.latest().step == 1
        path.write_bytes(before)
    assert "step 2 passed over: step-00000002.safetensors is damaged" in caplog.text
    assert checkpoints.latest().step == 2


def test_a_flipped_byte_of_the_seal_is_noticed_or_without_effect(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_first_two(checkpoints)
    intact = checkpoints.latest()
    older = next(c for c in checkpoints._sealed() if c.step == 1)
    noticed = 0
    for position in range(intact.seal.stat().st_size):
        before = flipped(intact.seal, position)
        found = checkpoints.latest()
        assert found in (intact, older)
        noticed += found == older
        intact.seal.write_bytes(before)
    assert noticed > 0.9 * intact.seal.stat().st_size


@pytest.mark.parametrize("damage", ["cut seal", "empty seal", "no tensors", "cut tensors", "list", "no seal"])
def test_broken_checkpoints_are_passed_over_with_a_warning(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    save_first_two(checkpoints)
    path, seal = checkpoints.latest().path, checkpoints.latest().seal
    {
        "cut seal": lambda: os.truncate(seal, seal.stat().st_size - 5),
        "empty seal": lambda: os.truncate(seal, 0),
        "no tensors": path.unlink,
        "cut tensors": lambda: os.truncate(path, path.stat().st_size - 1),
        "list": lambda: seal.write_text("[1, 2]"),
        "no seal": seal.unlink,
    }[damage]()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert same(checkpoints.load(checkpoints.latest()), example(1))
    assert bool(caplog.records) == (damage != "no seal")
    with pytest.raises(UserError, match=str(tmp_path)):
        checkpoints.read(path)


def test_a_checkpoint_of_another_format_version_is_neither_read_nor_deleted(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(1, example(1))
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    assert checkpoints.latest() is None
    with pytest.raises(UserError, match="format version 2, this genbench reads 1"):
        checkpoints.read(path)
    checkpoints.save(2, example(2))
    assert path.exists()
    assert path.with_suffix(".safetensors").exists()


def test_a_folder_that_is_not_there_holds_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.latest() is None
    assert checkpoints.best() is None


# ------------------------------------------------------------------------------------------ keeping, naming


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.lists(st.none() | st.integers(0, 4) | st.just(math.nan), min_size=1, max_size=8))
def test_kept_are_the_last_and_the_best(keep, scores):
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep)
        for step, score in enumerate(scores):
            checkpoints.save(step, example(step), score=score)
            real = [(s, -i) for i, s in enumerate(scores[: step + 1]) if s is not None and s == s]
            best = -min(real)[1] if real else None
            expected = set(range(max(0, step + 1 - keep), step + 1)) | ({best} - {None})
            assert {c.step for c in checkpoints._sealed()} == expected
            assert len(list(Path(folder).iterdir())) == 2 * len(expected)
            assert (checkpoints.best() and checkpoints.best().step) == best
            assert checkpoints.latest().step == step


def test_the_one_just_saved_stays_though_a_broken_one_is_newer(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(10, example(10))
    flipped(tmp_path / "step-00000010.safetensors", 40)
    checkpoints.save(5, example(5))
    assert checkpoints.latest().step == 5


def test_a_later_score_makes_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, example(1), score=2.0)
    checkpoints.save(2, example(2))
    checkpoints.rescore(2, 1.0)
    assert checkpoints.best().step == 2
    checkpoints.save(3, example(3), score=1.5)
    assert {c.step for c in checkpoints._sealed()} == {2, 3}
    with pytest.raises(UserError, match="cannot score the checkpoint of step 9"):
        checkpoints.rescore(9, 1.0)


def test_either_file_can_be_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    seal = checkpoints.save(1, example(1))
    checkpoints.save(1, example(2))
    assert same(checkpoints.read(seal), example(2))
    assert same(checkpoints.read(checkpoints.latest().path), example(2))


@pytest.mark.parametrize("what", ["folder", "absent", "lone", "unsealed", "pickle"])
def test_a_checkpoint_that_cannot_be_read_says_what_to_type(tmp_path, what):
    seal = Checkpoints(tmp_path).save(1, example(1))
    if what == "folder":
        path, said = tmp_path, "name one file in it"
    elif what == "absent":
        path, said = tmp_path / "step-00000009.json", "there is no"
    elif what == "lone":
        path, said = seal.with_suffix(".safetensors").rename(tmp_path / "mine.safetensors"), "side by side"
    elif what == "unsealed":
        path, said = tmp_path / "step-00000001.other.safetensors", "type checkpoint="
        path.write_bytes(b"")
    else:
        path, said = seal.with_suffix(".safetensors"), "damaged"
        torch.save(example(1), path)
    with pytest.raises(UserError, match=said):
        Checkpoints.read(path)
