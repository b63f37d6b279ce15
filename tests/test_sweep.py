"""Titles on a sweep's sheet of grids."""

from __future__ import annotations

from genbench.sweep import _fitting


def test_a_title_is_as_large_as_fits_its_grid():
    short, long = (
        "digits/ddpm: fd_digits 0.8",
        "digits/d3pm-gaussian_discrete, optim.lr=0.001: fd_digits 1.02",
    )
    assert _fitting(short, 272).size == 14
    font = _fitting(long, 272)
    assert 8 <= font.size < 14
    assert font.getlength(long) <= 272 or font.size == 8
    assert _fitting("x" * 500, 272).size == 8
