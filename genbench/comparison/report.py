"""The comparison in the terminal: differing settings, scores with the best marked, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genbench.comparison.contender import Contender, Score, names
from genbench.comparison.settings import Line, differing

BEST = "*"
NOTHING = "-"
WIDEST = 36
"""Longer values of settings are cut."""


def report(contenders: Sequence[Contender]) -> str:
    """The whole report, a column a run."""
    blocks = [
        ("settings that differ", settings(contenders)),
        (f"scores ({BEST} best)", scores(contenders)),
        ("cost", cost(contenders)),
    ]
    head: Line = ("", names(contenders))
    lines = [line for _, block in blocks for line in block]
    widths = [max(len(line[1][k]) for line in (head, *lines)) for k in range(len(contenders))]
    margin = max(len(title) for title, _ in (*lines, *blocks)) + 2
    said = [_line(head, margin, widths)]
    for title, block in blocks:
        said += [title, *(_line(line, margin, widths) for line in block)]
        said += [] if block else ["  none"]
    return "\n".join(said)


def _line(line: Line, margin: int, widths: Sequence[int]) -> str:
    title, cells = line
    columns = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"  {title:<{margin}}{columns}".rstrip()


def settings(contenders: Sequence[Contender]) -> list[Line]:
    """The settings that would give another result, where runs do not agree on them."""
    found = differing([contender.config for contender in contenders])
    return [(key, [_cut(value) for value in values]) for key, values in found]


def _cut(value: str) -> str:
    return value if len(value) <= WIDEST else f"{value[: WIDEST - 3]}..."


def scores(contenders: Sequence[Contender]) -> list[Line]:
    """Every metric that a run has; values that were not judged alike are in lines of their own."""
    found = [contender.scores() for contender in contenders]
    lines = []
    for name in dict.fromkeys(name for each in found for name in each):
        cells = [each.get(name) for each in found]
        judges = list(dict.fromkeys(cell.judge for cell in cells if cell is not None))
        for judge in judges:
            alike = [cell if cell is not None and cell.judge == judge else None for cell in cells]
            note = "" if len(judges) == 1 else f", judge {judges.index(judge) + 1}"
            lines.append((f"{name}{_over(alike)}{note}", _marked(alike)))
    return lines


def _over(cells: Sequence[Score | None]) -> str:
    kinds = dict.fromkeys(cell.spread[1] for cell in cells if cell is not None and cell.spread is not None)
    return f" (± {', '.join(kinds)})" if kinds else ""


def _marked(cells: Sequence[Score | None]) -> list[str]:
    """The cells as text, the best of two or more marked."""
    known = [cell for cell in cells if cell is not None]
    order: dict[str, Callable[..., float]] = {"lower": min, "higher": max}
    better = known[0].better
    best = order[better](cell.value for cell in known) if better in order and len(known) > 1 else None
    return [NOTHING if cell is None else _shown(cell, cell.value == best) for cell in cells]


def _shown(score: Score, best: bool) -> str:
    spread = "" if score.spread is None else f" ± {score.spread[0]:.2g}"
    step = "" if score.step is None else f" at step {score.step:,}"
    return f"{score.value:.4g}{spread}{step}{f' {BEST}' if best else ''}"


def cost(contenders: Sequence[Contender]) -> list[Line]:
    """What training and sampling took; of an unfinished run, so far."""
    lines: list[tuple[str, Callable[[Contender], str]]] = [
        ("state", _state),
        ("training steps", lambda c: _count(c.result.training.steps if c.result else _step(c))),
        ("training images", lambda c: _count(_images(c))),
        ("training seconds", lambda c: _count(_seconds(c))),
        ("parameters", lambda c: _count(c.result.model.parameters if c.result else None)),
        ("sampler", _sampler),
        ("evaluations an image", lambda c: f"{c.result.sampling.nfe_mean:g}" if c.result else NOTHING),
        (
            "seconds an image",
            lambda c: f"{c.result.sampling.seconds_per_image:.3g}" if c.result else NOTHING,
        ),
        ("device", lambda c: c.result.device.name if c.result else NOTHING),
    ]
    return [(title, [say(contender) for contender in contenders]) for title, say in lines]


def _state(contender: Contender) -> str:
    if contender.result is None:
        return f"unfinished, of {contender.config['trainer']['steps']:,} steps"
    return "finished" if contender.result.training.stopped == "steps" else "finished, by its budget"


def _sampler(contender: Contender) -> str:
    sampler = contender.config["sampler"]
    return f"{sampler['name']}, {sampler['steps']}" if sampler.get("steps") else str(sampler["name"])


def _step(contender: Contender) -> int:
    return max((step for step, _ in contender.rows), default=0)


def _images(contender: Contender) -> float | None:
    return contender.result.training.images_seen if contender.result else contender.last("images_seen")


def _seconds(contender: Contender) -> float | None:
    return contender.result.training.wall_seconds if contender.result else contender.last("train_seconds")


def _count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"
