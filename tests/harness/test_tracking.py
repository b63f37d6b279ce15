"""metrics.jsonl is the truth, mirrors hold the same lines, and no mirror can stop a run."""

import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from segments import inspect

from genbench.errors import UserError
from genbench.harness import durable
from genbench.harness.tracking import (
    Csv,
    MetricsFile,
    NoLogger,
    RunInfo,
    TensorBoard,
    Tracker,
    Wandb,
    wandb_mode,
)
from genbench.harness.tracking.direction import direction_of

QUICK = {"x_disable_stats": True, "x_disable_meta": True, "silent": True}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Recorder(NoLogger):
    """A mirror that remembers what it was told, and raises in the method named `fails`."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.told, self.calls = fails, [], []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise RuntimeError("no network")

    def start(self, info, history):
        self.told += history
        self._call("start")

    def log(self, step, values):
        self.told.append((step, dict(values)))
        self._call("log")

    def image(self, step, name, png_path):
        self._call("image")

    def finish(self, summary, exit_code):
        self.summary, self.exit_code = summary, exit_code
        self._call("finish")


def track(folder: Path, *mirrors, **options) -> Tracker:
    return Tracker(folder, mirrors, RunInfo(folder, "run"), **options)


# ------------------------------------------------------------------------------------------- metrics.jsonl


def test_a_line_is_on_the_disk_when_log_returns(tmp_path):
    now = [100.0]
    file = MetricsFile(tmp_path / "metrics.jsonl", clock=lambda: now[0])
    now[0] = 101.5
    file.log(0, {"loss": 0.5})
    now[0] = 102.5
    file.log(10, {"loss": 1, "fid": 3.25})
    assert lines(tmp_path) == [
        {"step": 0, "time": 1.5, "loss": 0.5},
        {"step": 10, "time": 2.5, "loss": 1.0, "fid": 3.25},
    ]


def test_what_is_not_finite_reads_back(tmp_path):
    file = MetricsFile(tmp_path / "m" / "metrics.jsonl")
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0, "e": 1e-320}
    written = file.log(3, values)
    json.loads(file.path.read_text(), parse_constant=pytest.fail)  # strict JSON
    ((step, read),) = file.rows()
    assert step == 3
    assert str(read) == str(written) == str({"time": read["time"], **values})


@pytest.mark.parametrize(
    "torn", [b"", b'{"step": 50, "lo', b'{"step": 50, "loss": 1.0}', b"\xff\xfe\n", b"3\n", b"{}\n"]
)
@pytest.mark.parametrize("step", [0, 25, 30, 99])
def test_resuming_drops_later_steps_and_torn_lines(tmp_path, torn, step):
    path = tmp_path / "metrics.jsonl"
    whole = MetricsFile(path)
    for logged in range(0, 50, 10):
        whole.log(logged, {"loss": 1 / (logged + 1)})
    before = path.read_bytes()
    path.write_bytes(before + torn)
    again = MetricsFile(path)
    again.truncate_after(step)
    expected = [line for line in before.splitlines(keepends=True) if json.loads(line)["step"] <= step]
    assert path.read_bytes() == b"".join(expected)
    again.log(step + 1, {"loss": 0.0})
    assert path.read_bytes().startswith(b"".join(expected))
    assert len(path.read_bytes().splitlines()) == len(expected) + 1


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log(1, {"a": 1})
    with file.path.open("ab") as raw:
        raw.write(b'{"step": 2, "a')
    MetricsFile(file.path).log(3, {"a": 3})
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]


def test_time_goes_on_over_sittings(tmp_path):
    now = [0.0]
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, clock=lambda: now[0])
    first.log(1, {})
    now[0] = 60.0
    first.log(2, {})
    now[0] = 10_000.0  # the machine's clock, long after
    second = MetricsFile(path, clock=lambda: now[0])
    second.truncate_after(2)
    now[0] += 20.0
    second.log(3, {})
    second.close()
    now[0] += 5.0
    second.log(4, {})
    assert [line["time"] for line in lines(tmp_path)] == [0.0, 60.0, 80.0, 85.0]


def test_truncation_killed_half_way_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    class Dying(durable.Files):
        def write(self, handle, chunk):
            super().write(handle, chunk[: len(chunk) // 2])
            raise KeyboardInterrupt

    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(5):
        file.log(step, {"loss": 1.0})
    before = file.path.read_bytes()
    monkeypatch.setattr(durable, "files", Dying())
    with pytest.raises(KeyboardInterrupt):
        file.truncate_after(2)
    assert file.path.read_bytes() == before


# ------------------------------------------------------------------------------------------------- tracker


def test_a_killed_run_resumed_logs_no_step_twice_and_mirrors_hold_the_same(tmp_path):
    first = track(tmp_path, Recorder())
    first.resume(0)
    for step in range(0, 60, 10):
        first.log(step, {"loss": 1.0 / (step + 1)})
    mirror = Recorder()
    second = track(tmp_path, mirror)
    second.resume(30)
    for step in range(40, 90, 10):
        second.log(step, {"loss": 1.0 / (step + 1)})
    assert [line["step"] for line in lines(tmp_path)] == list(range(0, 90, 10))
    assert [{"step": step, **values} for step, values in mirror.told] == lines(tmp_path)


def test_without_resume_lines_are_added(tmp_path):
    for value in (1.0, 2.0):
        tracker = track(tmp_path, NoLogger())
        tracker.log(100, {"fid": value})
        tracker.finish()
    assert [line["fid"] for line in lines(tmp_path)] == [1.0, 2.0]


@pytest.mark.parametrize("fails", ["start", "log", "image", "finish"])
def test_a_mirror_that_fails_is_reported_once_and_costs_nothing_else(tmp_path, fails):
    bad, good, said = Recorder(fails), Recorder(), []
    tracker = track(tmp_path, bad, good, warn=said.append)
    for step in range(4):
        tracker.log(step, {"loss": 1.0})
        tracker.image(step, "grid", tmp_path / "grid.png")
    tracker.finish({"fid": 2.0}, exit_code=3)
    tracker.finish({"fid": 2.0}, exit_code=3)
    assert len(said) == 1
    assert "Recorder failed" in said[0]
    assert "RuntimeError: no network" in said[0]
    assert bad.calls.count(fails) == 1
    assert bad.calls[-1] == fails
    assert [step for step, _ in good.told] == [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert (good.summary, good.exit_code, good.calls.count("finish")) == ({"fid": 2.0}, 3, 1)


def test_a_silent_tracker_touches_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = Tracker.silent()
    tracker.resume(3)
    tracker.log(4, {"loss": 1.0})
    tracker.image(4, "grid", Path("grid.png"))
    tracker.finish({"a": 1.0})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- csv, tensorboard


def test_csv_holds_what_the_truth_holds_also_after_a_resume(tmp_path):
    first = track(tmp_path, Csv())
    first.log(0, {"loss": 0.5})
    first.log(10, {"loss": 0.25, "fid,odd": 3.0})
    first.log(20, {"other": 1.0})
    second = track(tmp_path, Csv())
    second.resume(10)
    second.log(20, {"loss": 0.125, "late": -1.0})
    with (tmp_path / "metrics.csv").open(newline="") as file:
        read = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    assert read == lines(tmp_path)
    second.finish()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_without_tensorboard_the_preflight_says_what_to_install():
    with pytest.raises(UserError, match="pip install tensorboard"):
        TensorBoard().preflight()


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_holds_what_the_truth_holds_also_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (4, 4), "red").save(tmp_path / "grid.png")
    for resumed, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        tracker = track(tmp_path, TensorBoard(), warn=pytest.fail)
        tracker.resume(resumed)
        for step in steps:
            tracker.log(step, {"loss": 0.5 / step})
        tracker.image(4, "grid", tmp_path / "grid.png")
        tracker.finish({"fid": 2.0})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in lines(tmp_path)]
    assert [event.step for event in events.Images("grid")] == [4]


# -------------------------------------------------------------------------------------------- W&B: the mode


def home_with(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / {"netrc": ".netrc", "settings": ".config/wandb/settings"}[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


NETRC = "machine api.wandb.ai\n  login user\n  password k\n"
OTHER = "machine wandb.example.org\n  login user\n  password k\n"
SETTINGS = "[default]\nbase_url = https://wandb.example.org\n"


@pytest.mark.parametrize(
    ("configured", "environ", "files", "mode", "reason"),
    [
        (None, {}, {}, "offline", "no key was found"),
        (None, {"WANDB_API_KEY": ""}, {}, "offline", "no key was found"),
        (None, {"WANDB_API_KEY": "k"}, {}, "online", "WANDB_API_KEY"),
        (None, {"WANDB_IDENTITY_TOKEN_FILE": "f"}, {}, "online", "WANDB_IDENTITY_TOKEN_FILE"),
        (None, {}, {"netrc": NETRC}, "online", ".netrc"),
        (None, {}, {"netrc": OTHER}, "offline", "no key was found"),
        (None, {}, {"netrc": OTHER, "settings": SETTINGS}, "online", ".netrc"),
        (None, {}, {"netrc": NETRC, "settings": SETTINGS}, "offline", "no key was found"),
        (None, {"WANDB_BASE_URL": "https://wandb.example.org:8080"}, {"netrc": OTHER}, "online", ".netrc"),
        (None, {}, {"netrc": "gibberish {", "settings": "more"}, "offline", "no key was found"),
        (None, {"WANDB_MODE": "offline", "WANDB_API_KEY": "k"}, {}, "offline", "WANDB_MODE=offline"),
        (None, {"WANDB_MODE": "dryrun", "WANDB_API_KEY": "k"}, {}, "offline", "WANDB_MODE=dryrun"),
        (None, {"WANDB_MODE": "online"}, {}, "online", "WANDB_MODE=online"),
        (None, {"WANDB_MODE": "disabled"}, {}, "disabled", "WANDB_MODE=disabled"),
        (None, {"WANDB_MODE": "wat", "WANDB_API_KEY": "k"}, {}, "online", "WANDB_MODE=wat is not a mode"),
        ("offline", {"WANDB_MODE": "online", "WANDB_API_KEY": "k"}, {}, "offline", "logger.mode=offline"),
        ("online", {"WANDB_MODE": "disabled"}, {}, "online", "logger.mode=online"),
        ("disabled", {"WANDB_API_KEY": "k"}, {}, "disabled", "logger.mode=disabled"),
    ],
)
def test_the_mode_is_the_configuration_s_else_the_environment_s_else_by_the_key(
    tmp_path, configured, environ, files, mode, reason
):
    decided, why = wandb_mode(configured, environ, home_with(tmp_path, **files))
    assert decided == mode
    assert reason in why


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="type one of online, offline, disabled"):
        Wandb(mode="onlin").preflight()


@pytest.mark.parametrize(
    ("names", "direction"),
    [
        (["fid", "fid@2000", "preview/fd_digits", "fd_dinov2@500", "kid", "bits_per_dim"], "min"),
        (["sfid@10000", "kid_digits", "fd_infinity_digits", "cmmd", "class_fd_worst_digits"], "min"),
        (["is", "is_digits@2000", "precision", "eval/recall", "coverage_digits"], "max"),
        (["authenticity_digits", "c_t_digits@500", "train_distance_ratio_digits"], None),
        (["loss", "this", "isolation", "time", "step", "avoid", "lr"], None),
    ],
)
def test_directions_follow_from_names(names, direction):
    assert {direction_of(name) for name in names} == {direction}


# ------------------------------------------------------------------------------- W&B: against a stand-in


class FakeRun:
    """As much of a W&B run as is used; `step` is what the server knows plus one."""

    def __init__(self, step: int, folder: str) -> None:
        self.step, self.logged, self.defined, self.summary = step, [], {}, {}
        self.dir = f"{folder}/wandb/offline-run-now-id/files"

    def define_metric(self, name, **options):
        self.defined[name] = options

    def log(self, values, step):
        assert step >= self.step, "W&B would drop this"
        self.step = step
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def fake_wandb(monkeypatch):
    """Stands for the module wandb; `server_step` is its run's step, modes in `down` cannot be had."""
    fake = types.SimpleNamespace(server_step=0, down=(), inits=[], runs=[])

    def init(**options):
        fake.inits.append(options)
        if options["mode"] in fake.down:
            raise ConnectionError("unreachable")
        fake.runs.append(FakeRun(fake.server_step, options["dir"]))
        return fake.runs[-1]

    class Settings(types.SimpleNamespace):
        model_fields = ("console", "silent")

    fake.init, fake.Settings, fake.Image = init, Settings, lambda path: f"image {path}"
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_online_what_the_server_lacks_is_sent_and_nothing_twice(tmp_path, fake_wandb):
    killed = track(tmp_path)
    for step in range(0, 80, 10):
        killed.log(step, {"loss": 1.0})
    fake_wandb.server_step = 41  # lines 50, 60 and 70 never arrived
    tracker = track(tmp_path, Wandb(mode="online"), warn=pytest.fail)
    tracker.resume(60)
    for step in range(70, 100, 10):
        tracker.log(step, {"loss": 1.0})
    assert [values["step"] for values in fake_wandb.runs[0].logged] == [50, 60, 70, 80, 90]


def test_online_resumed_behind_the_server_goes_on_where_the_server_stands(tmp_path, fake_wandb):
    killed = track(tmp_path)
    for step in range(0, 80, 10):
        killed.log(step, {"loss": 1.0})
    fake_wandb.server_step = 71
    tracker = track(tmp_path, Wandb(mode="online"), warn=pytest.fail)
    tracker.resume(40)
    for step in range(50, 100, 10):
        tracker.log(step, {"loss": 1.0})
    assert [values["step"] for values in fake_wandb.runs[0].logged] == [70, 80, 90]


def test_a_later_evaluation_of_the_last_step_is_sent(tmp_path, fake_wandb):
    track(tmp_path).log(100, {"loss": 1.0})
    fake_wandb.server_step = 101
    tracker = track(tmp_path, Wandb(mode="online"), warn=pytest.fail)
    tracker.log(100, {"fid": 2.0})
    ((sent),) = fake_wandb.runs[0].logged
    assert (sent["step"], sent["fid"]) == (100, 2.0)


def test_when_the_server_cannot_be_reached_the_run_is_offline(tmp_path, fake_wandb, caplog):
    fake_wandb.down = ("online",)
    tracker = track(tmp_path, Wandb(mode="online"), warn=pytest.fail)
    tracker.log(1, {"loss": 1.0})
    assert [options["mode"] for options in fake_wandb.inits] == ["online", "offline"]
    assert fake_wandb.inits[0]["id"] == fake_wandb.inits[1]["id"]
    assert len(fake_wandb.runs[0].logged) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "W&B cannot be reached, so it is offline for this run (unreachable)"
    ]


def test_when_nothing_works_the_run_goes_on(tmp_path, fake_wandb):
    fake_wandb.down = ("online", "offline")
    said = []
    tracker = track(tmp_path, Wandb(mode="online"), warn=said.append)
    for step in range(3):
        tracker.log(step, {"loss": 1.0})
    tracker.finish()
    assert len(said) == 1
    assert len(lines(tmp_path)) == 3


def test_a_disabled_one_never_imports_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = track(tmp_path, Wandb(mode="disabled"), warn=pytest.fail)
    tracker.log(1, {"loss": 1.0})
    tracker.image(1, "grid", tmp_path / "grid.png")
    tracker.finish()


def test_one_run_directory_is_one_id_and_a_sweep_s_agent_may_give_it(tmp_path, fake_wandb, monkeypatch):
    def identifier(folder):
        tracker = track(folder, Wandb(mode="offline"), warn=pytest.fail)
        tracker.log(1, {"loss": 1.0})
        return fake_wandb.inits[-1]["id"], (folder / "wandb_id").read_text()

    first = identifier(tmp_path / "a")
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert len({*identifier(tmp_path / "a"), *first}) == 1
    assert "agents" not in identifier(tmp_path / "b")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert identifier(tmp_path / "c") == ("agents", "agents")
    assert identifier(tmp_path / "a") == first


def test_what_w_and_b_is_told_about_a_run(tmp_path, fake_wandb):
    info = RunInfo(
        tmp_path, "name", "group", "evaluate", ["tag"], {"seed": 0, "model": {"width": 8}}, {"odd": "max"}
    )
    tracker = Tracker(tmp_path, [Wandb(mode="offline", project="p", entity="e")], info, warn=pytest.fail)
    tracker.log(5, {"loss": 1.0, "odd": 1.0, "fid@10": 3.0})
    tracker.image(5, "samples", tmp_path / "grid.png")
    tracker.finish({"fid": 2.0}, exit_code=1)
    (told,), (run,) = fake_wandb.inits, fake_wandb.runs
    expected = {
        "project": "p",
        "entity": "e",
        "dir": str(tmp_path),
        "name": "name",
        "group": "group",
        "job_type": "evaluate",
        "tags": ["tag"],
        "config": {"seed": 0, "model": {"width": 8}},
        "resume": "allow",
        "reinit": "create_new",
    }
    assert expected.items() <= told.items()
    assert told["settings"].console == "off"
    assert run.defined["*"] == {"step_metric": "step"}
    assert run.defined["fid@10"] == {"step_metric": "step", "summary": "min"}
    assert run.defined["odd"]["summary"] == "max"
    assert "loss" not in run.defined
    assert run.logged[1] == {"samples": f"image {tmp_path / 'grid.png'}", "step": 5}
    assert (run.summary, run.exit_code) == ({"fid": 2.0}, 1)


# ------------------------------------------------------------------------------------- W&B: the real thing


def sitting(folder: Path, resumed: int, steps: range) -> Tracker:
    """Goes on with a run, logging `steps`; not finished."""
    info = RunInfo(folder, "name", "group", "train", ["tag"], {"seed": 0})
    tracker = Tracker(folder, [Wandb(mode="offline", settings=QUICK)], info, warn=pytest.fail)
    tracker.resume(resumed)
    for step in steps:
        tracker.log(step, {"loss": 1.0 / (step + 1), "fid@10": float((step - 55) ** 2)})
    return tracker


KILLED_SITTING = """
import os, pathlib, signal, sys
sys.path[:0] = [sys.argv[1], str(pathlib.Path(sys.argv[1]).parent)]
from test_tracking import sitting
sitting(pathlib.Path(sys.argv[2]), 20, range(30, 60, 10))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_an_offline_run_killed_and_resumed_is_whole_in_w_and_b(tmp_path):
    sitting(tmp_path, 0, range(0, 30, 10)).finish()
    command = [sys.executable, "-c", KILLED_SITTING, Path(__file__).parent, tmp_path]
    # a W&B service of its own, which dies with it; it would find this process's through the environment
    environ = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    assert subprocess.run(command, env=environ, timeout=120).returncode == -signal.SIGKILL
    sitting(tmp_path, 40, range(50, 80, 10)).finish({"final": 1.5})
    segments = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(segments) == 2
    assert len(list((tmp_path / "wandb").glob("unfinished-*"))) == 1
    records = [record for segment in segments for record in inspect(segment)]
    runs = [record["run"] for record in records if record["type"] == "run"]
    assert {run["run_id"] for run in runs} == {(tmp_path / "wandb_id").read_text()}
    assert {(run["display_name"], run["run_group"], run["job_type"]) for run in runs} == {
        ("name", "group", "train")
    }
    sent = [record["history"]["item"] for record in records if record["type"] == "history"]
    ours = [{name: value for name, value in item.items() if not name.startswith("_")} for item in sent]
    assert ours == lines(tmp_path)
    assert [item["_step"] for item in sent] == [line["step"] for line in lines(tmp_path)]
    assert [line["step"] for line in lines(tmp_path)] == list(range(0, 80, 10))
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {}) if record["type"] == "summary" else {}
    assert summary["final"] == 1.5
    assert summary["fid@10"] == {"min": 25}


@pytest.mark.slow
def test_two_runs_of_one_process_stay_apart(tmp_path):
    wandb = pytest.importorskip("wandb")
    trackers = [
        track(tmp_path / name, Wandb(mode="offline", settings=QUICK), warn=pytest.fail) for name in "ab"
    ]
    for step in range(2):
        for index, tracker in enumerate(trackers):
            tracker.log(step, {"loss": float(index)})
    for tracker in trackers:
        tracker.finish()
    assert wandb.run is None
    for index, name in enumerate("ab"):
        (segment,) = (tmp_path / name / "wandb").glob("offline-run-*")
        sent = [
            record["history"]["item"]["loss"] for record in inspect(segment) if record["type"] == "history"
        ]
        assert sent == [index, index]


# ------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("name", "kind"), [("wandb", Wandb), ("csv", Csv), ("tensorboard", TensorBoard), ("none", NoLogger)]
)
def test_each_choice_of_logger_can_be_made(name, kind):
    folder = Path(__file__).parents[2] / "conf" / "logger"
    assert type(instantiate(OmegaConf.load(folder / f"{name}.yaml"))) is kind
    assert {path.stem for path in folder.glob("*.yaml")} == {"wandb", "csv", "tensorboard", "none"}
