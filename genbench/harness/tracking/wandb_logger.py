"""The Weights & Biases mirror: never a login, never a reason to stop, and whole after any interruption.

One run directory is one W&B run: its id is kept in `wandb_id` there. Online, W&B says how far it got and the
missing lines of metrics.jsonl are sent. Offline every sitting leaves a segment (`wandb/offline-run-…`) and
`wandb sync` appends them to one run. W&B holds the last 32 KiB of a segment in memory, so one whose
process was killed may lack all: it is set aside when the run resumes, and its lines go into the next segment.
"""

from __future__ import annotations

import configparser
import json
import logging
import netrc
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genbench.errors import UserError
from genbench.harness import durable
from genbench.harness.tracking.direction import direction_of
from genbench.harness.tracking.metrics_file import Row
from genbench.harness.tracking.tracker import RunInfo

_log = logging.getLogger(__name__)

_MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}

_SETTINGS = {
    "console": "off",  # standard output is the user's; capturing it costs and breaks the progress bar
    "disable_git": True,  # result.json records the commit
    "disable_code": True,
    "x_save_requirements": False,  # result.json records the versions that matter
    "init_timeout": 30.0,
    "login_timeout": 30.0,
    "finish_timeout": 300.0,  # without a network, finishing would otherwise wait for ever
}


def wandb_mode(
    configured: str | None, environ: Mapping[str, str], home: Path | None = None
) -> tuple[str, str]:
    """W&B's mode ("online", "offline" or "disabled") and why, for the user to read.

    The configuration decides, else WANDB_MODE, else it is online where a key is found (WANDB_API_KEY, or what
    `wandb login` left under `home`) and offline where none is. Raises UserError for an unknown `configured`.
    """
    if configured is not None:
        if configured not in _MODES:
            raise UserError(f"logger.mode is {configured!r}; type one of online, offline, disabled")
        return _MODES[configured], f"logger.mode={configured}"
    asked = environ.get("WANDB_MODE", "")
    if asked in _MODES:
        return _MODES[asked], f"WANDB_MODE={asked}"
    unknown = f"WANDB_MODE={asked} is not a mode; " if asked else ""
    found = _where_the_key_is(environ, home or Path.home())
    if found is not None:
        return "online", f"{unknown}a key is in {found}"
    return "offline", f"{unknown}no key was found; `wandb sync` sends the run later"


def _where_the_key_is(environ: Mapping[str, str], home: Path) -> str | None:
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if environ.get(variable):
            return variable
    host = urlsplit(_base_url(environ, home)).hostname or ""
    names = [Path(environ["NETRC"])] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]
    for path in names:
        try:
            if host in netrc.netrc(path).hosts:
                return str(path)
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
    return None


def _base_url(environ: Mapping[str, str], home: Path) -> str:
    """The server: W&B's own, or one that `wandb login --host` left in the settings file."""
    settings = configparser.ConfigParser(interpolation=None)
    folder = Path(environ.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb")
    try:
        settings.read(folder / "settings")
        written = settings.get("default", "base_url", fallback="")
    except (configparser.Error, OSError, UnicodeDecodeError):
        written = ""
    return environ.get("WANDB_BASE_URL") or written or "https://api.wandb.ai"


class Wandb:
    """`logger=wandb`. mode: see `wandb_mode`; settings: more of `wandb.Settings`, for experts and tests.

    Every metric is drawn over "step"; the best value of those that have a direction is kept in the summary.
    The result is an artifact of the run; checkpoints and samples, which are large, are where `checkpoints`
    and `samples` say so.
    """

    def __init__(
        self,
        mode: str | None = None,
        project: str = "genbench",
        entity: str | None = None,
        settings: Mapping[str, Any] | None = None,
        checkpoints: bool = False,
        samples: bool = False,
    ) -> None:
        self.mode, self.project, self.entity = mode, project, entity
        self.settings = dict(settings or {})
        large = {"checkpoint": checkpoints, "samples": samples}
        self._kinds = {"result", *(kind for kind, wanted in large.items() if wanted)}
        self._run: Any = None
        self._known: set[str] = set()
        self._through = -1  # W&B has every line up to this step
        self._last = 0

    def preflight(self) -> str:
        mode, reason = self._mode()
        return f"W&B is {mode} ({reason})"

    def start(self, info: RunInfo, history: Sequence[Row]) -> None:
        mode, _ = self._mode()
        if mode == "disabled":
            return
        self._info = info
        self._folder = info.run_dir / "wandb"
        self._ledger = self._folder / "mirrored.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._run = self._open(mode)
        except Exception as error:
            if mode == "offline":
                raise
            _log.warning("W&B cannot be reached, so it is offline for this run (%s)", error)
            mode = "offline"
            self._run = self._open(mode)
        self._through = self._run.step - 1 if mode == "online" else self._set_aside_torn_segments()
        self._last = max(self._run.step, self._through)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        for step, values in history:
            if step > self._through:
                self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._run is None or step < self._through:
            return
        for name in values.keys() - self._known:
            self._known.add(name)
            best = self._info.better.get(name) or direction_of(name)
            if best is not None:
                self._run.define_metric(name, step_metric="step", summary=best)
        self._send(step, values)

    def image(self, step: int, name: str, png_path: Path) -> None:
        if self._run is not None:
            import wandb

            self._send(step, {name: wandb.Image(str(png_path))})

    def keep(self, kind: str, files: Sequence[Path], aliases: Sequence[str]) -> None:
        if self._run is None or kind not in self._kinds:
            return
        import wandb

        artifact = wandb.Artifact(f"{self._run.id}-{kind}", type=kind)
        for file in files:
            # Offline it is read when the run is synced. A checkpoint is written once; a record changes when
            # the run goes on.
            kept = file if kind == "checkpoint" else self._copied(file)
            # Else W&B would copy it to the home directory, which may be small, or read-only.
            artifact.add_file(str(kept.absolute()), file.name, policy="immutable")
        self._run.log_artifact(artifact, aliases=list(aliases))

    def _copied(self, file: Path) -> Path:
        folder = self._folder / "kept" / self._segment
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(file, folder))

    def finish(self, summary: Mapping[str, float], exit_code: int) -> None:
        if self._run is None:
            return
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=exit_code)
        whole = [*self._whole_segments(), self._segment]
        ledger = {"through": self._last, "segments": whole}
        durable.replace_file(self._ledger, [json.dumps(ledger).encode()])

    def _mode(self) -> tuple[str, str]:
        return wandb_mode(self.mode, os.environ)

    def _open(self, mode: str) -> Any:
        """Starts or continues the run of this directory."""
        import wandb

        settings: dict[str, Any] = _SETTINGS | {"silent": not sys.stderr.isatty()} | self.settings
        # an older W&B may not know one of these
        settings = {name: value for name, value in settings.items() if name in wandb.Settings.model_fields}
        info = self._info
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=self.project,
            entity=self.entity,
            dir=str(info.run_dir),
            id=self._id(),
            resume="allow",
            name=info.name,
            group=info.group or None,
            job_type=info.job_type,
            tags=list(info.tags),
            config=dict(info.config),
            reinit="create_new",  # a sweep has many runs in one process
            settings=wandb.Settings(**settings),
        )
        self._segment = Path(run.dir).parent.name
        return run

    def _id(self) -> str:
        """The W&B id of this run directory: its own, else the one a sweep's agent gave, else a new one."""
        path = self._info.run_dir / "wandb_id"
        if path.exists() and path.read_text().strip():
            return path.read_text().strip()
        given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        identifier = given or secrets.token_hex(4)
        durable.replace_file(path, [identifier.encode()])
        return identifier

    def _send(self, step: int, values: Mapping[str, Any]) -> None:
        # W&B drops what goes back in its own count of steps; "step" among the values is what it draws over
        self._last = max(self._last, step)
        self._run.log({**values, "step": step}, step=self._last)

    def _whole_segments(self) -> list[str]:
        return list(self._read_ledger().get("segments", []))

    def _read_ledger(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._ledger.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _set_aside_torn_segments(self) -> int:
        """Renames segments that were never finished, so that `wandb sync --sync-all` leaves them alone.

        Returns the step up to which the finished ones hold every line.
        """
        whole = {*self._whole_segments(), self._segment}
        for path in self._folder.glob("offline-run-*"):
            if path.name not in whole:
                path.rename(path.with_name(f"unfinished-{path.name}"))
        return int(self._read_ledger().get("through", -1))
