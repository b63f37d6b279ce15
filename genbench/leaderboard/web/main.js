// The page: tracks, plots, table, and what keeps them in step with the address.

function showTracks() {
  const current = currentTrack();
  byId("tracks").replaceChildren(
    ...data.tracks.map((track) =>
      element(
        "a",
        {
          href: `#track=${encodeURIComponent(track.id)}`,
          "aria-current": track === current ? "page" : null,
        },
        element("b", {}, track.dataset),
        ` ${track.resolution}×${track.resolution}`,
        track.conditional ? " conditional" : "",
        element(
          "small",
          {},
          track.rows.length
            ? `${track.rows.length.toLocaleString("en")} ${track.rows.length === 1 ? "row" : "rows"}`
            : "published only",
        ),
      ),
    ),
  );
}

function showTitle(track) {
  byId("title").textContent =
    `${track.dataset} ${track.resolution}×${track.resolution}, ${track.conditional ? "conditional" : "unconditional"}`;
  const lines = track.rows.length
    ? [
        `${track.samples.toLocaleString("en")} samples against the ${track.split} split (SHA-256 ${track.sha256.slice(0, 12)}). `,
        track.main
          ? `Ranked by ${track.main}.`
          : "No row has a Fréchet distance at the standard number of samples: unranked.",
      ]
    : ["Nobody has submitted to this track yet; below is what others published, for reference."];
  byId("about").textContent = lines.join("");
  document.title = `${trackName(track)} · genbench leaderboard`;
}

let currentRows = [];

function openRow(row) {
  state.row = row.key;
  writeAddress();
  showDetail(currentTrack(), row, () => byId("detail").close());
}

function showPlots(track) {
  if (!track.metrics.length) {
    byId("plots").replaceChildren();
    return;
  }
  const names = track.metrics.map(([name]) => name);
  const metric = Math.max(0, names.indexOf(state.metric || track.main));
  const redraw = (key, value) => {
    state[key] = value;
    writeAddress();
    showPlots(currentTrack());
    byId("plots").querySelector(`[data-choice=${key}] select`)?.focus();
  };
  const quality = choice(
    "metric",
    "Metric",
    names[metric],
    names.map((name) => [name, name]),
    (value) => redraw("metric", value === track.main ? "" : value),
  );
  const cost = choice(
    "cost",
    "Cost",
    state.cost,
    ["images", "training", "parameters"].map((key) => [key, COSTS[key][0]]),
    (value) => redraw("cost", value),
  );
  const known = track.rows.length
    ? ["nfe", Object.hasOwn(COSTS, state.cost) ? state.cost : USUAL.cost]
    : ["nfe"];
  byId("plots").replaceChildren(
    ...known.map((key, index) => showPlot(track, currentRows, metric, key, index ? cost : quality, openRow)),
  );
}

let waiting = 0;

// `changed(true)` also makes the filters anew, which a key in the search box must not do to the box itself.
function changed(anew = false) {
  writeAddress();
  if (anew) {
    show();
    return;
  }
  clearTimeout(waiting);
  waiting = setTimeout(
    () => {
      showRows();
      showPlots(currentTrack());
    },
    currentTrack().rows.length > 2000 ? 120 : 0,
  );
}

function showRows(focused) {
  const track = currentTrack();
  currentRows = filtered(track);
  byId("board").lastElementChild.replaceWith(
    showTable(track, currentRows, (selector) => {
      writeAddress();
      showRows(selector);
      byId("board").querySelector("[data-choice=sort] select").value = state.sort;
    }),
  );
  if (focused) byId("board").querySelector(focused)?.focus();
}

function show() {
  const track = currentTrack();
  for (const division of Object.keys(limits)) delete limits[division];
  showTracks();
  showTitle(track);
  currentRows = filtered(track);
  byId("board").replaceChildren(showFilters(track, changed), element("div"));
  showRows();
  showPlots(track);
  const row = state.row && [...track.rows, ...track.published].find((one) => one.key === state.row);
  if (row) openRow(row);
  else if (byId("detail").open) byId("detail").close();
}

function theme(chosen) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  if (chosen) {
    root.dataset.theme = chosen;
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      /* a page without storage forgets the choice */
    }
  }
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  byId("theme").textContent = now === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Switch to ${other} colours`);
  byId("theme").onclick = () => theme(other);
}

try {
  const stored = localStorage.getItem("theme");
  if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
} catch {
  /* as above */
}
theme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme());

byId("board").addEventListener("click", (event) => {
  const button = event.target.closest("[data-row]");
  const row = button && currentRows.find((one) => one.key === button.dataset.row);
  if (row) openRow(row);
});
byId("detail").addEventListener("close", () => {
  state.row = "";
  writeAddress();
});
byId("detail").addEventListener("click", (event) => {
  if (event.target === byId("detail")) byId("detail").close(); // a click beside the dialog's contents
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after "#" is the state's
  byId("board").focus();
});
addEventListener("hashchange", () => {
  readAddress();
  show();
});

readAddress();
show();
