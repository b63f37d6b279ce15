// Quality against cost as plain SVG. Dots of a kind are one path (a zero-length segment with a round cap is a dot),
// so that ten thousand cost no more than ten. One cursor, moved by pointer or arrow keys, says which row a dot is.

const COSTS = {
  nfe: ["NFE", "network evaluations an image"],
  images: ["Images seen", "training images seen"],
  training: ["Training time", "training device time, seconds"],
  parameters: ["Parameters", "parameters"],
};

function showPlot(track, rows, metric, cost, controls, open) {
  const [name, better] = track.metrics[metric];
  const [label, long] = COSTS[cost];
  const points = rows
    .filter((row) => row.metrics[metric] && row[cost])
    .map((row) => ({ row, x: row[cost][0], y: row.metrics[metric][0] }));
  const title = `${name} against ${long}`;
  const figureElement = element(
    "figure",
    { class: "plot" },
    element(
      "figcaption",
      {},
      element("span", {}, `${name} ${ARROW[better]} `, element("small", {}, `against ${long}`)),
      controls,
    ),
  );
  if (!points.length) {
    figureElement.append(element("p", { class: "empty" }, `No row here states both ${name} and ${label}.`));
    return figureElement;
  }
  const front = paretoFront(
    points.filter((point) => point.row.division === "closed"),
    better,
  );
  const said = element("output", { class: "said" }, "Point at a dot, or press the arrow keys in the plot.");
  const holder = element("div", { class: "canvas" });
  figureElement.append(holder, said, legend(points), frontTable(front, name, metric, cost, label));
  let drawnWidth = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== drawnWidth) {
      drawnWidth = width;
      holder.replaceChildren(canvas({ points, front, name, metric, cost, label, title, said, open, width }));
    }
  }).observe(holder);
  return figureElement;
}

function canvas({ points, front, name, metric, cost, label, title, said, open, width }) {
  const height = Math.round(Math.min(320, Math.max(220, width * 0.6)));
  const [left, right, top, bottom] = [52, 12, 10, 40];
  const x = axisOf(
    points.map((point) => point.x),
    left,
    width - right,
  );
  const y = axisOf(
    points.map((point) => point.y),
    height - bottom,
    top,
  );
  for (const point of points) {
    point.px = x.at(point.x);
    point.py = y.at(point.y);
  }
  const joined = (some) => some.map((one) => `M${one.px.toFixed(1)} ${one.py.toFixed(1)}h0`).join("");
  const dots = (kind) => joined(points.filter((one) => one.row.division === kind));
  const many = points.length > 600 ? " many" : ""; // smaller dots, and the front's stay as they are
  const ordered = [...points].sort((one, other) => one.x - other.x || one.y - other.y);
  const cursor = drawn("g", { class: "cursor", tabindex: 0, role: "button" }, drawn("circle", { r: 9 }));
  let current = Math.max(0, ordered.indexOf(front[front.length - 1]));
  const point = (index, aloud) => {
    current = Math.min(ordered.length - 1, Math.max(0, index));
    const { row, px, py } = ordered[current];
    cursor.setAttribute("transform", `translate(${px.toFixed(1)} ${py.toFixed(1)})`);
    const text =
      `${row.model}, ${row.published ? row.source : recipeText(row)}: ${name} ${row.metrics[metric][2]}, ${label} ${row[cost][1]}` +
      (row.published ? " (published)" : row.division === "open" ? " (open)" : "");
    cursor.setAttribute(
      "aria-label",
      `${text}. Dot ${current + 1} of ${ordered.length}. Arrow keys move, Enter opens.`,
    );
    if (aloud) {
      said.textContent = text;
      cursor.classList.add("shown");
    }
  };
  point(current, false);
  const moves = {
    ArrowRight: 1,
    ArrowUp: 1,
    ArrowLeft: -1,
    ArrowDown: -1,
    PageUp: 10,
    PageDown: -10,
    Home: -Infinity,
    End: Infinity,
  };
  cursor.addEventListener("focus", () => point(current, true));
  cursor.addEventListener("keydown", (event) => {
    if (Object.hasOwn(moves, event.key)) point(current + moves[event.key], true);
    else if (event.key === "Enter" || event.key === " ") open(ordered[current].row);
    else return;
    event.preventDefault();
  });
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let found = -1;
    let least = 24 ** 2;
    ordered.forEach((one, index) => {
      const distance = (one.px - px) ** 2 + (one.py - py) ** 2;
      if (distance < least) [found, least] = [index, distance];
    });
    return found;
  };
  const svg = drawn(
    "svg",
    {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": title,
      on: {
        pointermove: (event) => {
          const found = nearest(event);
          if (found >= 0) point(found, true);
        },
        click: (event) => {
          const found = nearest(event);
          if (found >= 0) open(ordered[found].row);
        },
      },
    },
    axes(x, y, { width, height, left, right, top, bottom, label }),
    drawn("path", {
      class: "dots published",
      d: points
        .filter((one) => one.row.published)
        .map((one) => `M${(one.px - 3).toFixed(1)} ${(one.py - 3).toFixed(1)}l6 6m0-6l-6 6`)
        .join(""),
    }),
    drawn("path", { class: `dots open${many}`, d: dots("open") }),
    drawn("path", { class: `dots hollow${many}`, d: dots("open") }),
    drawn("path", { class: `dots closed${many}`, d: dots("closed") }),
    front.length > 1
      ? drawn("path", {
          class: "front",
          d: front
            .map((one, index) =>
              index
                ? `H${one.px.toFixed(1)}V${one.py.toFixed(1)}`
                : `M${one.px.toFixed(1)} ${one.py.toFixed(1)}`,
            )
            .join(""),
        })
      : null,
    many ? drawn("path", { class: "dots closed", d: joined(front) }) : null,
    names(front, width),
    cursor,
  );
  return svg;
}

function axes(x, y, { width, height, left, right, top, bottom, label }) {
  const text = (attributes, content) => drawn("text", attributes, content);
  let last = -Infinity;
  return drawn(
    "g",
    { class: "axes", "aria-hidden": "true" },
    y.ticks.map((value) => [
      drawn("path", { d: `M${left} ${y.at(value).toFixed(1)}H${width - right}` }),
      text({ x: left - 8, y: y.at(value) + 4, "text-anchor": "end" }, tickText(value)),
    ]),
    x.ticks.map((value) => {
      const at = x.at(value);
      if (at - last < 36) return null; // labels must not run into one another on a phone
      last = at;
      return [
        drawn("path", { d: `M${at.toFixed(1)} ${top}V${height - bottom}` }),
        text({ x: at, y: height - bottom + 18, "text-anchor": "middle" }, tickText(value)),
      ];
    }),
    text({ x: width - right, y: height - 4, "text-anchor": "end", class: "label" }, label),
  );
}

// Names beside the front's dots, where there is room for them.
function names(front, width) {
  const taken = [];
  return drawn(
    "g",
    { class: "names", "aria-hidden": "true" },
    front.map(({ row, px, py }) => {
      const name = row.variant || row.model;
      const text = name.length > 18 ? `${name.slice(0, 17)}…` : name;
      const long = text.length * 8 + 12;
      const start = px + long > width ? px - long : px + 9;
      const box = [start, py - 16, start + long, py + 2];
      if (
        taken.some(
          (other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3],
        )
      )
        return null;
      taken.push(box);
      return drawn("text", { x: start.toFixed(1), y: (py - 5).toFixed(1) }, text);
    }),
  );
}

function legend(points) {
  const kinds = new Set(points.map((point) => point.row.division));
  const entries = [
    ["closed", "closed, the line is the front that nothing beats in both"],
    ["open", "open"],
    ["published", "published, for reference"],
  ];
  return element(
    "ul",
    { class: "legend" },
    entries.filter(([kind]) => kinds.has(kind)).map(([kind, text]) => element("li", { class: kind }, text)),
  );
}

function frontTable(front, name, metric, cost, label) {
  if (!front.length) return null;
  return element(
    "details",
    {},
    element("summary", {}, "The front as a table"),
    element(
      "div",
      { class: "scroll" },
      element(
        "table",
        {},
        element("caption", { class: "unseen" }, `${name} against ${label}: the front`),
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ["Model", "Sampler", label, name].map((text, index) =>
              element("th", { scope: "col", class: index > 1 ? "number" : null }, text),
            ),
          ),
        ),
        element(
          "tbody",
          {},
          front.map(({ row }) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, row.model),
              element("td", {}, recipeText(row)),
              element("td", { class: "number" }, row[cost][1]),
              element("td", { class: "number" }, row.metrics[metric][2]),
            ),
          ),
        ),
      ),
    ),
  );
}
