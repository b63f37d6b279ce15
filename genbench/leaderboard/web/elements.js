// Elements are made here and nowhere else, and what stands in them is always text: no markup is ever parsed.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on")
      for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, String(value));
  }
  made.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return made;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// What a screen reader is told, once, politely. Filled after a pause, so that typing does not chatter.
let telling = 0;
function tell(text) {
  clearTimeout(telling);
  telling = setTimeout(() => {
    byId("status").textContent = text;
  }, 250);
}

function choice(key, label, value, options, change) {
  const select = element(
    "select",
    { on: { change: () => change(select.value) } },
    options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)),
  );
  return element("label", { "data-choice": key }, element("span", {}, label), select);
}

// A number with its spread, as "0.839 ± 0.052" is written in the data: two parts that line up in a column.
function figure(text) {
  const [mean, spread] = text.split(" ± ");
  return element(
    "span",
    { class: "figure" },
    element("span", {}, mean),
    element("span", { class: "spread" }, spread === undefined ? "" : ` ± ${spread}`),
  );
}
