"""A data set of one's own: a folder or a zip of PNG, JPEG or WebP images.

    python -m genbench dataset=folder dataset.path=DIR dataset.resolution=64 dataset.channels=3

Every image found is the training split, however deep it lies, except those under `test/`, which are the test
split. Labels are taken from a `dataset.json` at the root (EDM's form, names relative to the root) where
`dataset.classes` says how many classes there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genbench.contracts import UserError
from genbench.data.cache import decode_or_reuse
from genbench.data.decoding import Exact, Preparation, Resized, decoder_version
from genbench.data.images import ImageSet, canonical, check_split
from genbench.data.labels import FILE, labels_of, read_labels
from genbench.data.pictures import Pictures, open_pictures

_TEST = "test/"


@dataclass(frozen=True)
class Folder:
    """Images under `path`, a folder or a zip.

    path: None stands for "not said", which is refused with what to type; resolution: height and width in
    pixels; channels: 1 or 3; classes: 0 ignores labels; resize: whether images of another size are cropped to
    their central square and resized, or refused by name.
    """

    path: str | None
    resolution: int
    channels: int
    classes: int = 0
    resize: bool = False
    name: str = "folder"

    def locate(self, data_root: Path, split: str) -> str:
        pictures, names = self._find(split)
        return f"{self.name} ({split}): {len(names):,} images in {pictures.path}"

    def present(self, data_root: Path, split: str) -> bool:
        try:
            return len(self._find(split)[1]) > 0
        except UserError:
            return False

    def load(self, data_root: Path, split: str) -> ImageSet:
        pictures, names = self._find(split)
        labels = read_labels(pictures, self.classes) if self.classes else None
        if self.classes and labels is None:
            raise UserError(
                f"{pictures.path} has no labels but dataset.classes={self.classes}; expected a {FILE} with "
                f'"labels", or type dataset.classes=0.'
            )
        pixels = decode_or_reuse(
            pictures,
            names,
            self.channels,
            self.resolution,
            self._preparation(),
            data_root,
            f"{self.name}-{split}",
        )
        return canonical(
            self.name,
            split,
            pixels,
            None if labels is None else labels_of(names, labels),
            classes=self.classes,
            levels=256,
            provenance={
                "source": f"folder or zip {pictures.path.name}",
                "url": "",
                "licence": "the user's own",
                "crop": str(self._preparation()),
                "decoder": decoder_version(),
            },
        )

    def _preparation(self) -> Preparation:
        if self.resize:
            return Resized()
        return Exact(
            " Type dataset.resize=true to have images cropped to their central square and resized, "
            "or dataset.resolution=R for what they are."
        )

    def _find(self, split: str) -> tuple[Pictures, list[str]]:
        """The pictures and the names of a split's. Raises UserError where there are none."""
        check_split(split)
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels={self.channels}; images have 1 (grey) or 3 (colour).")
        if self.resolution < 1:
            raise UserError(f"dataset.resolution={self.resolution}; expected a number of pixels.")
        if not self.path:
            raise UserError("dataset=folder needs to know where: type dataset.path=DIR or dataset.path=ZIP.")
        pictures = open_pictures(Path(self.path).expanduser())
        names = [name for name in pictures.names if name.startswith(_TEST) == (split == "test")]
        if not names and split == "test":
            raise UserError(f"{pictures.path} has no test split; images under {_TEST} would be one.")
        if not names:
            raise UserError(f"{pictures.path} holds no PNG, JPEG or WebP image.")
        return pictures, names
