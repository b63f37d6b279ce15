// What chooses among a track's rows and columns.

function showFilters(track, changed) {
  const distinct = (key) => [...new Set(track.rows.map((row) => row[key]))].sort();
  const set = (key) => (value) => {
    state[key] = value;
    changed();
  };
  const columns = track.rows.length
    ? columnsOf(track)
    : [{ key: "rank", label: "as listed" }, ...shownColumns(track)];
  const search = element("input", {
    type: "search",
    value: state.q,
    placeholder: "model, sampler, submitter…",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 200,
    on: {
      input: () => {
        state.q = search.value;
        changed();
      },
    },
  });
  return element(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": "Filter rows",
      on: { submit: (event) => event.preventDefault() },
    },
    element("label", { class: "search" }, element("span", {}, "Search"), search),
    choice(
      "division",
      "Division",
      state.division,
      [["", "all"], ...BODIES.map(([key]) => [key, key])],
      set("division"),
    ),
    track.rows.length
      ? [
          choice(
            "family",
            "Family",
            state.family,
            [["", "all"], ...distinct("family").map((name) => [name, name])],
            set("family"),
          ),
          choice(
            "budget",
            "Budget",
            state.budget,
            [
              ["", "all"],
              ["S", "S, to 1 M images"],
              ["M", "M, to 20 M"],
              ["L", "L, above"],
            ],
            set("budget"),
          ),
        ]
      : null,
    choice(
      "sort",
      "Sort by",
      state.sort,
      columns.map((column) => [column.key, column.label]),
      (key) => {
        state.sort = key;
        state.down = "";
        changed();
      },
    ),
    track.rows.length ? columnChoice(track, changed) : null,
    element(
      "button",
      {
        type: "button",
        class: "quiet",
        on: {
          click: () => {
            for (const key of ["q", "family", "budget", "division", "sort", "down", "columns"])
              state[key] = USUAL[key];
            changed(true);
          },
        },
      },
      "Reset",
    ),
  );
}

function columnChoice(track, changed) {
  const shown = new Set(shownColumns(track).map((column) => column.key));
  const boxes = columnsOf(track)
    .filter((column) => !["rank", "model"].includes(column.key))
    .map((column) => {
      const box = element("input", {
        type: "checkbox",
        checked: shown.has(column.key),
        on: {
          change: () => {
            if (box.checked) shown.add(column.key);
            else shown.delete(column.key);
            state.columns = [...shown].filter((key) => key !== "rank" && key !== "model").join(",") || "none";
            changed();
          },
        },
      });
      return element("label", {}, box, ` ${column.label}`);
    });
  return element(
    "details",
    { class: "columns" },
    element("summary", {}, "Columns"),
    element("fieldset", {}, element("legend", { class: "unseen" }, "Columns shown"), boxes),
  );
}
