"""The card beside a shipped extractor's weights: what it is, how it was made, and what its distances mean.

A Fréchet distance in the features of a classifier has no unit, so the card gives it a scale for its data set:

    closed(FD) = (ceiling - FD) / (ceiling - floor)

with floor the distance of the test split, and ceiling that of a Gaussian fitted to every pixel on its own,
both from the training split: 1 is as near as unseen real images, 0 has learnt nothing but brightness.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genbench.errors import UserError

SHIPPED = Path(__file__).parent / "shipped"
"""Where the extractors that come with genbench lie: `<data set>.safetensors` and `<data set>.json`."""


@dataclass(frozen=True)
class Card:
    """Facts of one extractor, all measured on the weights as stored (float16, loaded as float32).

    name: the data set's; image_shape: (C, H, W) it takes; architecture: arguments of `ConvClassifier`;
    features: dimension of the pooled features; parameters: their number; sha256: of the weights file;
    train_sha256: content hash of the training split, of n_train images; test_accuracy: in [0, 1]; n_samples:
    the track's sample count; floor: FD of the whole test split (n_test images); ceiling: FD of n_samples
    images from the per-pixel Gaussian; subset_mean, subset_std: FD of random training subsets of n_test
    images, which "better than real" is judged against; command: what trains it again; versions: of the
    libraries.
    """

    name: str
    image_shape: tuple[int, int, int]
    architecture: dict[str, Any]
    features: int
    parameters: int
    sha256: str
    train_sha256: str
    n_train: int
    test_accuracy: float
    n_samples: int
    n_test: int
    floor: float
    ceiling: float
    subset_mean: float
    subset_std: float
    quantiser: str
    command: str
    versions: dict[str, str]

    @classmethod
    def read(cls, name: str, folder: Path = SHIPPED) -> Card:
        """The card of extractor `name` in `folder`. Raises UserError where there is none or it is damaged."""
        path = folder / f"{name}.json"
        if not path.is_file():
            there = sorted(file.stem for file in folder.glob("*.json"))
            raise UserError(
                f"there is no extractor {name!r} in {folder}; there are: {', '.join(there) or 'none'}. "
                "Type metrics=<one of these>, metrics=inception, or train one: "
                f"python -m genbench task=extractor dataset={name}"
            )
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**said, "image_shape": tuple(said["image_shape"])})
        except (ValueError, KeyError, TypeError) as error:
            expected = ", ".join(field.name for field in fields(cls))
            raise UserError(
                f"{path} is not an extractor's card ({error}); expected the keys {expected}"
            ) from error

    def write(self, folder: Path) -> None:
        """Writes `<name>.json` into `folder`, keys in the order above, so that differences read well."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / f"{self.name}.json").write_text(text, encoding="utf-8")


def closed(distance: float, card: Card) -> float:
    """The share of the way from ceiling to floor that FD `distance` has gone; above 1 is below the floor."""
    return (card.ceiling - distance) / (card.ceiling - card.floor)


def standing(metric: str, extractor: str | None) -> Card | None:
    """The card on whose scale a metric's value stands; None for metrics without one.

    A card is of its data set's number of samples: fd_digits has one, fd_digits@500 has not.
    """
    known = (
        extractor is not None and metric == f"fd_{extractor}" and (SHIPPED / f"{extractor}.json").is_file()
    )
    return Card.read(extractor) if known and extractor is not None else None
