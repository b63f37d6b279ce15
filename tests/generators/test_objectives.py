"""What critics and generators play for."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from genbench.contracts import UserError
from genbench.divergences import table
from genbench.divergences.divergence import Divergence
from genbench.divergences.heads import Activation, LogRatio
from genbench.generators.designed import Designed, Hinge, LeastSquares, LinearGenerator, NonSaturating
from genbench.generators.objectives import Saddle, Trick, Variational

V = torch.linspace(-3, 3, 7, dtype=torch.float64)


def test_the_gan_row_is_the_first_gan():
    """Goodfellow et al. 2014: log D on real, log(1 - D) on made images; both generators."""
    saddle = Variational(table.GAN(), Activation(), Saddle())
    trick = Variational(table.GAN(), Activation(), Trick())
    probability = torch.sigmoid(V)
    critic = -(probability.log().mean() + (1 - probability.flip(0)).log().mean())
    torch.testing.assert_close(saddle.critic_loss(V, V.flip(0)), critic)
    torch.testing.assert_close(saddle.generator_loss(V), (1 - probability).log().mean())
    torch.testing.assert_close(trick.generator_loss(V), -probability.log().mean())


def test_the_critics_loss_is_minus_the_bound():
    """With the best critic, the log-ratio of two Gaussians a unit apart, the bound is the divergence."""
    torch.manual_seed(0)
    objective = Variational(table.KL(), LogRatio(), Saddle())
    real, fake = torch.randn(400_000, dtype=torch.float64) + 1, torch.randn(400_000, dtype=torch.float64)
    ratio = lambda x: x - 0.5
    bound = -objective.critic_loss(ratio(real), ratio(fake))
    assert abs(float(bound) - 0.5) < 5 * (1 + math.sqrt(math.e - 1)) / math.sqrt(400_000)
    assert float(objective.report(ratio(real), ratio(fake))["bound"]) == float(bound)


def test_both_generator_losses_push_the_critics_output_up():
    for row in (table.KL(), table.ReverseKL(), table.Pearson(), table.JensenShannon(), table.Jeffreys()):
        for loss in (Saddle(), Trick()):
            v = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_(True)
            Variational(row, Activation(), loss).generator_loss(v).backward()
            assert (v.grad < 0).all(), (row.name, loss)


def test_a_head_that_does_not_fit_is_refused_when_the_objective_is_made():
    class Triangular(Divergence):
        name = "triangular"

        def f(self, u):
            return (u - 1) ** 2 / (u + 1)

        def slope(self, u):
            return (u - 1) * (u + 3) / (u + 1) ** 2

    with pytest.raises(UserError, match="head=log_ratio"):
        Variational(Triangular(), Activation(), Trick())
    with pytest.raises(UserError, match="head=activation"):
        Variational(table.TotalVariation(), LogRatio(), Trick())
    Variational(Triangular(), LogRatio(), Trick())


@pytest.mark.parametrize("kind", [NonSaturating, LinearGenerator, LeastSquares])
def test_the_designed_objectives_fulfil_their_familys_conditions(kind):
    kind().verify()


@pytest.mark.parametrize("kind", [NonSaturating, LeastSquares])
def test_the_best_critic_of_a_designed_objective_is_omega_of_the_ratio(kind):
    """Over three points with known p and q, gradient ascent ends at T = omega(q / p)."""
    p, q = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([0.6, 0.1, 0.3]).double()
    objective = kind()
    t = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([t], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = -(p * objective.phi(t) + q * objective.psi(t)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(t.detach(), objective.omega(q / p), atol=1e-6, rtol=0)


def test_designed_objectives_are_the_published_ones():
    made = NonSaturating()
    # T is the logit of "made": a classifier's loss, less what equal sets would cost.
    expected = F.softplus(V).mean() + F.softplus(-V).mean() - 2 * math.log(2)
    torch.testing.assert_close(made.critic_loss(V, V), expected)
    torch.testing.assert_close(made.generator_loss(V), F.softplus(V).mean())
    squares = LeastSquares()
    expected = ((V + 1) ** 2).mean() / 2 + ((V - 1) ** 2).mean() / 2 - 1
    torch.testing.assert_close(squares.critic_loss(V, V), expected)
    torch.testing.assert_close(squares.generator_loss(V), (V**2).mean() / 2)
    torch.testing.assert_close(LinearGenerator().generator_loss(V), V.mean())


def test_an_objective_outside_the_family_is_named_with_what_is_wrong():
    class Wrong(LeastSquares):
        def phi(self, t):
            return -(t + 1).square()

    with pytest.raises(UserError, match="phi' must be"):
        Wrong().verify()

    class Concave(NonSaturating):
        def beta(self, t):
            return -F.softplus(t)

    with pytest.raises(UserError, match="must be convex"):
        Concave().verify()

    class Falling(NonSaturating):
        def omega(self, r):
            return -r.log()

    with pytest.raises(UserError, match="omega must increase"):
        Falling().verify()
    assert issubclass(Falling, Designed)


def test_the_hinge_stops_at_a_margin_of_one():
    hinge = Hinge()
    assert float(hinge.critic_loss(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0]))) == 0
    assert float(hinge.critic_loss(torch.tensor([0.0]), torch.tensor([0.0]))) == 2
    assert float(hinge.generator_loss(torch.tensor([2.0, 4.0]))) == -3
