"""Fitting a sampler: what is handed out, and what is shown of it."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genbench.data.images import ImageSet
from genbench.harness.fitting import FIT_BATCH, fit


def fitted(taken: int, leads: bool = True):
    """The mean of the first `taken` batches, of a training split of 1,000 images."""
    images = torch.randint(0, 256, (1000, 1, 2, 2), dtype=torch.uint8, generator=torch.manual_seed(0))
    read = []

    def split(name: str) -> ImageSet:
        read.append(name)
        return ImageSet("noise", name, images, None, 0, 256, "", {})

    def fit_to(model, batches, randomness):
        return {"mean": sum((batch.images.mean() for batch in islice(batches, taken)), torch.zeros(()))}

    ranks = SimpleNamespace(leads=leads, broadcast=lambda tensors: None)
    assembly = SimpleNamespace(images=split, config={"seed": 0}, ranks=ranks, device=torch.device("cpu"))
    return fit(SimpleNamespace(fit=fit_to), nn.Identity(), assembly)["mean"], read, images


def test_an_epoch_is_every_image_once():
    mean, read, images = fitted(2)
    assert read == ["train"]
    torch.testing.assert_close(mean / 2, images.float().mean() / 127.5 - 1)


@pytest.mark.parametrize(("taken", "leads", "said"), [(3, True, True), (0, True, False), (3, False, False)])
def test_the_leading_rank_says_how_many_images_were_handed_out_if_any(taken, leads, said, capsys):
    fitted(taken, leads)
    err = capsys.readouterr().err
    assert (f"fitting the sampler {taken * FIT_BATCH} image" in err) is said
    assert said or not err
