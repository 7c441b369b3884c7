// Boxes: what was asked for, such as a detector's box, each of which can be clicked on; and around what the map shows

let boxesAreShown = false;

// The boxes of all panels that were made like the shown one, and whose they are.
function targetBoxes() {
  const { panels } = current.explanation;
  const alike = (panel) => panel.method === current.panel.method && panel.layer === current.panel.layer;
  return panels.filter(alike).flatMap((panel) => panel.boxes.map((each) => ({ ...each, panel })));
}

function drawBoxes(context, cell, part) {
  const scale = context.canvas.width / part.width;
  const rectangle = ([left, top, right, bottom]) =>
    [left - part.x, top - part.y, right - left, bottom - top].map((length) => length * scale);
  if (boxesAreShown && cell.panel && !cell.minus) {
    context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const region of cell.panel.regions) outline(context, rectangle(region), false);
    context.setLineDash([]);
  }
  const own = view === "single" || view === "beside" ? targetBoxes() : (cell.panel?.boxes ?? []);
  for (const each of own) {
    const chosen = each.panel === undefined || each.panel === current.panel;
    outline(context, rectangle(each.box), !chosen);
    if (chosen) label(context, rectangle(each.box), [each.name, percent(each.score)].filter(Boolean).join(" "));
  }
}

// White on black, so that it can be seen on any picture.
function outline(context, rectangle, faint) {
  for (const [colour, width] of [["#000c", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.globalAlpha = faint ? 0.75 : 1;
    context.lineWidth = (faint ? width / 2 : width) * devicePixelRatio;
    context.strokeRect(...rectangle);
  }
  context.globalAlpha = 1;
}

function label(context, [left, top], text) {
  const size = 13 * devicePixelRatio;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 0.8 * size;
  const x = Math.max(0, Math.min(left, context.canvas.width - width));
  const y = Math.max(0, top - 1.5 * size);
  context.fillStyle = "#000c";
  context.fillRect(x, y, width, 1.5 * size);
  context.fillStyle = "#fff";
  context.fillText(text, x + 0.4 * size, y + 1.1 * size);
}

// The smallest box around a place of the picture chooses its map.
function chooseBoxAt({ x, y }) {
  const around = targetBoxes().filter(({ box: [left, top, right, bottom] }) => left <= x && x < right && top <= y && y < bottom);
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  if (around.length) showExactly(around.reduce((best, each) => (area(each) < area(best) ? each : best)).panel);
}

function showBoxes(on) {
  boxesAreShown = on;
  byId("boxes").setAttribute("aria-pressed", on);
  if (figures.length) paint();
  writeLink();
}
