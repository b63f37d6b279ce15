"""Laws that are fitted to the codes of an autoencoder and then drawn from.

    Gaussian    z = m + L n                        m, L L^T: mean and covariance of the codes
    mixture     z = m_c + L_c n,   P(c) = w_c      fitted by expectation maximisation

with n ~ N(0, I). Fitting is in float64; what is kept is float32. A draw is a function of its image's own
normals and uniform, computed in float64 and rounded once, so that it cannot be told in which batch it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genbench.contracts import Fitted, UserError

RIDGE = 1e-6
"""Added to the diagonal of a covariance, times its mean: dimensions that a code does not use have variance 0,
and a covariance then has no Cholesky factor. A thousandth of a standard deviation, seen in no image."""


class Prior(ABC):
    """A law over codes of D dimensions."""

    @abstractmethod
    def fit(self, codes: Tensor) -> Fitted:
        """Named float32 tensors that describe the law of codes [N, D]."""

    @abstractmethod
    def standard(self, dimension: int) -> Fitted:
        """The same tensors for N(0, I) in so many dimensions."""

    @abstractmethod
    def place(self, fitted: Fitted, normals: Tensor, uniform: Tensor) -> Tensor:
        """Draws [B, D], float32, from standard normals [B, D] and uniforms [B] in (0, 1)."""


class GaussianPrior(Prior):
    """One Gaussian with a full covariance. Tensors: mean [D], factor [D, D] (lower triangular)."""

    def fit(self, codes: Tensor) -> Fitted:
        ridge = _ridge(codes)
        codes = codes.double()
        covariance = (
            codes.T.cov(correction=0) if codes.shape[1] > 1 else codes.var(correction=0).reshape(1, 1)
        )
        covariance.diagonal().add_(ridge)
        return {"mean": codes.mean(dim=0).float(), "factor": torch.linalg.cholesky(covariance).float()}

    def standard(self, dimension: int) -> Fitted:
        return {"mean": torch.zeros(dimension), "factor": torch.eye(dimension)}

    def place(self, fitted: Fitted, normals: Tensor, uniform: Tensor) -> Tensor:
        return _affine(fitted["mean"], fitted["factor"], normals)


class MixturePrior(Prior):
    """A mixture of Gaussians with full covariances (Ghosh et al. 2020 use ten).

    Tensors: weights [K], means [K, D], factors [K, D, D] (lower triangular). seed: of the initialisation by
    k-means, which is random. Raises UserError where there are fewer codes than components.
    """

    def __init__(self, components: int = 10, seed: int = 0) -> None:
        self.components = components
        self.seed = seed

    def fit(self, codes: Tensor) -> Fitted:
        from sklearn.mixture import GaussianMixture

        if not 1 <= self.components <= len(codes):
            raise UserError(
                f"a mixture of {self.components} components cannot be fitted to {len(codes)} codes; lower "
                "prior.components or raise sampler.codes"
            )
        mixture = GaussianMixture(self.components, reg_covar=_ridge(codes), random_state=self.seed)
        mixture.fit(codes.double().cpu().numpy())
        covariances = torch.from_numpy(mixture.covariances_).to(codes.device)
        return {
            "weights": torch.from_numpy(mixture.weights_).float().to(codes.device),
            "means": torch.from_numpy(mixture.means_).float().to(codes.device),
            "factors": torch.linalg.cholesky(covariances).float(),
        }

    def standard(self, dimension: int) -> Fitted:
        count = self.components
        return {
            "weights": torch.full((count,), 1 / count),
            "means": torch.zeros(count, dimension),
            "factors": torch.eye(dimension).repeat(count, 1, 1),
        }

    def place(self, fitted: Fitted, normals: Tensor, uniform: Tensor) -> Tensor:
        edges = fitted["weights"].double().cumsum(0)
        # Weights rounded to float32 sum to 1 only nearly; a uniform beyond the last edge is the last one's.
        component = torch.searchsorted(edges[:-1] / edges[-1], uniform.double(), right=True)
        z = torch.empty_like(normals)
        for number in component.unique().tolist():
            rows = component == number
            z[rows] = _affine(fitted["means"][number], fitted["factors"][number], normals[rows])
        return z


def _affine(mean: Tensor, factor: Tensor, normals: Tensor) -> Tensor:
    return (mean.double() + normals.double() @ factor.double().T).float()


def _ridge(codes: Tensor) -> float:
    """`RIDGE` times the mean variance of the codes [N, D]. Raises UserError where they do not vary."""
    variance = float(codes.double().var(dim=0, correction=0).mean())
    if not variance > 0:
        raise UserError(
            f"All {len(codes)} codes are the same, so no prior can be fitted to them: the encoder has "
            "collapsed. A lighter penalty may help: model.code.weight."
        )
    return RIDGE * variance
