"""Chains over grey levels against products of their steps' matrices, their bridges against Bayes' rule."""

from __future__ import annotations

import copy
import math
from itertools import combinations

import pytest
import torch

from genbench.contracts import Posterior, UserError
from genbench.corruptions.chains import Absorbing, CosineKeep, DiscretisedGaussian, LinearKeep, Uniform
from genbench.corruptions.continuous import VP
from genbench.corruptions.gaussian import Gaussian
from genbench.corruptions.rules import Bridge, Joint, Mixed
from genbench.corruptions.tokens import one_hot, tokens, values
from genbench.ops.random import Keys
from genbench.samplers.draws import Apart, Mean
from genbench.samplers.grids import Uniform as Grid
from genbench.samplers.restore import Restore

V, T = 5, 6
LEVELS = torch.arange(V)
LAW = torch.tensor([0.3, 0.05, 0.25, 0.0, 0.4], dtype=torch.float64)
CHAINS = [
    Uniform(V, LinearKeep(), T),
    Uniform(V, CosineKeep(), T),
    Absorbing(V, LinearKeep(), T),
    Absorbing(V, CosineKeep(), T),
    DiscretisedGaussian(V, T, 0.05, 0.6),
]
every_chain = pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: type(chain).__name__)
PAIRS = list(combinations(range(T + 1), 2))


def time(index) -> torch.Tensor:
    return torch.as_tensor(index, dtype=torch.float64) / T


def cosine(t: float) -> float:
    return math.cos((t + 0.008) / 1.008 * math.pi / 2)


def single_steps(chain) -> list[torch.Tensor]:
    """Q_1 ... Q_T as Austin et al. (2021) write them (appendix A), float64."""
    if isinstance(chain, DiscretisedGaussian):
        betas = [0.05 + i * 0.55 / (T - 1) for i in range(T)]
        return [gaussian_step(V, beta) for beta in betas]
    linear = isinstance(chain.keep, LinearKeep)
    betas = [1 / (T - i + 1) if linear else 1 - cosine(i / T) / cosine((i - 1) / T) for i in range(1, T + 1)]
    end = torch.full((V, V), 1 / V) if isinstance(chain, Uniform) else one_hot(torch.full((V,), V // 2), V)
    return [(1 - beta) * torch.eye(V, dtype=torch.float64) + beta * end.double() for beta in betas]


def gaussian_step(levels: int, beta: float) -> torch.Tensor:
    weight = lambda n: math.exp(-4 * n**2 / ((levels - 1) ** 2 * beta))
    total = sum(weight(n) for n in range(-levels + 1, levels))
    off = [[weight(i - j) / total * (i != j) for j in range(levels)] for i in range(levels)]
    return torch.tensor(off).double() + torch.diag(torch.tensor([1 - sum(row) for row in off]).double())


def transition(chain, s: int, t: int) -> torch.Tensor:
    """Rows: x_s; columns: x_t."""
    product = torch.eye(V, dtype=torch.float64)
    for step in single_steps(chain)[s:t]:
        product = product @ step
    return product


def posterior(chain, s: int, t: int) -> torch.Tensor:
    """q(x_s | x_t, x_0) by Bayes' rule, [x_t, x_0, x_s]; NaN where x_t cannot come from x_0."""
    joint = transition(chain, 0, s)[None] * transition(chain, s, t).T[:, None]
    return joint / joint.sum(dim=-1, keepdim=True)


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one channel with every x_t (downwards) beside every x_0 (across), [1, 1, V, V]."""
    x_t, x_0 = torch.meshgrid(LEVELS, LEVELS, indexing="ij")
    return values(x_t, V)[None, None], values(x_0, V)[None, None]


def normal(law: torch.Tensor) -> torch.Tensor:
    return law.double() / law.double().sum(dim=-1, keepdim=True)


def bridged(chain, s: int, t: int) -> torch.Tensor:
    """The code's q(x_s | x_t, x_0), [x_t, x_0, x_s]."""
    x_t, x_0 = every_pair()
    return normal(chain.bridge(x_t, Posterior(x_0), time(s), time(t)).probabilities)[0, 0]


def same(found: torch.Tensor, expected: torch.Tensor, possible: torch.Tensor | None = None) -> None:
    """Equal to the accuracy of float32, where `possible`."""
    if possible is not None:
        found, expected = found[possible], expected[possible]
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=5e-7)


@every_chain
def test_laws_forward_are_products_of_steps(chain):
    """Qbar_t, for one time and for one an image; its rows sum to 1, and at t = 0 nothing has happened."""
    eye = torch.eye(V)
    expected = torch.stack([transition(chain, 0, t) for t in range(T + 1)])
    for t in range(T + 1):
        same(chain.forward(eye[None], time(t))[0], expected[t])
    together = chain.forward(eye.expand(T + 1, 2, V, V), time(range(T + 1)))
    same(together, expected[:, None].expand(-1, 2, -1, -1))
    same(together.sum(dim=-1), torch.ones(T + 1, 2, V))
    assert torch.equal(together[0, 0], eye)


@every_chain
def test_columns_are_of_the_product_between_two_times(chain):
    """q(x_t | x_s = k) for every s < t: neighbours, whole pasts, others; alone and mixed in one batch."""
    expected = torch.stack([transition(chain, s, t).T for s, t in PAIRS])
    for (s, t), column in zip(PAIRS, expected, strict=True):
        same(chain.column(LEVELS[None], time(s), time(t))[0], column)
    s, t = map(time, zip(*PAIRS, strict=True))
    found = chain.column(LEVELS.expand(len(PAIRS), 2, V), s, t)
    same(found, expected[:, None].expand(-1, 2, -1, -1))


@every_chain
def test_columns_of_neighbours_and_of_whole_pasts_in_a_batch(chain):
    """A batch in training has one of these two kinds of pairs alone."""
    ends = time(range(1, T + 1))
    x = LEVELS.expand(T, V)
    steps = torch.stack([transition(chain, t - 1, t).T for t in range(1, T + 1)])
    pasts = torch.stack([transition(chain, 0, t).T for t in range(1, T + 1)])
    same(chain.column(x, ends - 1 / T, ends), steps)
    same(chain.column(x, torch.zeros_like(ends), ends), pasts)


def test_uniform_chains_have_a_closed_form():
    """Qbar = abar I + (1 - abar) 11' / K, abar the product of 1 - beta (Austin et al. 2021, appendix A.2)."""
    chain = Uniform(V, CosineKeep(), T)
    kept = 1.0
    for t in range(1, T + 1):
        kept *= cosine(t / T) / cosine((t - 1) / T)
        expected = kept * torch.eye(V) + (1 - kept) / V
        same(chain.forward(torch.eye(V)[None], time(t))[0], expected)


def test_the_cosine_is_not_squared():
    """Half way .7027, where Improved DDPM's cos^2 has .4938 (Austin et al. 2021, section 4)."""
    keep = CosineKeep()
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    expected = torch.tensor([cosine(float(s)) / cosine(0) for s in t], dtype=torch.float64)
    found = keep(t)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found[2].item() == pytest.approx(0.7027, abs=1e-4)
    assert found[0].item() == 1.0


@pytest.mark.parametrize(("levels", "beta"), [(3, 0.5), (256, 1e-4), (256, 0.02)])
def test_the_discretised_gaussian_is_doubly_stochastic(levels, beta):
    """And symmetric, its diagonal no less than what lies beside it, by the formula (eq. 8 of appendix A)."""
    chain = DiscretisedGaussian(levels, 2, beta, beta)
    grey = torch.arange(levels)[None]
    step = chain.column(grey, time(0) * T / 2, time(1) * T / 2)[0].double()
    both = chain.forward(torch.eye(levels)[None], torch.ones(()).double())[0].double()
    expected = gaussian_step(levels, beta)
    same(step, expected)
    same(both, expected @ expected)
    for matrix in (step, both):
        assert matrix.min() >= 0
        same(matrix, matrix.T)
        same(matrix.sum(dim=0), torch.ones(levels))
        same(matrix.sum(dim=1), torch.ones(levels))
    assert bool((step.diagonal()[1:] >= step.diagonal(1)).all())


def test_a_gaussian_step_by_hand():
    """V = 3, beta = 1: e^-1 to a neighbour and e^-4 across, over 1 + 2 e^-1 + 2 e^-4."""
    chain = DiscretisedGaussian(3, 1, 1.0, 1.0)
    near, far = math.exp(-1), math.exp(-4)
    total = 1 + 2 * near + 2 * far
    found = chain.forward(torch.eye(3)[None], torch.ones(()).double())[0]
    row, middle = [near / total, far / total], near / total
    expected = [
        [1 - sum(row), *row],
        [middle, 1 - 2 * middle, middle],
        [*row[::-1], 1 - sum(row)],
    ]
    same(found, torch.tensor(expected))


def test_times_are_found_despite_rounding():
    """Times 1,000, t - 1/1000 is not always whole: each of 1,000 steps has its own matrix all the same."""
    steps = 1000
    chain = DiscretisedGaussian(2, steps, 0.6, 2.0)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    before, after = (chain.forward(torch.eye(2).expand(steps, 2, 2), time) for time in (t - 1 / steps, t))
    betas = torch.linspace(0.6, 2.0, steps, dtype=torch.float64)
    expected = torch.stack([gaussian_step(2, float(beta)) for beta in betas])
    same(before.double() @ expected, after)
    same(chain.column(torch.arange(2).expand(steps, 2), t - 1 / steps, t), expected)


def test_absorbed_by_t_and_left_by_one_in_t():
    """beta_t = 1 / (T - t + 1) absorbs t / T by step t, and a step back from t leaves with chance 1 / t."""
    steps = 1000
    chain = Absorbing(4, LinearKeep(), steps)
    index = torch.arange(1, steps + 1, dtype=torch.float64)
    t, s = index / steps, index / steps - 1 / steps
    grey = torch.tensor([0, 1, 3]).expand(steps, 3)
    same(chain.forward(one_hot(grey, 4), t)[..., 2], t[:, None].expand(-1, 3))
    absorbed = values(torch.full((steps, 3), 2), 4)
    back = normal(chain.bridge(absorbed, Posterior(values(grey, 4)), s, t).probabilities)
    left = back.gather(-1, grey[..., None])[..., 0]
    # 1 - s / t is a difference of float32 numbers of order 1 where t is small against T.
    torch.testing.assert_close(left, (1 / index)[:, None].expand(-1, 3), rtol=1e-4, atol=1e-6)
    same(left + back[..., 2], torch.ones(steps, 3))


@every_chain
def test_the_bridge_is_bayes_rule(chain):
    for s, t in PAIRS:
        same(bridged(chain, s, t), posterior(chain, s, t), transition(chain, 0, t).T > 0)


@every_chain
def test_a_bridge_to_the_data_is_the_data(chain):
    for t in range(1, T + 1):
        possible = transition(chain, 0, t).T > 0
        same(bridged(chain, 0, t), torch.eye(V).expand(V, V, V), possible)


@every_chain
@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_a_bridge_of_logits_is_the_mixture_over_x0(chain, s, t):
    """Of an x0 that can have become x_t; and with a time for every image the same as one by one."""
    reach = transition(chain, 0, t).T
    share = LAW * (reach > 0)
    share = share / share.sum(dim=-1, keepdim=True)
    seen = share.isfinite().all(dim=-1)
    expected = torch.einsum("tx,txs->ts", share, posterior(chain, s, t).nan_to_num())
    x_t = values(LEVELS[None, None, None], V)
    logits = share.log().float()[None, None, None] + 3
    found = normal(chain.bridge(x_t, Posterior(x_t, logits=logits), time(s), time(t)).probabilities)
    same(found[0, 0, 0], expected, seen)
    times = torch.stack([time([s] * 2), time([t] * 2)])
    x_t, logits = x_t.expand(2, 1, 1, V), logits.expand(2, 1, 1, V, V)
    batched = normal(chain.bridge(x_t, Posterior(x_t, logits=logits), *times).probabilities)
    same(batched[1, 0, 0], found[0, 0, 0], seen)


@every_chain
@pytest.mark.parametrize(("s", "u", "t"), [(0, 1, 2), (1, 2, 4), (2, 3, 6), (1, 5, 6), (3, 4, 5)])
def test_bridges_compose(chain, s, u, t):
    """From t to u and on to s is from t to s, x0 being known (Chapman and Kolmogorov's equation)."""
    onward, back = bridged(chain, u, t), bridged(chain, s, u)  # [x_t, x0, x_u], [x_u, x0, x_s]
    composed = torch.einsum("txu,uxs->txs", onward, back)
    same(composed, bridged(chain, s, t), transition(chain, 0, t).T > 0)


@every_chain
@pytest.mark.parametrize("rule", [Bridge(), Mixed(1.0)])
def test_marginals_are_kept_given_the_true_x0(chain, rule):
    """x_t ~ q(x_t | x0) through the kernel is q(x_s | x0): condition (*) of kexue.fm 9262, by sums."""
    x_t, x_0 = every_pair()
    for s, t in PAIRS:
        kernel = normal(rule.law(chain, x_t, Posterior(x_0), time(s), time(t)).probabilities)[0, 0]
        same(torch.einsum("xt,txs->xs", transition(chain, 0, t), kernel), transition(chain, 0, s))


@every_chain
def test_trajectories_and_steps_back_have_their_laws(chain):
    """Drawn pixels: x_t = F_t(x0, noise), then x_s by the bridge; their pairs have the chain's joint law.

    Within five standard errors of 4,000 images, of each pair that is to come 25 times or more and of the
    rest together; what is impossible never comes.
    """
    count, s, t = 4000, 2, 4
    keys = Keys(torch.arange(count), 0)
    x0 = values(LEVELS.expand(count, 1, 1, V), V)
    x_t = chain.apply(x0, chain.draw(x0.shape, keys), time(t))
    x_s = chain.bridge(x_t, Posterior(x0), time(s), time(t)).sample(keys, 0)
    pairs = (V * tokens(x_s, V) + tokens(x_t, V))[:, 0, 0]
    found = one_hot(pairs, V * V).double().mean(dim=0)  # [x_0, (x_s, x_t)]
    expected = (transition(chain, 0, s)[:, :, None] * transition(chain, s, t)).flatten(1)
    assert float(found[expected == 0].sum()) == 0
    rare = expected * count < 25
    errors = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 5 * errors)[~rare].all())
    assert abs(float((found - expected)[rare].sum())) <= 5 * float(errors[rare].norm())


@every_chain
def test_an_image_at_t_is_a_function_of_its_noise(chain):
    """x0 itself at t = 0, and in a batch of many times what it is alone."""
    keys = Keys(torch.arange(T + 1), 0)
    torch.manual_seed(0)
    x0 = values(torch.randint(0, V, (T + 1, 2, 3, 3)), V)
    noise, t = chain.draw(x0.shape, keys), time(range(T + 1))
    together = chain.apply(x0, noise, t)
    assert torch.equal(together[0], x0[0])
    for i in range(T + 1):
        assert torch.equal(together[i], chain.apply(x0[i : i + 1], noise[i : i + 1], t[i])[0])


def reverse(chain, law: torch.Tensor, rule) -> torch.Tensor:
    """What a sampler on all T times ends with whose p(x0 | x_t) is exact for data of `law`, by sums."""
    levels, steps = chain.levels, chain.steps
    x_t = torch.arange(levels)
    end = chain.stationary().double()
    for i in range(steps, 0, -1):
        s, t = (torch.tensor(j / steps, dtype=torch.float64) for j in (i - 1, i))
        reach = chain.column(x_t[None], torch.zeros_like(t), t)[0].double()
        logits = (law * reach).log().float()[None]
        back = rule.law(chain, values(x_t, levels)[None], Posterior(x_t[None], logits=logits), s, t)
        kernel = normal(back.probabilities)[0]
        end = end @ kernel.nan_to_num()  # an x_t that no x0 leads to has no posterior, and weighs nothing
    return end


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("kind", [Uniform, Absorbing])
@pytest.mark.parametrize("keep", [LinearKeep(), CosineKeep()])
def test_an_exact_posterior_gives_the_data(kind, keep, steps):
    """By the bridge, in any number of steps (kexue.fm 9262)."""
    same(reverse(kind(V, keep, steps), LAW, Bridge()), LAW)


def test_an_exact_posterior_gives_the_data_of_gaussian_chains():
    """Where all is forgotten at t = 1, as after these steps."""
    chain = DiscretisedGaussian(V, 30, 0.3, 3.0)
    same(reverse(chain, LAW, Bridge()), LAW)


class Exact:
    """The exact posterior of one pixel of LAW."""

    image_shape = (1, 1, 1)

    def __init__(self, chain) -> None:
        self.corruption = chain

    def denoise(self, x_t, t, labels=None):
        reach = self.corruption.column(tokens(x_t, V), torch.zeros_like(t), t).double()
        return Posterior(x_t, logits=(LAW * reach).log().float())


@pytest.mark.parametrize("draw", [Mean(), Apart()])
@pytest.mark.parametrize("kind", [Uniform, Absorbing])
@pytest.mark.parametrize(("steps", "of"), [(1, T), (4, T), (4, None)])
def test_samplers_with_an_exact_posterior_draw_the_data(kind, steps, of, draw):
    """By all that the posterior says or by a draw of it, in any number of steps of discrete and continuous
    time; 20,000 images, five standard errors."""
    count = 20_000
    sampler = Restore(steps, Grid(), Bridge(), clip=False, draw=draw)
    x0 = sampler(Exact(kind(V, CosineKeep(), of)), Keys(torch.arange(count), 0)).images
    found = one_hot(tokens(x0, V).flatten(), V).double().mean(dim=0)
    assert bool(((found - LAW).abs() <= 5 * (LAW * (1 - LAW) / count).sqrt()).all())


@pytest.mark.parametrize(
    ("steps", "expected"), [(2, [0.54, 0.3127, 0.1473, 0.0]), (400, [0.483, 0.327, 0.190, 0.0])]
)
def test_the_published_weighting_is_not_of_a_posterior(steps, expected):
    """With the exact p(x0 | x_t) D3PM's joint weighting returns (.483, .327, .190, 0) of (.6, .3, .1, 0).

    Of two steps by hand: at t = 1/2 half are kept, so that p(x_t) = (.425, .275, .175, .125), as of the exact
    chain after one step from pure noise. The second weighs p(x0) by the square of 5 or 1 eighths:
    .425 * 15 / 15.4 + .275 * .6 / 8.2 + .175 * .6 / 3.4 + .125 * .6 = .54.
    """
    law = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    found = reverse(Uniform(4, LinearKeep(), steps), law, Joint())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-3)
    same(reverse(Uniform(4, LinearKeep(), steps), law, Bridge()), law)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_absorbing_chains_can_be_weighted_either_way(steps):
    """Where no data are of the absorbing level, x_t reaches from all x0 alike, or from one."""
    law = torch.tensor([0.5, 0.2, 0.0, 0.3, 0.0], dtype=torch.float64)
    chain = Absorbing(V, LinearKeep(), steps)
    same(reverse(chain, law, Joint()), law)
    same(reverse(chain, law, Bridge()), law)


@pytest.mark.parametrize("chain", CHAINS[:4], ids=lambda chain: type(chain).__name__)
def test_nothing_is_left_at_the_end(chain):
    one = torch.ones((), dtype=torch.float64)
    same(chain.forward(torch.eye(V)[None], one)[0], chain.stationary().expand(V, V))
    same(chain.prior(values(LEVELS[None], V)), torch.zeros(1, V))


def test_what_is_left_at_the_end_of_gaussian_chains():
    """KL(q(x_1 | x0) || uniform) = log V - H, in nats, of every pixel by itself."""
    chain = CHAINS[-1]
    end = transition(chain, 0, T)
    expected = math.log(V) + (end * end.log()).sum(dim=-1)
    assert expected.max() > 0.1
    same(chain.prior(values(LEVELS.expand(2, 1, 1, V), V)), expected.expand(2, 1, 1, V))


@every_chain
def test_sampling_starts_from_the_law_of_the_end(chain):
    """Frequencies of 20,000 pixels within five standard errors, pixels apart from each other."""
    start = tokens(chain.terminal((5000, 1, 2, 2), Keys(torch.arange(5000), 0), {}), V)
    law = chain.stationary().double()
    for grey, expected in (
        (start, law),
        (V * start[..., 0] + start[..., 1], torch.outer(law, law).flatten()),
    ):
        found = one_hot(grey.flatten(), len(expected)).double().mean(dim=0)
        error = (expected * (1 - expected) / grey.numel()).sqrt()
        assert bool(((found - expected).abs() <= 5 * error).all())


def test_what_is_not_absorbed_is_known():
    """And of no other chain."""
    x_t = values(LEVELS[None], V)
    assert Absorbing(V, LinearKeep(), T).known(x_t).tolist() == [[True, True, False, True, True]]
    assert Uniform(V, LinearKeep(), T).known(x_t) is None


@pytest.mark.parametrize("s", [0, 1, 2])
def test_an_x0_that_cannot_have_become_x_t_is_gone_to_all_the_same(s):
    """A draw may be such a one. The law is then q(x_s | x0); zeros would stand for black pixels."""
    narrow = DiscretisedGaussian(256, T, 1e-4, 2e-4)
    x_t, x_0 = (values(torch.full((1, 1, 1, 1), grey), 256) for grey in (10, 200))
    found = narrow.bridge(x_t, Posterior(x_0), time(s), time(3)).probabilities
    same(found, narrow.forward(one_hot(tokens(x_0, 256), 256), time(s)))


def test_copies_of_gaussian_chains_share_their_tables():
    """As an average of weights is a deep copy of its model."""
    chain = CHAINS[-1]
    assert copy.deepcopy(chain).transitions is chain.transitions


def test_chains_that_are_none_are_refused():
    x, one = torch.zeros(1, 1, 2, 2), torch.ones((), dtype=torch.float64)
    with pytest.raises(UserError, match="2 grey levels"):
        Uniform(1, LinearKeep())
    with pytest.raises(UserError, match="rule=bridge"):
        Mixed(0.5).law(CHAINS[0], x, Posterior(x), one / 2, one)
    with pytest.raises(UserError, match=r"corruption\.steps=1000"):
        DiscretisedGaussian(V, None)
    continuous = Uniform(V, LinearKeep())
    with pytest.raises(UserError, match=r"corruption\.steps=1000"):
        continuous.check_bound()
    CHAINS[0].check_bound()
    with pytest.raises(UserError, match="rule=bridge"):
        Joint().check(Gaussian(VP()), one / 2, one)
    Joint().check(CHAINS[0], one / 2, one)
