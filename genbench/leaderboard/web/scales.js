// The front of a plot, and its axes.

// Rows that nothing beats in both: in order of cost, each better than all cheaper ones. Of equals the first stays.
function paretoFront(points, better) {
  const sign = better === "higher" ? -1 : 1;
  const ordered = [...points].sort((one, other) => one.x - other.x || sign * (one.y - other.y));
  let best = Infinity;
  return ordered.filter((point) => {
    if (sign * point.y >= best) return false;
    best = sign * point.y;
    return true;
  });
}

// An axis from `low` to `high` on pixels `from`..`to`: logarithmic where it spans much, with ticks at round numbers.
function axisOf(values, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const logarithmic = low > 0 && high / low > 12;
  const place = logarithmic ? Math.log10 : (value) => value;
  const margin = (place(high) - place(low)) * 0.06 || (logarithmic ? 0.3 : Math.abs(low) * 0.1 || 1);
  const [start, end] = [place(low) - margin, place(high) + margin];
  const at = (value) => from + ((to - from) * (place(value) - start)) / (end - start);
  return { at, logarithmic, ticks: logarithmic ? decades(start, end) : steps(start, end) };
}

function decades(start, end) {
  const factors = end - start > 3 ? [1] : end - start > 1.2 ? [1, 3] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(start); power <= end; power += end - start > 7 ? 2 : 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (Math.log10(value) >= start && Math.log10(value) <= end) found.push(value);
    }
  }
  return found;
}

function steps(start, end) {
  const rough = (end - start) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let count = Math.ceil(start / step); count * step <= end; count += 1) found.push(count * step);
  return found;
}

function tickText(value) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(0);
  const units = [
    [1e9, " G"],
    [1e6, " M"],
    [1e4, " k"],
  ];
  for (const [size, unit] of units)
    if (Math.abs(value) >= size) return `${+(value / (size === 1e4 ? 1e3 : size)).toPrecision(3)}${unit}`;
  return String(+value.toPrecision(3));
}
