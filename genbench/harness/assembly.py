"""From a resolved configuration to the objects of a run. Choice is by the `_target_` that conf/ names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.contracts import Generator, Pretrained, Sampler, UserError
from genbench.data.batches import Batches
from genbench.data.images import ImageSet, check_facts
from genbench.harness.distributed import Ranks
from genbench.harness.ema import Average
from genbench.harness.graphs import CudaGraphs
from genbench.harness.inference import Inference
from genbench.harness.phases import Computation, Plan, Recipe
from genbench.harness.seeding import seed_torch
from genbench.harness.trajectories import TRAJECTORY, Trajectories
from genbench.precisions import AUTO, BEFORE, PRECISE, PRECISIONS, settled

DESCRIPTIVE = ("name", "family", "title")
"""Keys of `model` and `sampler` that describe; everything else is an argument of their `_target_`."""

SHARED = ("batch_size", "precision", "compile", "graphs")
"""Keys of `sampler` that say how any sampler is carried out, and are no arguments of it."""


def settle_precision(config: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """`config` with a precision of `auto`, the trainer's or the sampler's, replaced by what is fast here.

    The choice is written into the configuration before the run starts, since it is part of what determines
    the result. Raises UserError for an unknown precision.
    """
    result = settled(config, lambda _: "bf16" if multiplies_in_bfloat16(device) else "fp32")
    for section in PRECISE:
        if (precision := result[section]["precision"]) not in PRECISIONS:
            raise UserError(f"{section}.precision={precision}: type {AUTO}, {' or '.join(PRECISIONS)}.")
    return result


def autocast_type(precision: str) -> torch.dtype | None:
    """The type that a precision's networks are autocast to; None where they stay as they are."""
    name = PRECISIONS[precision]
    return None if name is None else getattr(torch, name)


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Has the device instructions for it? A CPU without them computes it by others, at a loss.

    A forward pass of the 6.5 M U-Net takes 0.59 times as long as in float32 where AVX512_BF16 is (torch 2.15,
    one core), and 2.1 times as long where oneDNN is told not to use it.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


class Assembly:
    """The parts of a run, built on demand from its resolved configuration."""

    def __init__(self, config: Mapping[str, Any], device: torch.device, ranks: Ranks) -> None:
        self.config = config
        self.device = device
        self.ranks = ranks
        self._images: dict[str, ImageSet] = {}

    @property
    def data_root(self) -> Path:
        """Where data sets are looked for."""
        return Path(self.config["data_root"]).expanduser()

    def images(self, split: str) -> ImageSet:
        """A split of the data set on the device, checked against what the configuration says of it."""
        if split not in self._images:
            facts = self.config["dataset"]
            source = instantiate(facts["source"])
            # One rank downloads and decodes first; the others then find what it left.
            if not self.ranks.leads:
                self.ranks.barrier()
            images = source.load(self.data_root, split)
            if self.ranks.leads:
                self.ranks.barrier()
            check_facts(
                images,
                name=facts["name"],
                channels=facts["channels"],
                resolution=facts["resolution"],
                classes=facts["classes"],
                levels=facts["levels"],
            )
            self._images[split] = images.to(self.device)
        return self._images[split]

    def generator(self) -> Generator:
        """The untrained generator on the device; its weights depend on the seed alone, or came with it."""
        seed_torch(self.config["seed"], "weights")
        generator = build(self.config["model"], "model")
        if not isinstance(generator, Generator):
            raise UserError(
                f"model._target_={self.config['model']['_target_']} made a {type(generator).__name__}, "
                "which is not a genbench.contracts.Generator. Derive it from that class."
            )
        if isinstance(generator, Pretrained):
            # What was found is what the record is of, and what a later evaluation must find again.
            model = {**self.config["model"], "sha256": generator.weights_sha256}
            self.config = {**self.config, "model": model}
        return generator.to(self.device)

    def sampler(self) -> Sampler:
        """The sampler."""
        return build_sampler(self.config["sampler"])

    def inference(self, settings: Mapping[str, Any] | None = None) -> Inference:
        """How networks are evaluated under a sampler's settings, the configured one's where not given."""
        settings = self.config["sampler"] if settings is None else settings
        graphs, compile = settings.get("graphs", True), settings.get("compile", False)
        recorder = CudaGraphs() if self.device.type == "cuda" and graphs else None
        whole = graphs == TRAJECTORY
        if whole and compile:
            raise UserError(
                f"sampler.graphs={TRAJECTORY} records steps as they are, sampler.compile=true makes others: "
                "choose one. With sampler.graphs=true compiled networks are replayed."
            )
        return Inference(
            self.device,
            autocast_type(settings.get("precision", BEFORE)),
            compile,
            None if whole else recorder,
            Trajectories(CudaGraphs) if whole and recorder else None,
        )

    def batches(self) -> Batches:
        """This rank's training batches."""
        return Batches(
            self.images("train"),
            self.config["trainer"]["batch_size"],
            self.config["seed"],
            self.config["dataset"]["flip"],
            self.ranks.rank,
            self.ranks.world,
        )

    def recipe(self, phase: str) -> Recipe:
        """How a phase is optimised: `optim`, with what `optim.phases.<phase>` says laid over it."""
        own = self.config["optim"]["phases"].get(phase, {})
        optim: Any = OmegaConf.to_container(OmegaConf.merge(self.config["optim"], own))
        return Recipe(
            optimizer=instantiate(optim["optimizer"]),
            lr=optim["lr"],
            schedule=instantiate(optim["decay"]),
            clip=optim["clip"],
        )

    def plan(self, generator: Generator) -> Plan:
        """The generator's phases with their optimizers."""
        trainer = self.config["trainer"]
        computation = Computation(
            device=self.device,
            autocast=autocast_type(trainer["precision"]),
            accumulate=trainer["accumulate"],
            seed=self.config["seed"],
            ranks=self.ranks,
        )
        plan = Plan(generator, self.recipe, computation)
        if unknown := sorted(set(self.config["optim"]["phases"]) - set(plan.optimisations)):
            known = ", ".join(plan.optimisations)
            raise UserError(f"optim.phases has {', '.join(unknown)}; this model's phases are {known}.")
        return plan

    def average(self, generator: Generator) -> Average | None:
        """The moving average of the weights, where the configuration wants one."""
        rule = self.config["ema"]
        return None if not rule.get("_target_") else Average(generator, instantiate(rule))


def build_sampler(config: Mapping[str, Any]) -> Sampler:
    """The sampler that a configuration node describes; UserError as of `build`."""
    return build({key: value for key, value in config.items() if key not in SHARED}, "sampler")


def build(config: Mapping[str, Any], what: str) -> Any:
    """What a configuration node describes. Raises UserError, naming `what`, where it cannot be made."""
    arguments = {key: value for key, value in config.items() if key not in DESCRIPTIVE}
    try:
        return instantiate(arguments, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        while cause.__cause__ is not None and not isinstance(cause, UserError):
            cause = cause.__cause__  # what a nested part said stands behind the names of those around it
        if isinstance(cause, UserError):
            raise cause from None
        inside = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
        place = f" (at {inside[1]})" if inside else ""
        absent = isinstance(cause, ModuleNotFoundError) and not str(cause.name).startswith("genbench")
        hint = "; if it is yours, type PYTHONPATH=DIR before the command, else install it" if absent else ""
        raise UserError(
            f"The {what} could not be built from its configuration{place}: {cause}{hint}"
        ) from error


def parameter_count(generator: Generator) -> int:
    """Numbers in a generator's parameters."""
    return sum(parameter.numel() for parameter in generator.parameters())
