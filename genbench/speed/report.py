"""What was measured, as a table of ratios and as a roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench.speed.ceilings import Ceilings
from genbench.speed.turns import Row, Spread


def fractions(row: Row, ceilings: Ceilings) -> dict[str, float]:
    """Of the copy bandwidth for the bytes a unit cannot do without, of the matrix rate for its FLOP.

    FLOP count only where something is multiplied that says in which precision.
    """
    seconds, found = row.seconds["median"], {}
    if "bytes" in row.facts:
        found["copy"] = float(row.facts["bytes"]) / seconds / ceilings.copy
    if "flops" in row.facts and "precision" in row.facts:
        rate = ceilings.product[str(row.facts["precision"])]
        found["product"] = float(row.facts["flops"]) / seconds / rate
    return found


def table(rows: Sequence[Row], ceilings: Ceilings, heading: str, left_out: Sequence[str]) -> str:
    """All rows as Markdown, comparison by comparison."""
    lines = [
        heading,
        "",
        "| | | time (p20 to p80) | other / ours | a second | of ceiling | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    previous = None
    for row in rows:
        compared = row.part, row.what
        what = f"{row.part}: {row.what}" if compared != previous else ""
        previous = compared
        lines.append(f"| {what} | {row.name} | {' | '.join(_cells(row, ceilings))} |")
    if left_out:
        lines += ["", "Without a row:", "", *(f"* {line}" for line in left_out)]
    return "\n".join(lines) + "\n"


def _cells(row: Row, ceilings: Ceilings) -> Iterator[str]:
    median = row.seconds["median"]
    scale, unit = next(
        (s, u) for s, u in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")) if median * s >= 1 or u == "µs"
    )
    yield f"{_spread(row.seconds, scale)} {unit}"
    yield "" if row.ratio is None else _spread(row.ratio)
    yield f"{1 / median:,.3g} {row.unit}s" if row.unit == "image" else _rate(row)
    yield ", ".join(f"{share:.0%} of {name}" for name, share in fractions(row, ceilings).items())
    held = row.facts.get("peak_bytes")
    yield "" if held is None else f"{float(held) / 2**20:,.0f} MiB"


def _rate(row: Row) -> str:
    """Bytes or FLOP a second, for what is measured in them alone."""
    if not row.part.startswith("ceilings"):
        return ""
    key, unit = ("bytes", "GB") if "bytes" in row.facts else ("flops", "GFLOP")
    return f"{float(row.facts[key]) / row.seconds['median'] / 1e9:,.4g} {unit}"


def _spread(values: Spread, scale: float = 1.0) -> str:
    median, p20, p80 = (_short(scale * values[key]) for key in ("median", "p20", "p80"))
    return f"{median} ({p20} to {p80})"


def _short(value: float) -> str:
    """Three digits; no decimals from 100 up."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def roofline(rows: Sequence[Row], ceilings: Ceilings, title: str, path: Path) -> Path:
    """A PNG: FLOP a second against FLOP a byte, under what memory and multiplication allow.

    Steps of samplers stand at their ideal bytes; networks at those eager PyTorch moves, so that fusing
    operations may lift a point above the slope.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.0, 5.4), layout="constrained")
    points = [row for row in rows if "flops" in row.facts and {"bytes", "traffic"} & set(row.facts)]
    intensities = [_intensity(row) for row in points] or [1.0]
    peak = max(ceilings.product.values())
    reach = [min(intensities) / 3, max(*intensities, peak / ceilings.copy) * 3]
    for name, rate in ceilings.product.items():
        slope = [min(rate, ceilings.copy * each) for each in (reach[0], rate / ceilings.copy, reach[1])]
        axes.plot([reach[0], rate / ceilings.copy, reach[1]], slope, linewidth=1.2, label=f"ceiling, {name}")
    colours = pyplot.get_cmap("tab10").colors  # type: ignore[attr-defined]
    names = list(dict.fromkeys(row.name for row in points))
    for name in names:
        own = [row for row in points if row.name == name]
        axes.plot(
            [_intensity(row) for row in own],
            [float(row.facts["flops"]) / row.seconds["median"] for row in own],
            linestyle="",
            marker="osD^v<>Xph*P"[names.index(name) % 12],
            color=colours[names.index(name) % 10],
            markersize=5,
            label=name,
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="FLOP a second")
    axes.set_title(title, fontsize=9)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _intensity(row: Row) -> float:
    return float(row.facts["flops"]) / float(row.facts.get("bytes", row.facts.get("traffic", 1.0)))
