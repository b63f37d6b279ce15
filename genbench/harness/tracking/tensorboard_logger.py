"""The TensorBoard mirror; TensorBoard itself is not among genbench's dependencies."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.errors import UserError
from genbench.harness.tracking.metrics_file import Row
from genbench.harness.tracking.tracker import RunInfo


class TensorBoard:
    """`logger=tensorboard`: scalars and pictures under `tensorboard/` in the run directory.

    Its scalars are written anew when a run resumes, so that no step stands there twice; a picture of an
    earlier sitting is then only in `samples/`.
    """

    def preflight(self) -> str:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "logger=tensorboard needs the package tensorboard, which is not installed; "
                "type pip install tensorboard, or choose logger=csv, logger=wandb or logger=none"
            )
        return "metrics are also written for TensorBoard: tensorboard --logdir <run_dir>/tensorboard"

    def start(self, info: RunInfo, history: Sequence[Row]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = info.run_dir / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        for step, values in history:
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, png_path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(png_path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def keep(self, kind: str, files: Sequence[Path], aliases: Sequence[str]) -> None:
        """TensorBoard keeps no files."""

    def finish(self, summary: Mapping[str, float], exit_code: int) -> None:
        text = "\n".join(f"| {name} | {value:.6g} |" for name, value in summary.items())
        self._writer.add_text("summary", f"| metric | value |\n|---|---|\n{text}")
        self._writer.close()
