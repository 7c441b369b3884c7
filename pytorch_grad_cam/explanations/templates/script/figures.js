// Figures on the stage: one for each cell of the view. A cell is a panel, a panel minus another, or the picture alone.

const LARGEST = 960; // what a small picture is enlarged to, in pixels of the page
const SMALLEST_CELL = 104; // of the grid
const GAP = 12;
const stage = byId("stage");
let figures = []; // cell, canvas, its element, and what is on it: levels at the canvas's size and at the picture's
let arrangements = 0;
let originalIsShown = false;

const isSigned = (cell) => Boolean(cell.minus ?? cell.panel?.signed);

function cellsOf() {
  const { explanation, panel, minus } = current;
  if (view === "beside") return [{ caption: "Original" }, { panel }];
  if (view === "difference") return [{ panel }, { panel: minus }, { panel, minus, caption: "Difference: the first less the second" }];
  if (view === "grid") return explanation.panels.map((each) => ({ panel: each }));
  return [{ panel }];
}

async function arrange() {
  const turn = ++arrangements;
  placeSlice();
  const { explanation } = current;
  const cells = cellsOf();
  explanation.decoded ??= decoded(explanation.picture);
  const maps = cells.flatMap(({ panel, minus }) => [panel, minus].filter(Boolean));
  for (const panel of maps) panel.decoded ??= decoded(panel.map).then((map) => (panel.pixels = map));
  const [picture] = await Promise.all([explanation.decoded, ...maps.map((panel) => panel.decoded)]);
  if (turn !== arrangements) return;
  explanation.pixels = picture;
  const focused = figures.findIndex(({ figure }) => figure.contains(document.activeElement));
  figures = cells.map(figureOf);
  stage.className = view;
  stage.replaceChildren(...figures.map(({ figure }) => figure));
  if (view === "grid" && focused >= 0) figures[focused]?.figure.querySelector("button").focus();
  resize();
  describe();
}

function figureOf(cell) {
  const figure = element("figure", "");
  const canvas = element("canvas", "");
  const caption = cell.caption ?? captionOf(cell.panel);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", cell.panel ? `${current.title} with its map: ${caption}` : current.title);
  const label = element("figcaption", view === "grid" ? "" : caption);
  if (view === "grid") {
    label.append(button([caption], () => openCell(cell)));
    canvas.addEventListener("click", () => openCell(cell));
    if (cell.panel === current.panel) figure.setAttribute("aria-current", "true");
  }
  figure.append(canvas, label);
  const made = { cell, canvas, figure, caption };
  listen(made);
  return made;
}

function openCell({ panel }) {
  wanted = { ...panel };
  current.panel = panel;
  namePanel();
  showView("single");
}

// Where the cells of the grid are: a column for each class, or where there is one, for each layer or method.
function placesInGrid() {
  const [key] = ["rank", "layer", "method"].filter((each) => distinct(each).length > 1).concat("rank");
  const rowOf = (panel) => JSON.stringify(["method", "layer", "rank"].filter((each) => each !== key).map((each) => panel[each]));
  const rows = [...new Set(current.explanation.panels.map(rowOf))];
  const columns = distinct(key);
  const places = current.explanation.panels.map((panel) => [rows.indexOf(rowOf(panel)), columns.indexOf(panel[key])]);
  return { columns: columns.length, places };
}

// The width of a figure's picture and the number of columns.
function fitted() {
  const { width, height } = current.explanation;
  const room = Math.min(stage.clientWidth, Math.floor(stage.getBoundingClientRect().width)); // the former is rounded
  const grows = getComputedStyle(stage).flexGrow === "0"; // with what it holds, on narrow screens
  const tall = grows ? innerHeight : stage.clientHeight;
  const comfortable = Math.max(1, LARGEST / Math.max(width, height)) * width;
  if (view === "grid") {
    const { columns } = placesInGrid();
    const share = (room - GAP * (columns - 1)) / columns;
    return [Math.floor(Math.max(SMALLEST_CELL, Math.min(share, comfortable, (tall / height) * width))), columns];
  }
  const words = figures.length > 1 ? Math.max(...figures.map(({ figure }) => figure.lastElementChild.scrollHeight)) : 0;
  const widthIn = (columns) => {
    const rows = Math.ceil(figures.length / columns);
    const high = (tall - GAP * (rows - 1)) / rows - words;
    return Math.min((room - GAP * (columns - 1)) / columns, (high / height) * width, comfortable);
  };
  const counts = grows ? [Math.min(2, figures.length)] : figures.map((_, index) => index + 1);
  const columns = counts.reduce((best, count) => (widthIn(count) > widthIn(best) ? count : best));
  return [Math.max(1, Math.floor(widthIn(columns))), columns];
}

function resize() {
  const { width, height } = current.explanation;
  const [across, columns] = fitted();
  const { places } = view === "grid" ? placesInGrid() : { places: [] };
  stage.style.gridTemplateColumns = `repeat(${columns}, ${across}px)`;
  const part = visiblePart();
  figures.forEach((figure, index) => {
    const { canvas, cell } = figure;
    if (places[index]) figure.figure.style.gridArea = places[index].map((place) => place + 1).join(" / ");
    canvas.width = Math.max(1, Math.round(across * devicePixelRatio));
    canvas.height = Math.max(1, Math.round((across / width) * height * devicePixelRatio));
    canvas.style.width = `${across}px`;
    if (!cell.panel) return;
    figure.enlarged = levelsIn(cell, part, canvas.width, canvas.height);
    figure.levels ??= levelsIn(cell, { x: 0, y: 0, width, height }, width, height);
  });
  paint();
}

function levelsIn({ panel, minus }, part, width, height) {
  const levels = levelsOf(sliceOf(panel.pixels), part, width, height);
  return minus ? difference(levels, levelsOf(sliceOf(minus.pixels), part, width, height), panel.signed) : levels;
}

function paint() {
  const part = visiblePart();
  const picture = sliceOf(current.explanation.pixels);
  for (const { cell, canvas, enlarged } of figures) {
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.globalAlpha = 1;
    const target = [0, 0, canvas.width, canvas.height];
    context.drawImage(picture, part.x, part.y, part.width, part.height, ...target);
    if (cell.panel && !originalIsShown) {
      context.globalAlpha = style.opacity;
      context.drawImage(coloured(enlarged, canvas.width, canvas.height, isSigned(cell)), 0, 0);
    }
    context.globalAlpha = 1;
    drawBoxes(context, cell, inPicture(part));
  }
  paintBar(isSigned(figures.at(-1).cell));
  performance.mark("drawn");
}

function showOriginal(on) {
  if (on === originalIsShown || !figures.length) return;
  originalIsShown = on;
  byId("original").setAttribute("aria-pressed", on);
  paint();
}
