"""What people bring to be scored: accepted layouts give the same pixels, all else is refused by name."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import edm_files, encode, random_images, write_folder, write_zip

from genbench.contracts import UserError
from genbench.data.arrays import load_images
from genbench.ops.quantize import dequantize

COUNT = 12
COLOUR = random_images(COUNT)
GREY = random_images(COUNT, channels=1)


def flat(images: np.ndarray) -> dict[str, bytes]:
    return {f"{number}.png": encode(image) for number, image in enumerate(images)}


def nested(images: np.ndarray) -> dict[str, bytes]:
    """Pictures at several depths, one of them under a name that a data set would call its test split."""
    folders = ["", "a/", "a/b/", "test/"]
    return {f"{folders[n % 4]}{n}.PNG": encode(image) for n, image in enumerate(images)} | {
        "notes.txt": b"no"
    }


def savez(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


NHWC = COLOUR.transpose(0, 2, 3, 1)
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda at: write_folder(at / "flat", flat(COLOUR)),
    "nested folder": lambda at: write_folder(at / "nested", nested(COLOUR)),
    "flat zip": lambda at: write_zip(at / "flat.zip", flat(COLOUR)),
    "EDM zip": lambda at: write_zip(at / "edm.zip", edm_files(COLOUR, np.arange(COUNT))),
    "EDM zip, no labels": lambda at: write_zip(at / "edm.zip", edm_files(COLOUR, None)),
    "guided-diffusion npz": lambda at: savez(at / "x.npz", arr_0=NHWC, arr_1=np.arange(COUNT)),
    "compressed npz": lambda at: np.savez_compressed(at / "x.npz", images=NHWC) or at / "x.npz",
    "samples npz": lambda at: savez(at / "x.npz", samples=NHWC),
    "npz of one array of any name": lambda at: savez(at / "x.npz", fakes=NHWC),
    "NCHW npz": lambda at: savez(at / "x.npz", arr_0=COLOUR),
    "npy": lambda at: save(at / "x.npy", NHWC),
    "NCHW npy in Fortran's order": lambda at: save(at / "x.npy", np.asfortranarray(COLOUR)),
    "an npz that is an npy": lambda at: save(at / "x.npy", COLOUR).rename(at / "x.npz"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pixels(layout: str, tmp_path: Path) -> None:
    found = load_images(LAYOUTS[layout](tmp_path), 3, 8, tmp_path).images
    assert found.dtype == torch.uint8
    assert sorted(image.tobytes() for image in found.numpy()) == sorted(image.tobytes() for image in COLOUR)
    if "folder" not in layout and "zip" not in layout:
        assert np.array_equal(found, COLOUR)  # an array keeps its order


@pytest.mark.parametrize("shape", [(COUNT, 8, 8), (COUNT, 8, 8, 1), (COUNT, 1, 8, 8)])
def test_grey_arrays_may_leave_the_channel_out(shape: tuple[int, ...], tmp_path: Path) -> None:
    found = load_images(save(tmp_path / "x.npy", GREY.reshape(shape)), 1, 8, tmp_path).images
    assert np.array_equal(found, GREY)


def test_jpegs_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    from PIL import Image

    data = encode(COLOUR[0], "JPEG", quality=90)
    found = load_images(write_folder(tmp_path / "a", {"x.jpg": data}), 3, 8, tmp_path).images
    assert np.array_equal(found[0].permute(1, 2, 0), np.asarray(Image.open(io.BytesIO(data))))


def test_the_order_of_a_folder_says_nothing_of_its_names(tmp_path: Path) -> None:
    """The first n of a folder sorted by class would be no sample of it."""
    files = [write_folder(tmp_path / at, flat(images)) for at, images in (("a", COLOUR), ("b", COLOUR[::-1]))]
    first, second = (load_images(folder, 3, 8, tmp_path).images for folder in files)
    assert torch.equal(first, second)
    assert not np.array_equal(first, COLOUR)


# ------------------------------------------------------------------------------------------ other numbers

UNIT = dequantize(torch.from_numpy(COLOUR)).numpy()


@pytest.mark.parametrize(
    ("pixels", "levels"),
    [
        (UNIT, [-1, 1]),
        (UNIT.astype(np.float64), [-1, 1]),
        (UNIT.astype(">f8"), [-1.0, 1.0]),
        (COLOUR / np.float32(255), [0, 1]),
        ((COLOUR / 255).astype(np.float16), [0, 1]),
        (COLOUR.astype(np.int64), [0, 255]),
        (COLOUR.astype(np.float32), [0, 255]),
        (COLOUR.astype(np.uint16) * 257, [0, 65535]),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else str(value.dtype),
)
def test_numbers_of_a_stated_range_come_back_as_the_levels_they_were(
    pixels: np.ndarray, levels: list[float], tmp_path: Path
) -> None:
    brought = load_images(save(tmp_path / "x.npy", pixels), 3, 8, tmp_path, levels)
    assert np.array_equal(brought.images, COLOUR)
    assert "clipped" not in brought.found


def test_two_values_may_be_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    found = load_images(save(tmp_path / "x.npy", bits), 1, 8, tmp_path, [0, 1]).images
    assert np.array_equal(found, np.where(bits, 255, 0))


def test_a_little_beyond_is_clipped_and_said(tmp_path: Path) -> None:
    pixels = UNIT.copy()
    pixels[0, 0, 0, 0], pixels[1, 0, 0, 0] = -1.2, 1.3
    brought = load_images(save(tmp_path / "x.npy", pixels), 3, 8, tmp_path, [-1, 1])
    assert (brought.images[0, 0, 0, 0], brought.images[1, 0, 0, 0]) == (0, 255)
    assert f"from -1.2 to 1.3 in [-1, 1], {2 / pixels.size:.2%} of them beyond" in brought.found


# ---------------------------------------------------------------------------------------------- refusals


class Trap:
    """Unpickling it would raise what no test expects."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return Trap._sprung, ()

    @staticmethod
    def _sprung() -> None:
        raise AssertionError("something was unpickled")


def trapped(path: Path) -> Path:
    path.write_bytes(pickle.dumps(Trap()))
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-400])
    return path


def boasting(path: Path) -> Path:
    """An npy whose header promises more than any memory holds."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**50, 8, 8, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    return path


OBJECTS = np.array([Trap(), Trap()], dtype=object)
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda at: at / "x.npz", "does not exist"),
    "a picture": (lambda at: write_folder(at, flat(COLOUR)) / "0.png", "neither a folder nor a .zip"),
    "torch's pickles": (lambda at: trapped(at / "x.pt"), "numpy.save"),
    "a pickle called npy": (lambda at: trapped(at / "x.npy"), "cannot be read as an npz or npy"),
    "objects in an npz": (lambda at: savez(at / "x.npz", arr_0=OBJECTS), "found object; expected numbers"),
    "objects in an npy": (lambda at: save(at / "x.npy", OBJECTS), "found object; expected numbers"),
    "a torn npz": (lambda at: cut(savez(at / "x.npz", arr_0=NHWC)), "cannot be read"),
    "a torn npy": (lambda at: cut(save(at / "x.npy", NHWC)), "cannot be read"),
    "an empty file": (lambda at: write_folder(at, {"x.npz": b""}) / "x.npz", "cannot be read"),
    "an npy of 2^50 images": (lambda at: boasting(at / "x.npy"), "at most 4,294,967,296 are taken"),
    "statistics": (
        lambda at: savez(at / "x.npz", mu=np.zeros(4), sigma=np.zeros((4, 4))),
        "the arrays mu, sigma; expected one, or one of several named arr_0",
    ),
    "two candidates": (lambda at: savez(at / "x.npz", arr_0=NHWC, samples=NHWC), "the arrays arr_0, samples"),
    "no array": (lambda at: write_zip(at / "x.npz", {}), "the arrays none"),
    "another size": (
        lambda at: save(at / "x.npy", random_images(2, resolution=9)),
        r"found uint8 \[2, 3, 9, 9\]; expected \[N, 8, 8, 3\] or \[N, 3, 8, 8\]",
    ),
    "rows of pixels": (lambda at: save(at / "x.npy", COLOUR.reshape(COUNT, -1)), r"found uint8 \[12, 192\]"),
    "grey for colour": (lambda at: save(at / "x.npy", GREY), r"expected \[N, 8, 8, 3\]"),
    "no image": (lambda at: save(at / "x.npy", COLOUR[:0]), r"found uint8 \[0, 3, 8, 8\]"),
    "complex numbers": (lambda at: save(at / "x.npy", COLOUR * 1j), "found complex128"),
    "an empty folder": (lambda at: write_folder(at / "a", {"notes.txt": b"no"}) / "", "holds no PNG"),
    "a zip of arrays": (lambda at: savez(at / "x.npz", a=NHWC).rename(at / "x.zip"), "holds no PNG"),
    "pictures of another size": (
        lambda at: write_folder(at / "a", flat(random_images(1, resolution=9))),
        "is 9x9 pixels .*; expected 8x8. Resize them all by one filter",
    ),
    "grey pictures": (lambda at: write_folder(at / "a", flat(GREY)), "has 1 channel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, said = REFUSED[case]
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=said) as refusal:
        load_images(make(tmp_path / "in"), 3, 8, tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("pixels", "levels", "said"),
    [
        (UNIT, None, r"found float32 from -1 to 1; expected uint8. .* type images_range=\[-1,1\]"),
        (COLOUR.astype(np.int64), None, "found int64 from 0 to 255; expected uint8"),
        (COLOUR > 127, None, "found bool from 0 to 1; expected uint8"),
        (COLOUR / 255, [0, 0.25], r"far beyond images_range=\[0,0.25\]"),
        (COLOUR.astype(np.float32), [0, 1], r"far beyond images_range=\[0,1\]"),
        (UNIT, [0, 1], r"far beyond images_range=\[0,1\]"),
        (np.where(COLOUR == 7, np.nan, UNIT), [-1, 1], "NaN"),
        (np.where(COLOUR == 7, np.inf, UNIT), [-1, 1], "infinity"),
    ],
    ids=str,
)
def test_a_range_is_never_guessed(
    pixels: np.ndarray, levels: list[float] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        load_images(save(tmp_path / "x.npy", pixels), 3, 8, tmp_path, levels)
    assert "\n" not in str(refusal.value)


def test_a_range_is_no_matter_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is for arrays"):
        load_images(write_folder(tmp_path / "a", flat(COLOUR)), 3, 8, tmp_path, [0, 1])


def test_nothing_is_written_where_a_zip_names_other_folders(tmp_path: Path) -> None:
    names = ["../up.png", "/root.png", "C:\\x.png", "a.png"]
    path = tmp_path / "in" / "x.zip"
    path.parent.mkdir()
    write_zip(path, {name: encode(image) for name, image in zip(names, COLOUR, strict=False)})
    assert len(load_images(path, 3, 8, tmp_path).images) == 4
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.zip"]
    assert zipfile.is_zipfile(path)


CLASSES = np.arange(COUNT) % 10


def labelled(images: np.ndarray, labels: object) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize("kind", ["npz", "npz of bytes", "EDM zip", "EDM folder"])
def test_classes_that_come_with_images_stay_with_them(kind: str, tmp_path: Path) -> None:
    make: dict[str, Callable[[], Path]] = {
        "npz": lambda: savez(tmp_path / "x.npz", arr_0=NHWC, arr_1=CLASSES),
        "npz of bytes": lambda: savez(tmp_path / "x.npz", arr_0=NHWC, arr_1=CLASSES.astype(np.uint8)),
        "EDM zip": lambda: write_zip(tmp_path / "edm.zip", edm_files(COLOUR, CLASSES)),
        "EDM folder": lambda: write_folder(tmp_path / "edm", edm_files(COLOUR, CLASSES)),
    }
    brought = load_images(make[kind](), 3, 8, tmp_path, classes=10)
    assert brought.found.endswith(", with classes")
    assert brought.labels is not None
    assert brought.labels.dtype == torch.int64
    assert labelled(brought.images.numpy(), brought.labels) == labelled(COLOUR, CLASSES)


@pytest.mark.parametrize(
    "layout", [each for each in LAYOUTS if each not in ("EDM zip", "guided-diffusion npz")]
)
def test_images_without_classes_have_none(layout: str, tmp_path: Path) -> None:
    assert load_images(LAYOUTS[layout](tmp_path), 3, 8, tmp_path, classes=10).labels is None


def test_where_nobody_asks_for_classes_they_may_be_anything(tmp_path: Path) -> None:
    for path in (
        savez(tmp_path / "x.npz", arr_0=NHWC, arr_1=np.zeros(3)),
        write_zip(tmp_path / "x.zip", edm_files(COLOUR, CLASSES + 100)),
    ):
        assert load_images(path, 3, 8, tmp_path).labels is None
    other = savez(tmp_path / "x.npz", images=NHWC, arr_1=np.zeros(3))  # guided-diffusion's pixels are arr_0
    assert load_images(other, 3, 8, tmp_path, classes=10).labels is None


BAD_CLASSES: dict[str, tuple[np.ndarray, str]] = {
    "one too few": (CLASSES[1:], r"found int64 \[11\]; expected the images' classes, integers \[12\]"),
    "one too many": (np.arange(COUNT + 1) % 10, r"found int64 \[13\]"),
    "a column": (CLASSES[:, None], r"found int64 \[12, 1\]"),
    "one for each of ten": (np.eye(10)[CLASSES], r"found float64 \[12, 10\]"),
    "floats": (CLASSES.astype(np.float32), r"found float32 \[12\]"),
    "truth values": (CLASSES > 4, r"found bool \[12\]"),
    "negative": (CLASSES - 1, "found classes from -1 to 8; expected 0 to 9"),
    "one beyond": (CLASSES + 1, "found classes from 1 to 10; expected 0 to 9"),
    "huge": (CLASSES.astype(np.uint64) + 2**63, "to 9223372036854775817; expected 0 to 9"),
    "objects": (np.array([Trap()] * COUNT), "found object; expected numbers"),
    "texts": (CLASSES.astype(str), "found <U21; expected numbers"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_other_classes_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    classes, said = BAD_CLASSES[case]
    with pytest.raises(UserError, match=said) as refusal:
        load_images(savez(tmp_path / "x.npz", arr_0=NHWC, arr_1=classes), 3, 8, tmp_path, classes=10)
    assert "\n" not in str(refusal.value)
    assert "arr_1" in str(refusal.value)


def test_a_label_file_must_fit_the_data_set(tmp_path: Path) -> None:
    advice = " Without that file the images are scored without classes"
    for labels, said in (
        (CLASSES + 1, f"the label 10; expected 0 to 9.{advice}"),
        (CLASSES - 1, f"the label -1; expected 0 to 9.{advice}"),
    ):
        with pytest.raises(UserError, match=said):
            load_images(write_zip(tmp_path / "x.zip", edm_files(COLOUR, labels)), 3, 8, tmp_path, classes=10)
