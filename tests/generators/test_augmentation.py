"""EDM's augmentation: what each movement does to an image, and that the label says so."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genbench.contracts import UserError
from genbench.generators.augmentation import FEATURES, AugmentationPipe, Movement

CPU = torch.device("cpu")
INNER = (..., slice(6, -6), slice(6, -6))
"""Of 33x33 pixels: what the reflection at the edges reaches in no movement here."""


def movement(batch: int = 2, **changes: float | bool) -> Movement:
    """The same movement for all images, none where nothing is given."""
    fields = {name: torch.zeros(batch) for name in Movement.__dataclass_fields__}
    fields |= {name: torch.zeros(batch, dtype=torch.bool) for name in ("mirrored", "upended")}
    fields |= {name: torch.full((batch,), value) for name, value in changes.items()}
    return Movement(**fields)


def moved(images: Tensor, **changes: float | bool) -> Tensor:
    return AugmentationPipe().move(images, movement(len(images), **changes))


def images(height: int = 12, width: int = 16, batch: int = 2) -> Tensor:
    torch.manual_seed(0)
    return 2 * torch.rand(batch, 3, height, width) - 1


def bump(x: float, y: float, wide: float = 2.0, high: float = 2.0, size: int = 33) -> Tensor:
    """A Gaussian bump at (x, y) from the centre, y pointing up, with deviations `wide` and `high`."""
    place = torch.arange(size) - (size - 1) / 2
    across = torch.exp(-((place - x) ** 2) / (2 * wide**2))
    along = torch.exp(-((-place - y) ** 2) / (2 * high**2))
    return (along[:, None] * across)[None, None]


# ------------------------------------------------------------------------------------- single movements


def test_no_movement_is_no_change() -> None:
    x = images()
    assert torch.equal(moved(x), x)
    assert torch.equal(movement().label(), torch.zeros(2, FEATURES))


def test_mirrors_are_exact_and_their_own_inverses() -> None:
    x = images()
    assert torch.equal(moved(x, mirrored=True), x.flip(3))
    assert torch.equal(moved(x, upended=True), x.flip(2))
    both = {"mirrored": True, "upended": True}
    assert torch.equal(moved(moved(x, **both), **both), x)


def test_quarter_turns_are_exact_and_counter_clockwise() -> None:
    x = images(13, 13)
    for turns in (1, 2, 3):
        out = moved(x, angle=turns * math.pi / 2)
        torch.testing.assert_close(out, x.rot90(turns, (2, 3)), rtol=0, atol=2e-4)


def test_a_turn_and_its_opposite_cancel_on_smooth_images() -> None:
    x = bump(4.0, 3.0, 3.0, 3.0)
    turned = moved(x, angle=0.7)
    change, rest = turned - x, moved(turned, angle=-0.7) - x
    assert change.abs().max() > 0.3
    assert rest[INNER].abs().max() < 0.1 * change.abs().max()  # interpolating twice is what is left


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, -3), (4, 2)])
def test_shifts_by_whole_pixels_are_exact_inside(right: int, down: int) -> None:
    x = images()
    out = moved(x, right=right / (16 * 0.125), down=down / (12 * 0.125))
    expected = x.roll((down, right), dims=(2, 3))
    inside = (..., slice(3, -3), slice(4, -4))
    torch.testing.assert_close(out[inside], expected[inside], rtol=0, atol=1e-5)


def test_what_enters_is_the_image_reflected_about_its_outermost_pixels() -> None:
    x = images()
    out = moved(x, right=3 / (16 * 0.125))
    torch.testing.assert_close(out[..., :3], x[..., 1:4].flip(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "x", "y", "wide", "high"),
    [
        ({"enlarged": 2.0}, 4 * 2**0.4, 3 * 2**0.4, 2 * 2**0.4, 2 * 2**0.4),
        ({"enlarged": -1.0}, 4 * 2**-0.2, 3 * 2**-0.2, 2 * 2**-0.2, 2 * 2**-0.2),
        ({"stretched": 1.5}, 4 * 2**0.3, 3 * 2**-0.3, 2 * 2**0.3, 2 * 2**-0.3),
        ({"stretched": 1.5, "direction": math.pi / 2}, 4 * 2**-0.3, 3 * 2**0.3, 2 * 2**-0.3, 2 * 2**0.3),
        ({"angle": math.atan2(3, 4)}, 4 * 0.8 - 3 * 0.6, 3 * 0.8 + 4 * 0.6, 2.0, 2.0),
        ({"right": 0.5, "down": 1.0}, 4 + 33 / 16, 3 - 33 / 8, 2.0, 2.0),
    ],
)
def test_a_bump_goes_where_and_becomes_what_it_should(
    changes: dict[str, float], x: float, y: float, wide: float, high: float
) -> None:
    out = moved(bump(4.0, 3.0), **changes)
    assert (out - bump(x, y, wide, high)).abs().max() < 0.02


def test_stretching_along_a_diagonal_moves_points_along_it() -> None:
    direction = math.pi / 4
    along = moved(bump(3.0, 3.0), stretched=2.0, direction=direction)
    across = moved(bump(3.0, -3.0), stretched=2.0, direction=direction)
    peak = lambda out: divmod(int(out.argmax()), 33)
    assert peak(along) == (16 - 4, 16 + 4)  # 3 * 2^0.4 = 3.96, up and right
    assert peak(across) == (16 + 2, 16 + 2)  # 3 * 2^-0.4 = 2.27, down and right


def test_the_parts_come_in_the_order_of_the_table() -> None:
    parts = ({"enlarged": 1.0}, {"angle": 0.9}, {"stretched": 1.0, "direction": 0.4}, {"right": -0.7})
    together: dict[str, float] = {}
    x = forwards = backwards = bump(3.0, 2.0, 3.0, 3.0)
    for part, other in zip(parts, reversed(parts)):
        forwards, backwards = moved(forwards, **part), moved(backwards, **other)
        together |= part
    out = moved(x, **together)
    right, wrong = ((out - other)[INNER].abs().max() for other in (forwards, backwards))
    assert wrong > 0.3
    assert right < 0.1 * wrong  # interpolating four times instead of once


# -------------------------------------------------------------------------------------- labels and draws


def test_the_label_says_what_was_done() -> None:
    done = movement(
        1,
        mirrored=True,
        upended=True,
        enlarged=0.3,
        angle=0.5,
        stretched=-1.2,
        direction=2.0,
        right=0.7,
        down=-0.4,
    )
    expected = [1, 1, 0.3, math.cos(0.5) - 1, math.sin(0.5)]
    expected += [-1.2 * math.cos(2), -1.2 * math.sin(2), 0.7, -0.4]
    torch.testing.assert_close(done.label(), torch.tensor([expected]))


def test_images_with_a_zero_label_are_untouched_and_others_are_not() -> None:
    torch.manual_seed(0)
    x = images(8, 8, batch=512)
    out, labels = AugmentationPipe()(x)
    assert labels.shape == (512, FEATURES)
    assert labels.dtype == torch.float32
    zero = (labels == 0).all(dim=1)
    assert 50 < int(zero.sum()) < 256
    assert torch.equal(out[zero], x[zero])
    assert (out[~zero] != x[~zero]).flatten(1).any(dim=1).all()
    mirrored_only = (labels[:, 0] == 1) & (labels[:, 1:] == 0).all(dim=1)
    assert torch.equal(out[mirrored_only], x[mirrored_only].flip(3))


def test_the_same_movement_gives_the_image_and_its_label() -> None:
    x, pipe = images(8, 8, batch=64), AugmentationPipe(p=0.5)
    torch.manual_seed(3)
    out, labels = pipe(x)
    torch.manual_seed(3)
    drawn = pipe.draw(64, CPU)
    assert torch.equal(out, pipe.move(x, drawn))
    assert torch.equal(labels, drawn.label())


def test_each_part_comes_as_often_as_it_should_and_apart_from_the_others() -> None:
    torch.manual_seed(0)
    n, p = 40_000, 0.12
    drawn = AugmentationPipe(p=p).draw(n, CPU)
    parts = {
        "mirrored": 0.5,
        "upended": p / 2,
        "enlarged": p,
        "angle": p,
        "stretched": p,
        "direction": 0.5,
        "right": p,
        "down": p,
    }
    active = {name: (getattr(drawn, name) != 0).double() for name in parts}
    for name, share in parts.items():
        assert abs(float(active[name].mean()) - share) < 5 * math.sqrt(share * (1 - share) / n), name
    assert torch.equal(active["right"], active["down"])
    apart = torch.stack([active[name] for name in parts if name != "down"])
    correlations = torch.corrcoef(apart) - torch.eye(len(apart))
    assert float(correlations.abs().max()) < 5 / math.sqrt(n)
    for name in ("enlarged", "stretched", "right", "down"):
        values = getattr(drawn, name)[active[name].bool()]
        assert float(values.std()) == pytest.approx(1.0, abs=5 / math.sqrt(2 * p * n)), name
    turns = drawn.angle[drawn.angle != 0]
    assert float(turns.std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.03)
    assert float(turns.abs().max()) <= math.pi


def test_with_probability_zero_only_the_left_right_coin_is_tossed() -> None:
    torch.manual_seed(0)
    x = images(8, 8, batch=64)
    out, labels = AugmentationPipe(p=0.0)(x)
    mirrored = labels[:, 0] == 1
    assert 0 < int(mirrored.sum()) < 64
    assert torch.equal(out, torch.where(mirrored[:, None, None, None], x.flip(3), x))
    assert torch.count_nonzero(labels[:, 1:]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 1, 1, 5), (3, 2, 6, 9)])
def test_shape_and_dtype_are_kept(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out, labels = AugmentationPipe(p=1.0)(torch.rand(shape).to(dtype))
    assert out.shape == shape
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    assert labels.dtype == torch.float32


@pytest.mark.parametrize("p", [-0.1, 1.2])
def test_what_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(UserError, match=r"between 0 and 1"):
        AugmentationPipe(p=p)
