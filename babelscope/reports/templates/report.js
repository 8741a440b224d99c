"use strict";
// Labels take the color of the text around them, on a dark page too.
const ink = "currentColor";
const config = {
  background: "transparent",
  axis: { labelColor: ink, titleColor: ink, domainColor: "#8888", tickColor: "#8888", gridColor: "#8883" },
  legend: { labelColor: ink, titleColor: ink }, header: { labelColor: ink, titleColor: ink }, title: { color: ink },
  view: { stroke: "#8884" },
};
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const options = {
  renderer: "svg", config, tooltip: { theme: dark ? "dark" : "light" },
  logLevel: 1,  // errors alone: a facet without values is no mistake
  actions: { export: true, source: false, compiled: false, editor: false },
};

async function drawAll() {
  for (const [key, spec] of Object.entries(specs)) {
    try { await vegaEmbed("#" + key, spec, options); } catch (error) { console.error(key, error); }
  }
  document.documentElement.dataset.drawn = Object.keys(specs).length;
}

// --- one item in two languages -------------------------------------------------------------------------------------

function element(kind, parent, text) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;  // never as HTML: prompts are text
  parent.append(made);
  return made;
}

function choice(parent, name, values, chosen, changed) {
  const label = element("label", parent, name + " ");
  const select = element("select", label);
  values.forEach((value, i) => { element("option", select, value).value = i; });
  select.value = chosen;
  select.addEventListener("change", changed);
  return select;
}

function shade(box, text, layer, head) {
  box.replaceChildren();
  const line = element("p", box);
  line.dir = "auto";
  line.lang = text.language;
  const weights = text.weights[layer][head];
  const most = Math.max(...weights, 1e-9);
  text.pieces.forEach((piece, i) => {
    const span = element("span", line, piece || "\u25e6");
    if (!piece) span.className = "special";
    span.style.background = `rgba(0, 114, 178, ${(0.75 * weights[i] / most).toFixed(3)})`;
    span.title = `${weights[i]}`;
  });
}

function drawAttention(place) {
  for (const view of views) {
    const bar = element("div", place), grid = element("div", place);
    bar.className = "choices";
    grid.className = "attended";
    element("code", bar, view.item);
    const names = view.texts.map(t => t.language);
    const boxes = [element("div", grid), element("div", grid)];
    const draw = () => boxes.forEach((box, k) => shade(box, view.texts[sides[k].value], layer.value, head.value));
    const layer = choice(bar, "layer", view.layers, view.layers.length - 1, draw);
    const head = choice(bar, "head", view.texts[0].weights[0].map((_, i) => i), 0, draw);
    const sides = [0, 1].map(k => choice(bar, k ? "right" : "left", names, Math.min(k, names.length - 1), draw));
    draw();
  }
}

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));

const attention = document.getElementById("attention");
if (attention) drawAttention(attention);
drawAll();
