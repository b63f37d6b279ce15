"""Published results: rows for reference, from papers and their code, never measured here and never ranked.

`published.json` holds what METHODS.md 13 lists, a row a figure, each with where it was read:

    paper      the paper's own text or table
    code       the authors' code or its README
    secondary  another paper's comparison or a public list

Left out is what could not be verified (MDSM, NVAE's second FID), what has no figure, and Cold Diffusion,
whose CIFAR-10 FIDs are of restored test images and not of samples (METHODS.md 15). FID is of 50,000 samples
against the training set unless `protocol` says otherwise. The names of metrics are the records': `fid`, `is`,
`bpd`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from genbench.leaderboard.record import Line, MetricName, Name, Positive, Strict, parse
from genbench.leaderboard.untrusted import read_json

FILE = Path(__file__).with_name("published.json")

BETTER: dict[str, Literal["lower", "higher"]] = {"fid": "lower", "is": "higher", "bpd": "lower"}
"""The metrics of published rows and which way is better."""

EVIDENCE = {
    "paper": "read in the paper",
    "code": "read in the authors' code",
    "secondary": "read in a secondary source",
}


class Figure(Strict):
    """A published number; `printed` is how its source prints it where a bare number would say less (≤, ±)."""

    value: Annotated[float, Field(ge=0, le=1e6)]
    printed: Name | None

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return self.printed or f"{self.value:.2f}"


class Published(Strict):
    """One published result; `nfe` is None where none is stated, or sources disagree.

    experiment: the one here whose recipe is that result's, where there is one.
    """

    method: Name
    dataset: Name
    resolution: Positive
    conditional: bool
    nfe: Positive | None
    metrics: dict[MetricName, Figure]
    evidence: Literal["paper", "code", "secondary"]
    source: Name
    arxiv: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}\.[0-9]{5}$")]
    protocol: Line
    experiment: Name | None = None

    @property
    def about(self) -> tuple[str, int, bool]:
        """What a track must share for this row to be shown beside it: data set, resolution, conditional."""
        return (self.dataset, self.resolution, self.conditional)


@cache
def published() -> tuple[Published, ...]:
    """All published rows, in the file's order: by data set, resolution, conditional, FID."""
    return tuple(parse(Published, entry, FILE) for entry in read_json(FILE))
