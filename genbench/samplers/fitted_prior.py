"""Ex-post density estimation: a law fitted to the codes of training images, then decoded from.

    fit:    z_i = code(E(x_i)) for training images x_i, each once;   q fitted to the z_i
    draw:   z ~ q,   x = D(z)

(Ghosh et al. 2020, section 4.) An autoencoder whose codes are not N(0, I) is sampled where its codes are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from genbench.contracts import Autoencodes, Batch, Fitted, Generator, Sampler, Samples, UserError
from genbench.ops.random import Randomness, Stream
from genbench.samplers.counting import Counted
from genbench.samplers.priors import Prior


class FittedPrior(Sampler):
    """Fits `prior` to the codes of at most `codes` training images and decodes draws from it.

    A model with several latents has them flattened side by side into one code. Where the encoder is
    random, a code is a draw: what the decoder has been given in training. With a prior N(0, I) the images are
    those of `Decode` at temperature 1.
    """

    needs = Autoencodes

    def __init__(self, prior: Prior, codes: int) -> None:
        if codes < 2:
            raise UserError(f"a prior is fitted to two codes or more, found sampler.codes={codes}")
        self.prior = prior
        self.codes = codes

    def evaluations(self) -> int:
        return 1

    @torch.no_grad()
    def fit(self, model: Generator, batches: Iterable[Batch], randomness: Randomness) -> Fitted:
        """The prior's tensors, from batches until an image returns, `codes` are had, or there are no more.

        `randomness` serves the images of one batch.
        """
        if not isinstance(model, Autoencodes):
            raise UserError("a prior is fitted to codes, and this model has no encoder; type sampler=decode")
        collected: list[Tensor] = []
        seen: set[int] = set()
        for batch in batches:
            new = []
            for row, image in enumerate(batch.index.tolist()):
                if image not in seen:
                    seen.add(image)
                    new.append(row)
            latents = model.encode(batch.images, batch.labels, randomness)
            collected.append(torch.cat([z.flatten(1) for z in latents], dim=1)[new])
            if len(new) < len(batch.index) or len(seen) >= self.codes:
                break
        if len(seen) < 2:
            raise UserError(f"a prior is fitted to two codes or more, found {len(seen)} training images")
        return self.prior.fit(torch.cat(collected)[: self.codes])

    def placeholder(self, model: Any) -> Fitted:
        return self.prior.standard(sum(math.prod(shape) for shape in model.latent_shapes))

    def __call__(
        self,
        model: Autoencodes,
        randomness: Randomness,
        labels: Tensor | None = None,
        fitted: Fitted | None = None,
    ) -> Samples:
        if not fitted:
            raise UserError(
                "the sampler fitted_prior draws from a law fitted to training codes, and was given none; "
                "evaluate a run with sampler=fitted_prior, which fits it first, or use sampler=decode"
            )
        counted = Counted(model, randomness.batch)
        shapes = model.latent_shapes
        # The very normals of Decode: with a standard normal prior the two agree image by image.
        normals = [randomness.normal(shape, step, Stream.DECODE) for step, shape in enumerate(shapes)]
        uniform = randomness.uniform((), stream=Stream.TERMINAL)
        z = self.prior.place(fitted, torch.cat([n.flatten(1) for n in normals], dim=1), uniform)
        pieces = z.split([math.prod(shape) for shape in shapes], dim=1)
        latents = [piece.reshape(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return Samples(counted.decode(latents, labels), counted.nfe)
