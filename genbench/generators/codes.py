"""What the code of an autoencoder is, and what is asked of it: the one thing in which four models differ.

    h = E(x)   the encoder's output,     z the code that the decoder is given

    Plain          z = h                                no penalty                                AE
    SquaredNorm    z = h                                (w / 2) E ||z||^2                         RAE-L2
    Variational    z = mu + sigma eps, (mu, log sigma^2) = h     w E KL(N(mu, sigma^2) || N(0, I))   VAE
    Entropic       z = N(h), batch normalisation        -lambda H(z)                              EAE

(Ghosh et al. 2020; Kingma & Welling 2014; Ghose, Rashwan & Poupart 2020.) `Entropic` rests on a fact: of all
densities with mean 0 and variance 1 in each coordinate, N(0, I) has the largest entropy, (d / 2) log(2 pi e).
Batch normalisation *without* scale and shift gives the codes those moments, so that raising their entropy
makes them standard normal, which is what samples are then decoded from. (With a learnt scale the entropy
would have no upper bound.) Neither noise nor a prior enters; what a code owes to chance is its batch.

All this is computed in float32 or better, under autocast too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.contracts import Step, UserError
from genbench.generators.entropy import NearestNeighbourEntropy
from genbench.ops.neighbours import at_least_float32
from genbench.ops.random import Randomness, Stream

Coded = tuple[Tensor, Tensor, Mapping[str, Tensor]]
"""(z [B, d], penalty [], named scalars for the log)."""


class Code(nn.Module, ABC):
    """From the encoder's output h [B, d * outputs_per_dimension] to the code z [B, d]."""

    outputs_per_dimension = 1
    """How many numbers the encoder gives for each dimension of the code."""

    @abstractmethod
    def forward(self, h: Tensor, step: Step) -> Coded:
        """In training: the code, what is added to the loss (a mean over the batch), scalars for the log."""

    @abstractmethod
    def mean(self, h: Tensor) -> Tensor:
        """In evaluation: the code without chance, [B, d]; depends on no other row of h."""

    def draw(self, h: Tensor, randomness: Randomness) -> Tensor:
        """In evaluation: a code as the decoder is given it in training, [B, d]; else the mean."""
        return self.mean(h)


class Plain(Code):
    """z = h, and nothing is asked of it: a plain autoencoder (AE)."""

    def forward(self, h: Tensor, step: Step) -> Coded:
        h = at_least_float32(h)
        return h, h.new_zeros(()), {}

    def mean(self, h: Tensor) -> Tensor:
        return at_least_float32(h)


class SquaredNorm(Code):
    """z = h with penalty (weight / 2) E ||z||^2, in squared units of the code.

    The code of RAE-L2 (Ghosh et al. 2020); the other half of that model, the decay of the decoder's
    weights, is `Autoencoder`'s `decoder_decay`.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = _not_negative(weight)

    def forward(self, h: Tensor, step: Step) -> Coded:
        z = at_least_float32(h)
        squared = z.square().sum(dim=1).mean()
        return z, self.weight / 2 * squared, {"squared_norm": squared}

    def mean(self, h: Tensor) -> Tensor:
        return at_least_float32(h)


class Variational(Code):
    """z = mu + sigma eps with penalty weight * E KL(N(mu, diag sigma^2) || N(0, I)): a VAE.

    h holds mu in its first d columns and log sigma^2 in the others;
    KL = (1/2) sum_j (mu_j^2 + sigma_j^2 - log sigma_j^2 - 1), in nats.
    weight: with a reconstruction error ||x - x_hat||^2 it stands for 2 s^2, where s is the standard deviation
    of the decoder's Gaussian likelihood.
    """

    outputs_per_dimension = 2

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = _not_negative(weight)

    def forward(self, h: Tensor, step: Step) -> Coded:
        mu, log_variance = _halves(h)
        kl = 0.5 * (mu.square() + log_variance.exp() - log_variance - 1).sum(dim=1).mean()
        z = mu + (0.5 * log_variance).exp() * torch.randn_like(mu)
        return z, self.weight * kl, {"kl": kl}

    def mean(self, h: Tensor) -> Tensor:
        return _halves(h)[0]

    def draw(self, h: Tensor, randomness: Randomness) -> Tensor:
        mu, log_variance = _halves(h)
        noise = randomness.normal(mu.shape[1:], stream=Stream.NOISE).to(mu.dtype)
        return mu + (0.5 * log_variance).exp() * noise


class Entropic(Code):
    """z = N(h) with penalty -lambda H(z): the code of an entropic autoencoder (EAE).

    dimension: d; entropy: z [B, d] to nats; weight: lambda, reached linearly over the first `warmup` steps
    (0: at once). N is batch normalisation without scale and shift; in evaluation it uses running statistics,
    so that reconstructions differ slightly between training and evaluation.

    The entropy, and the batch that N sees, are those of each rank's own micro-batch: neighbours in a batch
    divided among ranks are further apart than in the whole one, and lambda is to be read together with the
    images a rank sees at once.
    """

    def __init__(
        self, dimension: int, entropy: NearestNeighbourEntropy, weight: float, warmup: int = 0
    ) -> None:
        super().__init__()
        if warmup < 0:
            raise UserError(f"the entropy's weight is warmed up over 0 or more steps, found warmup={warmup}")
        self.normalise = nn.BatchNorm1d(dimension, affine=False)
        self.entropy = entropy
        self.weight = _not_negative(weight)
        self.warmup = warmup

    def weight_at(self, step: Step) -> float:
        """lambda at a step."""
        return self.weight * (min(1.0, step.index / self.warmup) if self.warmup else 1.0)

    def forward(self, h: Tensor, step: Step) -> Coded:
        self.entropy.require(len(h))
        # On the normalised code: on h itself the bonus could be had by scaling alone.
        z = self.normalise(at_least_float32(h))
        entropy = self.entropy(z)
        return z, -self.weight_at(step) * entropy, {"entropy": entropy}

    def mean(self, h: Tensor) -> Tensor:
        norm = self.normalise
        return F.batch_norm(at_least_float32(h), norm.running_mean, norm.running_var, eps=norm.eps)


def _halves(h: Tensor) -> tuple[Tensor, Tensor]:
    mu, log_variance = at_least_float32(h).chunk(2, dim=1)
    return mu, log_variance


def _not_negative(weight: float) -> float:
    if weight < 0:
        raise UserError(f"the weight of a code's penalty is 0 or more, found model.code.weight={weight}")
    return weight
