"""Decoding: exact for lossless pictures, and a refusal that names the file for everything else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import edm_files, encode, random_images, write_zip
from PIL import Image

from genbench.contracts import UserError
from genbench.data import decoding
from genbench.data.decoding import Exact, Resized, decode, decode_all
from genbench.data.pictures import ZipOfPictures


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and carries next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_lossless_pictures_come_back_bit_for_bit(channels: int, format: str, options: dict) -> None:
    image = random_images(1, channels=3, resolution=9)[0]
    if channels == 1:
        if format == "WEBP":
            pytest.skip("WebP has no grey pictures")
        image = image[:1]
    found = decode(encode(image, format, **options), channels, 9, Exact(), "x")
    assert found.shape == (channels, 9, 9)
    assert np.array_equal(found, image)


def test_a_jpeg_is_decoded() -> None:
    image = np.full((3, 16, 16), 77, np.uint8)
    assert np.abs(decode(encode(image, "JPEG", quality=95), 3, 16, Exact(), "x").astype(int) - 77).max() <= 2


@pytest.mark.parametrize("resolution", [8, 40], ids=["one thread", "threads"])
def test_many_pictures_keep_the_order_they_were_asked_for(tmp_path: Path, resolution: int) -> None:
    images = random_images(700, channels=1, resolution=resolution)
    pictures = ZipOfPictures(write_zip(tmp_path / "a.zip", edm_files(images, None)))
    order = np.random.default_rng(1).permutation(700)
    names = [pictures.names[position] for position in order]
    assert np.array_equal(decode_all(pictures, names, 1, resolution, Exact()), images[order])


@pytest.mark.parametrize("kept", [0, 4, 20, 40, 150])
def test_a_truncated_png_in_a_zip_is_named(tmp_path: Path, kept: int) -> None:
    files = edm_files(random_images(3), None)
    files["00000/img00000001.png"] = files["00000/img00000001.png"][:kept]
    pictures = ZipOfPictures(write_zip(tmp_path / "a.zip", files))
    with pytest.raises(UserError, match=r"img00000001\.png in .*a\.zip"):
        decode_all(pictures, pictures.names, 3, 8, Exact())


def test_damage_is_refused_by_name_or_not_at_all() -> None:
    """A PNG with one byte changed never escapes as an exception of Pillow's."""
    data = encode(random_images(1)[0])
    refused = 0
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        try:
            decode(damaged, 3, 8, Exact(), "x.png")
        except UserError:
            refused += 1
    assert refused > len(data) / 2


def test_another_size_is_refused_with_both_sizes_and_the_advice() -> None:
    with pytest.raises(UserError, match=r"x\.png is 6x4 pixels.*expected 8x8. Do this"):
        decode(encode(np.zeros((3, 4, 6), np.uint8)), 3, 8, Exact(" Do this."), "x.png")


@pytest.mark.parametrize(
    ("image", "channels", "found"),
    [
        (encode(np.zeros((1, 8, 8), np.uint8)), 3, "1 channel"),
        (encode(np.zeros((3, 8, 8), np.uint8)), 1, "3 channel"),
        (encode(np.zeros((4, 8, 8), np.uint8)), 3, "4 channel.*RGBA"),
    ],
)
def test_other_channels_are_refused_not_converted(image: bytes, channels: int, found: str) -> None:
    with pytest.raises(UserError, match=rf"x\.png has {found}.*expected {channels}"):
        decode(image, channels, 8, Exact(), "x.png")


def test_sixteen_bits_a_pixel_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png.*I;16"):
        decode((tmp_path / "deep.png").read_bytes(), 1, 8, Exact(), "deep.png")


@pytest.mark.parametrize("side", [9_000, 40_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_unpacks(side: int) -> None:
    with pytest.raises(UserError, match=r"bomb\.png"):
        decode(png_header(side, side), 3, 8, Resized(), "bomb.png")


def test_the_cap_counts_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(random_images(1)[0])
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64)
    decode(data, 3, 8, Exact(), "x.png")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63)
    with pytest.raises(UserError, match="8x8 pixels; at most 63"):
        decode(data, 3, 8, Exact(), "x.png")


def test_formats_nobody_asked_for_are_not_decoded() -> None:
    with pytest.raises(UserError, match="not a readable PNG, JPEG or WebP"):
        decode(encode(random_images(1)[0], "BMP"), 3, 8, Exact(), "x.png")


def test_resizing_takes_the_central_square() -> None:
    wide = np.zeros((3, 8, 24), np.uint8)
    wide[:, :, 8:16] = random_images(1)[0]
    assert np.array_equal(decode(encode(wide), 3, 8, Resized(), "x"), wide[:, :, 8:16])
    assert np.array_equal(
        decode(encode(wide.transpose(0, 2, 1)), 3, 8, Resized(), "x"), wide[:, :, 8:16].transpose(0, 2, 1)
    )


def test_resizing_is_antialiased() -> None:
    """A one-pixel checkerboard shrunk by eight is grey; without a filter it would be black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None].repeat(3, 0)
    small = decode(encode(board), 3, 8, Resized(), "x").astype(int)
    assert np.abs(small - 127.5).max() <= 8
