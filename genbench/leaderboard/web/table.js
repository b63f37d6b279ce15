// The table. Closed rows, open rows and published results are three bodies, each sorted within
// itself: whatever the order, nothing published or open comes between ranked rows.

const BODIES = [
  ["closed", "Closed division", "ranked"],
  ["open", "Open division", "anything declared, not ranked"],
  ["published", "Published results", "as others reported them, for reference, not ranked"],
];
const FIRST = 100;
const limits = {};

function showTable(track, rows, redraw) {
  const columns = shownColumns(track);
  const all = columnsOf(track);
  const sort = all.find((column) => column.key === state.sort) ?? all[0];
  const scale = spreadScale(track);
  const head = element(
    "tr",
    {},
    columns.map((column) => heading(column, sort, track, redraw)),
  );
  const bodies = BODIES.map(([division, title, what]) => {
    const members = sorted(
      rows.filter((row) => row.division === division),
      sort,
      state.down === "1",
    );
    if (!members.length) return null;
    const limit = limits[division] ?? FIRST;
    const more = members.length - limit;
    return element(
      "tbody",
      { class: division },
      element(
        "tr",
        { class: "body-title" },
        element(
          "th",
          { colspan: columns.length, scope: "rowgroup" },
          element("span", {}, title),
          ` ${members.length.toLocaleString("en")} · ${what}`,
        ),
      ),
      members.slice(0, limit).map((row) =>
        element(
          "tr",
          {},
          columns.map((column) => cell(column, row, sort, track, scale)),
        ),
      ),
      more > 0
        ? element(
            "tr",
            {},
            element(
              "td",
              { colspan: columns.length },
              element(
                "button",
                {
                  type: "button",
                  class: "quiet",
                  on: {
                    click: () => {
                      limits[division] = limit + 500;
                      redraw();
                    },
                  },
                },
                `Show ${Math.min(more, 500)} more of ${more.toLocaleString("en")}`,
              ),
            ),
          )
        : null,
    );
  });
  const total = track.rows.length + track.published.length;
  tell(`${rows.length} of ${total} rows, sorted by ${sort.label}${state.down === "1" ? ", descending" : ""}`);
  if (!rows.length)
    return element(
      "p",
      { class: "empty" },
      total ? "No row has all of this. Reset shows all again." : "There are no submissions yet.",
    );
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Results, ${trackName(track)}` },
    element(
      "table",
      {},
      element("caption", { class: "unseen" }, `Results, ${trackName(track)}`),
      element("thead", {}, head),
      bodies,
    ),
  );
}

// On a phone a table has room for four columns: rank, model, the main metric, and what it is sorted by.
function narrowToo(column, sort, track) {
  const fourth = ["rank", "model", track.main].includes(sort.key) ? "nfe" : sort.key;
  return ["rank", "model", track.main, fourth].includes(column.key);
}

function classes(column, sort, track) {
  return (
    [column.number ? "number" : "", narrowToo(column, sort, track) ? "" : "wide"].join(" ").trim() || null
  );
}

function heading(column, sort, track, redraw) {
  const current = column.key === sort.key;
  const down = current && state.down === "1";
  return element(
    "th",
    {
      scope: "col",
      class: classes(column, sort, track),
      "aria-sort": current ? (down ? "descending" : "ascending") : null,
    },
    element(
      "button",
      {
        type: "button",
        title: column.hint,
        "data-sort": column.key,
        on: {
          click: () => {
            // The first click shows the best first, the second turns the order round.
            const first = column.better === "higher" ? "1" : "";
            state.down = current ? (down ? "" : "1") : first;
            state.sort = column.key;
            redraw(`[data-sort="${CSS.escape(column.key)}"]`);
          },
        },
      },
      column.label,
      column.arrow ? ` ${column.arrow}` : "",
      element("span", { class: "order", "aria-hidden": "true" }, current ? (down ? "▾" : "▴") : ""),
    ),
  );
}

function cell(column, row, sort, track, scale) {
  const content = column.cell(row);
  const whisker =
    column.key === track.main && scale && !row.published
      ? spreadLine(row.metrics[column.metric], scale)
      : null;
  return element(
    column.key === "model" ? "th" : "td",
    { class: classes(column, sort, track), scope: column.key === "model" ? "row" : null },
    content,
    whisker,
  );
}

// A mean and its spread over training seeds as a dot and a line, on one scale for the whole track.
function spreadScale(track) {
  const index = track.metrics.findIndex(([name]) => name === track.main);
  const known = track.rows.map((row) => row.metrics[index]).filter(Boolean);
  if (known.length < 3) return null;
  let low = Infinity;
  let high = -Infinity;
  for (const [mean, spread] of known) {
    low = Math.min(low, mean - (spread ?? 0));
    high = Math.max(high, mean + (spread ?? 0));
  }
  const logarithmic = low > 0 && high / low > 8;
  const place = logarithmic ? Math.log : (value) => value;
  return (value) =>
    2 + 76 * Math.min(1, Math.max(0, (place(value) - place(low)) / (place(high) - place(low) || 1)));
}

function spreadLine(metric, scale) {
  if (!metric || metric.length < 4) return null;
  const [mean, spread] = metric;
  return drawn(
    "svg",
    { class: "whisker", viewBox: "0 0 80 8", width: 80, height: 8, "aria-hidden": "true" },
    drawn("path", { d: "M2 4H78", class: "rail" }),
    spread
      ? drawn("path", {
          d: `M${scale(mean - spread).toFixed(1)} 4H${scale(mean + spread).toFixed(1)}`,
          class: "span",
        })
      : null,
    drawn("circle", { cx: scale(mean).toFixed(1), cy: 4, r: 2.5 }),
  );
}
