// One row, opened: its sample grid, every figure, the command that would train it again, its configuration.

function showDetail(track, row, close) {
  const dialog = byId("detail");
  const parts = row.published ? publishedParts(track, row) : submittedParts(track, row);
  dialog.replaceChildren(
    element(
      "div",
      {},
      element(
        "header",
        {},
        element(
          "h2",
          { id: "detail-title" },
          row.model,
          " ",
          element("small", {}, row.published ? "published" : recipeText(row)),
        ),
        element("button", { type: "button", class: "quiet", on: { click: close } }, "Close"),
      ),
      parts,
    ),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function publishedParts(track, row) {
  return [
    element("p", {}, "A published result, for reference: not measured here and never ranked."),
    facts([
      [
        "Source",
        element(
          "span",
          {},
          `${row.source}, `,
          outward(`https://arxiv.org/abs/${row.arxiv}`, `arXiv ${row.arxiv}`),
        ),
      ],
      ["Evidence", data.evidence[row.evidence]],
      ["Protocol", row.protocol],
      ["NFE", row.nfe ? row.nfe[1] : "not stated, or stated differently"],
    ]),
    metricsTable(track, row),
  ];
}

function outward(address, text) {
  return element("a", { href: address, rel: "noopener noreferrer" }, text);
}

function submittedParts(track, row) {
  const file = (name) => element("a", { href: `${row.place}${name}` }, name);
  const picture = row.image
    ? element("img", {
        src: `data:image/png;base64,${row.image}`,
        alt: `Grid of samples of ${row.model}, ${recipeText(row)}`,
      })
    : element(
        "p",
        { class: "empty" },
        "This grid is not part of the page, to keep it small. It lies beside it: ",
        file("samples.png"),
      );
  return [
    row.note ? element("p", { class: "note" }, row.note) : null,
    row.outside ? element("p", { class: "note" }, element("b", {}, "Outside data: "), row.outside) : null,
    element(
      "div",
      { class: "pair" },
      element(
        "figure",
        { class: "grid" },
        picture,
        element("figcaption", {}, `Samples of training seed ${row.seeds[0]}`),
      ),
      element(
        "div",
        {},
        metricsTable(track, row),
        facts([
          ["Rank", row.rank ? `${row.rank}${row.tied ? ", tied" : ""}` : "not ranked"],
          ["Division", row.division],
          ["Submitted", `${row.submitter}, ${row.date}`],
          ...row.marks.map(([word, told]) => [word === "reproduced" ? "Reproduced" : "Redrawn", told]),
          ["Family", row.family],
          ["Weights", row.weights === "ema" ? "EMA" : "raw"],
          ["NFE", row.nfe[1]],
          ["Parameters", row.parameters[1]],
          ["Images seen", `${row.images[1]} (budget ${row.budget})`],
          ["Training", `${row.training[1]} of device time a seed`],
          ["Sampling", `${row.sampling[1]} an image`],
          ["Device", row.devices.join(", ")],
          ["Training seeds", row.seeds.join(", ")],
          ["Evaluation seeds", row.evaluation.join(", ")],
        ]),
      ),
    ),
    element("h3", {}, "How to reproduce"),
    ...reproduction(row),
    element(
      "details",
      { class: "config", open: true },
      element("summary", {}, "Configuration"),
      element(
        "pre",
        { tabindex: 0, role: "region", "aria-label": "Configuration" },
        yaml(unfold(row.config), ""),
      ),
    ),
    element(
      "p",
      { class: "files" },
      "Files: ",
      [
        "submission.json",
        "config.yaml",
        "samples.png",
        "SHA256SUMS",
        ...(row.marks.length ? ["verified.json"] : []),
        ...row.results,
      ].flatMap(
        (name, index) => [index ? " · " : "", file(name)],
      ),
    ),
  ];
}

function reproduction(row) {
  if (!row.command) {
    return [
      element(
        "p",
        {},
        "What was typed names code, places or characters that a page should not hand to a shell, or differs between seeds. " +
          "It can be read, with care, in the results below.",
      ),
    ];
  }
  const code = element("code", {}, row.command);
  const button = element(
    "button",
    { type: "button", class: "copy", on: { click: () => copy(row.command, code, button) } },
    "Copy",
  );
  return [
    element(
      "div",
      { class: "command" },
      element("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, code),
      button,
    ),
    element(
      "p",
      {},
      `As it was recorded, all seeds at once. It is the submitter’s word: a run of the same recipe has a group_hash in its result.json that begins with ${row.hash}.`,
    ),
  ];
}

async function copy(text, shown, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard for this page: select the text, so that the reader's own keys can copy it.
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected: press Ctrl+C";
    tell("The command is selected. Press Control and C.");
    return;
  }
  button.textContent = "Copied";
  tell("Copied");
  setTimeout(() => {
    button.textContent = "Copy";
  }, 2000);
}

function facts(pairs) {
  return element(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value)
      .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function metricsTable(track, row) {
  const known = track.metrics
    .map(([name, better], index) => [name, better, row.metrics[index]])
    .filter(([, , metric]) => metric);
  return element(
    "table",
    { class: "metrics" },
    element("caption", { class: "unseen" }, `Metrics of ${row.model}`),
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        element("th", { scope: "col" }, "Metric"),
        element(
          "th",
          { scope: "col", class: "number" },
          row.published ? "As printed" : "Mean ± over training seeds",
        ),
        row.published ? null : element("th", { scope: "col", class: "number" }, "Over evaluation seeds"),
      ),
    ),
    element(
      "tbody",
      {},
      known.map(([name, better, metric]) =>
        element(
          "tr",
          {},
          element(
            "th",
            { scope: "row" },
            `${name}\u00a0`,
            element("span", { title: BETTER[better] }, ARROW[better]),
          ),
          element("td", { class: "number" }, metric[2]),
          row.published ? null : element("td", { class: "number" }, metric[3] ?? "one seed"),
        ),
      ),
    ),
  );
}

// Plain values as YAML would write them, for reading. The file config.yaml is what counts.
function yaml(value, indent) {
  if (value === null || typeof value !== "object") return scalar(value);
  const entries = Object.entries(value);
  if (Array.isArray(value)) {
    if (value.every((inner) => inner === null || typeof inner !== "object"))
      return `[${value.map(scalar).join(", ")}]`;
    return value.map((inner) => `\n${indent}- ${yaml(inner, `${indent}  `).trimStart()}`).join("");
  }
  if (!entries.length) return "{}";
  return entries
    .map(([key, inner]) => {
      const text = yaml(inner, `${indent}  `);
      return `\n${indent}${key}:${text.startsWith("\n") ? "" : " "}${text}`;
    })
    .join("")
    .slice(indent ? 0 : 1);
}

function scalar(value) {
  if (typeof value !== "string") return String(value);
  return /^[A-Za-z_][\w./-]*$/.test(value) && !/^(true|false|null|yes|no|on|off)$/i.test(value)
    ? value
    : JSON.stringify(value);
}
