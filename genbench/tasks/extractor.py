"""task=extractor: train a small classifier and export it as a data set's feature extractor, with its card."""

from __future__ import annotations

from typing import Any, cast

from genbench.cli import Typed
from genbench.contracts import UserError
from genbench.generators.classifier import Classifier
from genbench.harness.assembly import Assembly, settle_precision
from genbench.harness.distributed import Ranks, refuse_ranks, resolve_device
from genbench.harness.rundir import default_run_dir
from genbench.harness.sitting import Sitting
from genbench.metrics.training import export


def run(config: dict[str, Any], typed: Typed) -> float:
    """Trains and exports to <run_dir>/extractor; returns the error on the test split."""
    refuse_ranks("extractor")
    device = resolve_device(config["device"])
    config = settle_precision(config, device)
    config["run_dir"] = str(config["run_dir"] or default_run_dir(config, typed.job))
    assembly = Assembly(config, device, Ranks())
    sitting = Sitting(config, typed.overrides, assembly)
    sitting.examine()
    sitting.check_data()
    generator = assembly.generator()
    if not isinstance(generator, Classifier):
        raise UserError("task=extractor trains a classifier: leave model unset, or type model=classifier.")
    sitting.claim()
    trainer = sitting.trainer(generator, sitting.logger())
    outcome = sitting.train(trainer, sitting.deadline(trainer, None))
    shown = [o for o in typed.overrides if not o.startswith(("run_dir=", "logger=", "device=", "data_root="))]
    folder = sitting.directory.path / "extractor"
    card = export(
        cast(Classifier, trainer.sampling_model),
        assembly.images("train"),
        assembly.images("test"),
        folder,
        n_samples=config["dataset"]["n_samples"],
        command=" ".join(["python -m genbench", *shown]),
        device=device,
    )
    trainer.tracker.log(outcome.steps, {"test/accuracy": card.test_accuracy})
    trainer.tracker.finish({"test/accuracy": card.test_accuracy}, 0)
    print(f"  accuracy  {card.test_accuracy:.2%} on the test split, {card.parameters:,} parameters")
    print(f"  distance  floor {card.floor:.3g} (test split), ceiling {card.ceiling:.4g} (per-pixel Gaussian)")
    print(f"  written   {folder}")
    return 1 - card.test_accuracy
