// Maps are grey pictures, one level a value. The shown one is decoded, enlarged as values, and only then coloured, so
// that the colours between two pixels are those of the values between them.

const LARGEST = 960;
const byId = (id) => document.getElementById(id);
const images = [...byId("images").children];
const tables = JSON.parse(byId("colours").textContent);
const canvas = byId("canvas");
const context = canvas.getContext("2d");
const heat = document.createElement("canvas");
let current = { index: -1 }; // index, title and explanation of the image, and the panel that was chosen
let wanted; // method, layer and rank of the class that were last asked for: other images may not have them
let drawn; // what is on the canvas: picture, map, their size, levels of the map, levels on the canvas
let pointer; // where it is over the canvas, in pixels of the picture
let colours = Object.keys(tables)[0];

// Choosing

// A class is its number and its name; of targets with one name, such as two lambdas, the first, the second...
function explanationOf(item) {
  const explanation = JSON.parse(item.querySelector("script").textContent);
  const classes = [];
  const counts = {};
  for (const panel of explanation.panels) {
    const target = [panel.category, panel.name];
    const row = JSON.stringify([panel.method, panel.layer, ...target]);
    counts[row] = (counts[row] ?? 0) + 1;
    const key = JSON.stringify([...target, counts[row]]);
    if (!classes.includes(key)) classes.push(key);
    panel.rank = classes.indexOf(key);
  }
  return explanation;
}

function distinct(key) {
  return [...new Set(current.explanation.panels.map((panel) => panel[key]))];
}

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
  const button = images[index].firstElementChild;
  button.setAttribute("aria-current", "true");
  button.scrollIntoView({ block: "nearest", inline: "nearest" });
  current = { index, title: button.textContent.trim(), explanation: explanationOf(images[index]) };
  const { panels } = current.explanation;
  wanted ??= { ...panels[0] };
  nameImage();
  fill("classes", "rank", (rank) => classLabel(panels.find((panel) => panel.rank === rank)));
  fill("methods", "method", (method) => [method]);
  fill("layers", "layer", (layer) => [layer || "No layer"]);
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

async function showPanel(panel) {
  current.panel = panel;
  namePanel();
  const { explanation } = current;
  const { width, height } = explanation;
  explanation.decoded ??= decoded(explanation.picture);
  panel.decoded ??= decoded(panel.map);
  const [picture, map] = await Promise.all([explanation.decoded, panel.decoded]);
  if (panel !== current.panel) return;
  drawn = { picture, map, width, height, levels: levelsOf(map, width, height) };
  paint();
  describe();
}

// Drawing

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

function levelsOf(map, width, height) {
  const surface = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  surface.imageSmoothingQuality = "high";
  surface.drawImage(map, 0, 0, width, height);
  const { data } = surface.getImageData(0, 0, width, height);
  const levels = new Uint8Array(width * height);
  for (let index = 0; index < levels.length; index++) levels[index] = data[4 * index];
  return levels;
}

// As large as the stage, small pictures up to a comfortable size, in pixels of the screen.
function fit() {
  const { clientWidth, clientHeight } = byId("stage");
  const comfortable = Math.max(1, LARGEST / Math.max(drawn.width, drawn.height));
  const factor = Math.min(clientWidth / drawn.width, clientHeight / drawn.height, comfortable) * devicePixelRatio;
  canvas.width = heat.width = Math.max(1, Math.round(factor * drawn.width));
  canvas.height = heat.height = Math.max(1, Math.round(factor * drawn.height));
  canvas.style.width = `${canvas.width / devicePixelRatio}px`;
}

function paint() {
  fit();
  drawn.enlarged = levelsOf(drawn.map, canvas.width, canvas.height);
  colour();
}

function colour() {
  const table = colourTable(colours);
  const pixels = new ImageData(heat.width, heat.height);
  const palette = new Uint8Array(4 * 256); // transparent below the threshold
  for (let level = Math.ceil(255 * byId("threshold").value); level < 256; level++) {
    palette.set([...table.subarray(3 * level, 3 * level + 3), 255], 4 * level);
  }
  const [packed, packedPalette] = [new Uint32Array(pixels.data.buffer), new Uint32Array(palette.buffer)];
  for (let index = 0; index < packed.length; index++) packed[index] = packedPalette[drawn.enlarged[index]];
  heat.getContext("2d").putImageData(pixels, 0, 0);
  blend();
}

function blend() {
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(drawn.picture, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = byId("opacity").value;
  context.drawImage(heat, 0, 0);
  performance.mark("drawn");
}

function colourTable(name) {
  return Uint8Array.from(atob(tables[name]), (letter) => letter.charCodeAt(0));
}

function gradient(name) {
  const table = colourTable(name);
  const stops = Array.from({ length: 18 }, (_, stop) => `rgb(${table.subarray(45 * stop, 45 * stop + 3).join(" ")})`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

// Words

const percent = (probability) => (probability === null ? "" : `${(100 * probability).toFixed(1)}%`);
const className = (panel) => panel.name || (panel.category === null ? "No class" : `Class ${panel.category}`);

function nameImage() {
  const { index, explanation, title } = current;
  document.title = `${title}: class activation maps`;
  byId("title").textContent = title;
  byId("position").textContent = `${index + 1} of ${images.length}`;
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === images.length - 1;
  byId("warnings").replaceChildren(...explanation.warnings.map((warning) => element("li", warning)));
  byId("warnings").hidden = explanation.warnings.length === 0;
  byId("assumptions").replaceChildren(...explanation.assumptions.map((assumption) => element("li", assumption)));
  const versions = Object.entries(explanation.versions).map(([name, version]) => `${name} ${version}`);
  byId("versions").textContent = versions.join(", ");
}

function namePanel() {
  const { panel, title } = current;
  const caption = [className(panel), percent(panel.probability), panel.method, panel.layer].filter(Boolean).join(", ");
  byId("caption").textContent = caption;
  canvas.setAttribute("aria-label", `${title} with its map: ${caption}`);
  press("classes", distinct("rank").indexOf(panel.rank));
  press("methods", distinct("method").indexOf(panel.method));
  press("layers", distinct("layer").indexOf(panel.layer));
}

// The value under the pointer, or the highest one.
function describe() {
  const { levels, width } = drawn;
  const highest = levels.indexOf(levels.reduce((most, level) => Math.max(most, level)));
  const place = pointer ? pointer.y * width + pointer.x : highest;
  const value = levels[place] / 255;
  const where = `${value.toFixed(2)} at x ${place % width}, y ${Math.floor(place / width)}`;
  byId("value").textContent = pointer ? where : `highest: ${where}`;
  byId("marker").style.left = `${100 * value}%`;
}

// Elements

function element(tag, text, name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

function button(label, act) {
  const made = element("button", "");
  made.type = "button";
  made.append(...label);
  made.addEventListener("click", act);
  return made;
}

function fill(id, key, label) {
  const buttons = [...byId(id).children];
  const focused = buttons.indexOf(document.activeElement);
  const made = distinct(key).map((value) => button(label(value), () => choose(key, value)));
  byId(id).replaceChildren(...made);
  if (focused >= 0) made[Math.min(focused, made.length - 1)].focus();
}

function press(id, pressed) {
  [...byId(id).children].forEach((each, index) => each.setAttribute("aria-pressed", index === pressed));
}

function classLabel(panel) {
  const name = element("span", className(panel));
  if (panel.probability === null) return [name];
  const share = element("span", "", "share");
  share.append(element("span", ""));
  share.firstChild.style.width = `${100 * panel.probability}%`;
  return [name, element("span", percent(panel.probability), "probability"), share];
}

function swatch(name) {
  const made = element("span", "", "swatch");
  made.style.background = gradient(name);
  return [made, name];
}

// Controls

function chooseColours(name) {
  colours = name;
  press("colour-maps", Object.keys(tables).indexOf(name));
  byId("bar").style.background = gradient(name);
  if (drawn) colour();
}

function setDark(on) {
  document.documentElement.style.colorScheme = on ? "dark" : "light";
  byId("dark").setAttribute("aria-pressed", on);
}

function slide(id, act) {
  const input = byId(id);
  const follow = () => {
    byId(`${id}-value`).textContent = Number(input.value).toFixed(2);
    if (drawn) act();
  };
  input.addEventListener("input", follow);
  follow();
}

function hideBelow() {
  byId("hidden-part").style.width = `${100 * byId("threshold").value}%`;
  colour();
}

function point(event) {
  if (!drawn) return;
  const pixel = (position, size, count) => Math.min(count - 1, Math.max(0, Math.floor((position / size) * count)));
  pointer = {
    x: pixel(event.offsetX, canvas.clientWidth, drawn.width),
    y: pixel(event.offsetY, canvas.clientHeight, drawn.height),
  };
  describe();
}

function leave() {
  pointer = undefined;
  if (drawn) describe();
}

const keys = {
  ArrowLeft: () => showImage(current.index - 1),
  ArrowRight: () => showImage(current.index + 1),
  ArrowUp: () => step("rank", -1),
  ArrowDown: () => step("rank", 1),
  "Shift ArrowUp": () => step("method", -1),
  "Shift ArrowDown": () => step("method", 1),
  "Shift ArrowLeft": () => step("layer", -1),
  "Shift ArrowRight": () => step("layer", 1),
};

function pressKey(event) {
  const act = keys[`${event.shiftKey ? "Shift " : ""}${event.key}`];
  if (!act || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input")) return;
  event.preventDefault();
  act();
}

addEventListener("keydown", pressKey);
canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerleave", leave);
byId("previous").addEventListener("click", keys.ArrowLeft);
byId("next").addEventListener("click", keys.ArrowRight);
byId("dark").addEventListener("click", () => setDark(byId("dark").getAttribute("aria-pressed") === "false"));
images.forEach((item, index) => item.firstElementChild.addEventListener("click", () => showImage(index)));

byId("dark").setAttribute("aria-pressed", matchMedia("(prefers-color-scheme: dark)").matches);
byId("colour-maps").append(...Object.keys(tables).map((name) => button(swatch(name), () => chooseColours(name))));
chooseColours(colours);
slide("opacity", blend);
slide("threshold", hideBelow);
document.querySelector("nav").hidden = byId("turn").hidden = images.length === 1;
showImage(0);
new ResizeObserver(() => drawn && paint()).observe(byId("stage"));
