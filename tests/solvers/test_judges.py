"""An oracle's judge knows perfect samples, and how far others are from them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from genbench.contracts import Denoises, Sampler, Samples, UserError
from genbench.corruptions.continuous import VP
from genbench.corruptions.gaussian import Gaussian
from genbench.generators.oracles import GaussianOracle, MixtureOracle
from genbench.solvers.judges import OracleJudge

MODEL = MixtureOracle(Gaussian(VP()), [[[[-0.6]]], [[[0.5]]]], [0.1, 0.2], [0.3, 0.7])
CPU = torch.device("cpu")
EVERY = {"batch_size": 500}


@dataclass
class Shifted(Sampler):
    """Exact draws, moved."""

    shift: float
    needs = Denoises

    def __call__(self, model, randomness, labels=None, fitted=None) -> Samples:
        return Samples(model.sample(randomness) + self.shift, torch.arange(randomness.batch))


def test_perfect_samples_reach_the_floor_and_others_do_not():
    judge = OracleJudge(MODEL, 2000, 3, CPU)
    perfect, moved = judge(Shifted(0.0), EVERY), judge(Shifted(0.3), EVERY)
    assert perfect.value < 2.5 * judge.floor
    assert moved.value == pytest.approx(0.3, abs=2.5 * judge.floor)
    assert (moved.nfe_mean, moved.nfe_max) == (249.5, 499)
    assert moved.floor == judge.floor


def test_batches_change_no_verdict():
    judge = OracleJudge(MODEL, 40, 3, CPU)
    assert judge(Shifted(0.1), EVERY).value == judge(Shifted(0.1), {"batch_size": 7}).value


def test_the_floor_falls_like_the_root_of_the_count():
    few, many = (OracleJudge(MODEL, count, 0, CPU).floor for count in (500, 8000))
    assert few / many == pytest.approx(4, rel=0.5)


def test_a_model_without_a_known_law_has_no_such_judge():
    with pytest.raises(UserError, match="run_dir=PATH"):
        OracleJudge(torch.nn.Linear(1, 1), 10, 0, CPU)  # type: ignore[arg-type]


def test_other_oracles_have_laws_too():
    assert OracleJudge(GaussianOracle(Gaussian(VP()), (1, 2, 2), mean=0.3, std=0.5), 500, 0, CPU).floor < 0.1
