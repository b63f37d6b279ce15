// What a table can show and be sorted by. A column's `value` is a number, a string or null; null comes last in
// either direction. `cell` makes what is shown.

const ARROW = { lower: "↓", higher: "↑" };
const BETTER = { lower: "lower is better", higher: "higher is better" };

const quantity = (key) => ({
  number: true,
  value: (row) => (row[key] ? row[key][0] : null),
  cell: (row) => (row[key] ? row[key][1] : ""),
});

function columnsOf(track) {
  const main = track.metrics.findIndex(([name]) => name === track.main);
  // Of metrics that only published rows have, a track with rows of its own shows none unless asked.
  const own = track.metrics.map(
    (_, index) => !track.rows.length || track.rows.some((row) => row.metrics[index]),
  );
  return [
    {
      key: "rank",
      label: "Rank",
      usual: true,
      number: true,
      value: (row) => row.rank ?? null,
      cell: rankCell,
    },
    { key: "model", label: "Model", usual: true, value: (row) => row.model.toLowerCase(), cell: nameCell },
    ...track.metrics.map(([name, better], index) => ({
      key: name,
      label: name,
      arrow: ARROW[better],
      hint: BETTER[better],
      number: true,
      metric: index,
      better,
      usual: own[index] && (index === main || index < 3),
      value: (row) => (row.metrics[index] ? row.metrics[index][0] : null),
      cell: (row) => (row.metrics[index] ? figure(row.metrics[index][2]) : ""),
    })),
    ...(main < 0
      ? []
      : [
          {
            key: "evaluation",
            label: "Evaluation-seed spread",
            number: true,
            value: (row) => (row.metrics[main]?.[3] ? parseFloat(row.metrics[main][3].slice(2)) : null),
            cell: (row) => row.metrics[main]?.[3] ?? "",
          },
        ]),
    { key: "nfe", label: "NFE", usual: true, ...quantity("nfe") },
    { key: "images", label: "Images seen", usual: true, ...quantity("images"), cell: imagesCell },
    { key: "parameters", label: "Parameters", usual: true, ...quantity("parameters") },
    { key: "training", label: "Training", usual: true, ...quantity("training") },
    { key: "sampling", label: "Sampling, an image", ...quantity("sampling") },
    {
      key: "seeds",
      label: "Seeds",
      usual: true,
      number: true,
      value: (row) => row.seeds?.length ?? null,
      cell: (row) => String(row.seeds?.length ?? ""),
    },
    {
      key: "submitter",
      label: "Submitter",
      usual: true,
      value: (row) => row.submitter?.toLowerCase() ?? null,
      cell: (row) => row.submitter ?? "",
    },
    {
      key: "verified",
      label: "Verified",
      value: (row) => row.marks?.[0]?.[0] ?? null,
      cell: (row) => row.marks?.[0]?.[0] ?? "",
    },
    { key: "date", label: "Date", value: (row) => row.date ?? null, cell: (row) => row.date ?? "" },
  ];
}

// A track of published results alone has nothing but what papers state.
function shownColumns(track) {
  const all = columnsOf(track);
  if (!track.rows.length)
    return all.filter((column) => column.metric !== undefined || ["model", "nfe"].includes(column.key));
  if (!state.columns) return all.filter((column) => column.usual);
  const chosen = state.columns.split(",");
  return all.filter((column) => ["rank", "model"].includes(column.key) || chosen.includes(column.key));
}

function sorted(rows, column, down) {
  const sign = down ? -1 : 1;
  const keyed = rows.map((row) => [column.key === "rank" && !down ? row.order : column.value(row), row]);
  return keyed
    .sort(([a, one], [b, other]) => {
      if (a === null || b === null) return (a === null) - (b === null) || one.order - other.order;
      return (a < b ? -sign : a > b ? sign : 0) || one.order - other.order;
    })
    .map(([, row]) => row);
}

function rankCell(row) {
  if (row.rank === null || row.rank === undefined) return element("span", { class: "unranked" }, "–");
  return [
    String(row.rank),
    row.tied
      ? element(
          "span",
          { title: "tied within the spread over training seeds" },
          "=",
          element("span", { class: "unseen" }, " tied"),
        )
      : null,
  ];
}

// Which of a model's recipes it is, and how it was sampled.
function recipeText(row) {
  return [row.variant, row.sampler, row.steps ? `${row.steps} steps` : null].filter(Boolean).join(", ");
}

function nameCell(row) {
  const under = row.published ? row.source : recipeText(row);
  return element(
    "button",
    { type: "button", class: "open", "data-row": row.key, "aria-haspopup": "dialog" },
    row.image
      ? element("img", {
          src: `data:image/png;base64,${row.image}`,
          alt: "",
          loading: "lazy",
          width: 34,
          height: 34,
        })
      : element("span", { class: "blank", "aria-hidden": "true" }, row.published ? "§" : "·"),
    element("span", {}, element("b", {}, row.model), mark(row), " ", element("small", {}, under)),
  );
}

// That somebody drew a row's images again, and perhaps scored them: a tick for the eye, a word for the ear.
function mark(row) {
  if (!row.marks?.length) return null;
  const [[word, told]] = row.marks;
  return element(
    "span",
    { class: `mark ${word}`, title: `${word} ${told}` },
    element("span", { "aria-hidden": "true" }, word === "reproduced" ? " ✓✓" : " ✓"),
    element("span", { class: "unseen" }, `, ${word},`),
  );
}

function imagesCell(row) {
  if (!row.images) return "";
  return [
    row.images[1],
    " ",
    element("span", { class: "chip", title: `budget class ${row.budget}` }, row.budget),
  ];
}
