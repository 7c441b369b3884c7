// What is shown: an image, one of its panels, and how

const VIEWS = { single: "Map", beside: "Side by side", difference: "Difference", grid: "All maps" };
let current = { index: -1 }; // index, title and explanation of the image; the panel, and the one it is compared with
let wanted; // method, layer and rank of the class that were last asked for: other images may not have them
let view = "single";

const distinct = (key) => [...new Set(current.explanation.panels.map((panel) => panel[key]))];

// The panel with most of what is wanted: the method before the layer before the class.
function nearest(panels) {
  const closeness = (panel) =>
    4 * (panel.method === wanted.method) +
    2 * (panel.layer === wanted.layer) +
    1 / (1 + Math.abs(panel.rank - wanted.rank));
  return panels.reduce((best, panel) => (closeness(panel) > closeness(best) ? panel : best));
}

function showImage(index) {
  if (!images[index] || index === current.index) return;
  images[current.index]?.firstElementChild.removeAttribute("aria-current");
  const item = images[index].firstElementChild;
  item.setAttribute("aria-current", "true");
  reveal(item);
  const minus = current.explanation?.panels.indexOf(current.minus);
  current = { index, title: titleOf(images[index]), explanation: explanationOf(images[index]) };
  const { panels } = current.explanation;
  current.minus = panels[minus] ?? panels[Math.min(1, panels.length - 1)];
  wanted ??= { ...panels[0] };
  resetZoom();
  nameImage();
  fill("classes", "rank", (rank) => classLabel(panels.find((panel) => panel.rank === rank)));
  fill("methods", "method", (method) => [method]);
  fill("layers", "layer", (layer) => [layer || "No layer"]);
  fillMinus();
  fillSentence();
  showPanel(nearest(panels));
}

function choose(key, value) {
  wanted[key] = value;
  showPanel(nearest(current.explanation.panels.filter((panel) => panel[key] === value)));
}

function step(key, by) {
  const values = distinct(key);
  const value = values[values.indexOf(current.panel[key]) + by];
  if (value !== undefined) choose(key, value);
}

// The one that was pointed at, with all that it is.
function showExactly(panel) {
  wanted = { ...panel };
  showPanel(panel);
}

function showPanel(panel) {
  current.panel = panel;
  namePanel();
  arrange();
  writeLink();
}

function showView(name) {
  view = name;
  press("views", Object.keys(VIEWS).indexOf(view));
  byId("minus-section").hidden = view !== "difference";
  if (!current.panel) return;
  arrange();
  writeLink();
}

// Words

function nameImage() {
  const { index, explanation, title } = current;
  document.title = `${title}: class activation maps`;
  byId("title").textContent = title;
  nameTruth(explanation);
  namePosition(index);
  byId("assumptions").replaceChildren(...explanation.assumptions.map((assumption) => element("li", assumption)));
  const facts = Object.entries(explanation.about).map(([name, fact]) => `${name}: ${fact}`);
  byId("about").replaceChildren(...facts.map((fact) => element("li", fact)));
  const versions = Object.entries(explanation.versions).map(([name, version]) => `${name} ${version}`);
  byId("versions").textContent = versions.join(", ");
}

function nameTruth({ truth, predicted }) {
  const is = { true: "is right", false: `says ${predicted}` }[truth === predicted];
  byId("truth").textContent = truth === null ? "" : `truth: ${truth}; the model ${is}`;
  byId("truth").className = truth === predicted ? "right" : "wrong";
}

function namePanel() {
  const { panel, explanation } = current;
  byId("caption").textContent = captionOf(panel);
  byId("warnings").replaceChildren(...panel.warnings.map((warning) => element("li", warning)));
  byId("warnings").hidden = panel.warnings.length === 0;
  byId("boxes").disabled = !explanation.panels.some((each) => each.boxes.length || each.regions.length);
  press("classes", distinct("rank").indexOf(panel.rank));
  press("sentence", panel.rank);
  press("methods", distinct("method").indexOf(panel.method));
  press("layers", distinct("layer").indexOf(panel.layer));
}

function fill(id, key, label) {
  const buttons = [...byId(id).children];
  const focused = buttons.indexOf(document.activeElement);
  const made = distinct(key).map((value) => button(label(value), () => choose(key, value)));
  byId(id).replaceChildren(...made);
  if (focused >= 0) made[Math.min(focused, made.length - 1)].focus();
}

function fillMinus() {
  const { panels } = current.explanation;
  const options = panels.map((panel) => element("option", captionOf(panel)));
  byId("minus").replaceChildren(...options);
  byId("minus").selectedIndex = panels.indexOf(current.minus);
}

function classLabel(panel) {
  const name = element("span", className(panel));
  if (panel.probability === null) return [name];
  const share = element("span", "", "share");
  share.append(element("span", ""));
  share.firstChild.style.width = `${100 * panel.probability}%`;
  return [name, element("span", percent(panel.probability), "probability"), share];
}
