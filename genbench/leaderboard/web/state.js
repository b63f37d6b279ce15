// The page's data, decoded, and what the reader has chosen. All choices stand in the address after "#", so that
// a copied address shows the same table, and a choice that is the usual one is left out of it.

const data = JSON.parse(byId("data").textContent);
for (const track of data.tracks) {
  track.rows = track.rows.map((values, order) => {
    const row = { order, published: false };
    data.fields.forEach((field, index) => {
      row[field] = values[index];
    });
    row.key = row.place.replace(/^submissions\//, "").replace(/\/$/, "");
    return row;
  });
  track.published = track.published.map((row, order) => ({
    ...row,
    order,
    published: true,
    division: "published",
    model: row.method,
    key: `published/${order + 1}`,
  }));
}

const USUAL = {
  track: data.tracks.length ? data.tracks[0].id : "",
  q: "",
  family: "",
  budget: "",
  division: "",
  sort: "rank",
  down: "",
  columns: "",
  metric: "",
  cost: "images",
  row: "",
};
const state = { ...USUAL };

function readAddress() {
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(USUAL)) state[key] = chosen.get(key) ?? USUAL[key];
}

function writeAddress() {
  const chosen = new URLSearchParams();
  for (const [key, usual] of Object.entries(USUAL)) if (state[key] !== usual) chosen.set(key, state[key]);
  const text = chosen.toString();
  // Replaced, not pushed: the Back button leaves the page and does not undo every letter of a search.
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function currentTrack() {
  return data.tracks.find((track) => track.id === state.track) ?? data.tracks[0];
}

function trackName(track) {
  return `${track.dataset} ${track.resolution}×${track.resolution}${track.conditional ? ", conditional" : ""}`;
}

// A row's words, in which the search looks; made when first needed.
function words(row) {
  row.words ??= [
    row.model,
    row.variant,
    row.family,
    row.sampler,
    row.submitter,
    row.note,
    row.outside,
    row.date,
    row.source,
    row.protocol,
    row.division,
    row.key,
    ...(row.devices ?? []),
  ]
    .filter(Boolean)
    .join(" ")
    .toLowerCase();
  return row.words;
}

// The rows that the filters leave. Published rows have no family and no budget: a choice of these hides them.
function filtered(track) {
  const wanted = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  return [...track.rows, ...track.published].filter(
    (row) =>
      (!state.division || row.division === state.division) &&
      (!state.family || row.family === state.family) &&
      (!state.budget || row.budget === state.budget) &&
      wanted.every((word) => words(row).includes(word)),
  );
}

// A configuration from the shared nodes, as plain values.
function unfold(position) {
  const node = data.nodes[position];
  if (Array.isArray(node)) return node.map(unfold);
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, inner]) => [key, unfold(inner)]));
}
