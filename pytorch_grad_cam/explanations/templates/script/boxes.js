// Boxes and regions: what was asked for, such as a detector's box, each of which can be clicked on; and boxes around
// what the map shows

let boxesAreShown = false;

// The boxes of all panels that were made like the shown one, and whose they are.
function targetBoxes() {
  const { panels } = current.explanation;
  const alike = (panel) => panel.method === current.panel.method && panel.layer === current.panel.layer;
  return panels.filter(alike).flatMap((panel) => panel.boxes.map((each) => ({ ...each, panel })));
}

function drawBoxes(context, cell, part) {
  const scale = context.canvas.width / part.width;
  if (boxesAreShown && cell.panel && !cell.minus) {
    context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const region of cell.panel.regions) outline(context, boxPath(region, part, scale), false);
    context.setLineDash([]);
  }
  const own = view === "single" || view === "beside" ? targetBoxes() : (cell.panel?.boxes ?? []);
  for (const each of own) {
    const chosen = each.panel === undefined || each.panel === current.panel;
    outline(context, placePath(each, part, scale), !chosen);
    const [left, top] = each.box;
    if (chosen) label(context, [(left - part.x) * scale, (top - part.y) * scale], [each.name, percent(each.score)].filter(Boolean).join(" "));
  }
}

function boxPath([left, top, right, bottom], part, scale) {
  const path = new Path2D();
  path.rect(...[left - part.x, top - part.y, right - left, bottom - top].map((length) => length * scale));
  return path;
}

// Of a region its outlines, with those of its holes, else its box.
function placePath({ box, outlines }, part = { x: 0, y: 0 }, scale = 1) {
  if (!outlines) return boxPath(box, part, scale);
  const path = new Path2D();
  for (const corners of outlines) {
    corners.forEach(([x, y], index) => path[index ? "lineTo" : "moveTo"]((x - part.x) * scale, (y - part.y) * scale));
    path.closePath();
  }
  return path;
}

// White on black, so that it can be seen on any picture.
function outline(context, path, faint) {
  for (const [colour, width] of [["#000c", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.globalAlpha = faint ? 0.75 : 1;
    context.lineWidth = (faint ? width / 2 : width) * devicePixelRatio;
    context.stroke(path);
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

// The region at a place of the picture, or the smallest box around it, chooses its map.
function chooseBoxAt({ x, y }) {
  const context = document.createElement("canvas").getContext("2d");
  const around = targetBoxes().filter((each) => context.isPointInPath(placePath(each), x, y, "evenodd"));
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  if (around.length) showExactly(around.reduce((best, each) => (area(each) < area(best) ? each : best)).panel);
}

function showBoxes(on) {
  boxesAreShown = on;
  byId("boxes").setAttribute("aria-pressed", on);
  if (figures.length) paint();
  writeLink();
}
