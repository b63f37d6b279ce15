"""What a run tells while it goes: `metrics.jsonl`, and mirrors of it elsewhere.

`metrics.jsonl` in the run directory is the source of truth. W&B, TensorBoard and CSV are mirrors: they are
told each line as it is written there, and when a run resumes they are handed all that the file has and take
what they lack. A mirror that fails is dropped with one warning, and the run goes on.
"""

from genbench.harness.tracking.csv_logger import Csv, NoLogger
from genbench.harness.tracking.metrics_file import MetricsFile
from genbench.harness.tracking.tensorboard_logger import TensorBoard
from genbench.harness.tracking.tracker import Logger, RunInfo, Tracker
from genbench.harness.tracking.wandb_logger import Wandb, wandb_mode

__all__ = [
    "Csv",
    "Logger",
    "MetricsFile",
    "NoLogger",
    "RunInfo",
    "TensorBoard",
    "Tracker",
    "Wandb",
    "wandb_mode",
]
