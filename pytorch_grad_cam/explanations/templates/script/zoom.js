// Zoom: all figures show the same part of the picture

const DEEPEST = 32;
const STEP = 1.5;
const CLICK = 4; // pixels that a pointer may move in a click
let zoom = { factor: 1, x: 0, y: 0 }; // x, y: the upper left corner of what is shown, in pixels of the picture
let pointer; // the figure that the pointer is over, and where, in pixels of the picture
const down = new Map(); // the pointers that are pressed

function visiblePart() {
  const { width, height } = current.explanation;
  return { x: zoom.x, y: zoom.y, width: width / zoom.factor, height: height / zoom.factor };
}

function resetZoom() {
  zoom = { factor: 1, x: 0, y: 0 };
  nameZoom();
}

// Keep a place of the picture where it is on the screen; without one the middle.
function zoomTo(factor, place) {
  const { width, height } = current.explanation;
  const before = visiblePart();
  const { x, y } = place ?? { x: before.x + before.width / 2, y: before.y + before.height / 2 };
  const bounded = Math.min(DEEPEST, Math.max(1, factor));
  const share = zoom.factor / bounded;
  moveTo(bounded, x - (x - before.x) * share, y - (y - before.y) * share, width, height);
}

function moveTo(factor, x, y, width, height) {
  const within = (corner, side) => Math.min(side - side / factor, Math.max(0, corner));
  zoom = { factor, x: within(x, width), y: within(y, height) };
  nameZoom();
  if (figures.length) resize();
}

function nameZoom() {
  byId("zoom-reset").textContent = `${Number(zoom.factor.toFixed(1))}\u00d7`;
  byId("zoom-out").disabled = zoom.factor === 1;
  byId("zoom-in").disabled = zoom.factor === DEEPEST;
  stage.classList.toggle("zoomed", zoom.factor > 1);
}

function placeAt(event, canvas) {
  const { width, height } = current.explanation;
  const part = visiblePart();
  const within = (position, size) => Math.min(1, Math.max(0, position / size));
  const x = part.x + within(event.offsetX, canvas.clientWidth) * part.width;
  const y = part.y + within(event.offsetY, canvas.clientHeight) * part.height;
  return { x: Math.min(x, width - 1e-3), y: Math.min(y, height - 1e-3) };
}

function listen(figure) {
  const { canvas } = figure;
  canvas.addEventListener("wheel", (event) => {
    if (shownSlice() !== "all" && !event.ctrlKey) {
      event.preventDefault();
      return stepSlice(Math.sign(event.deltaY));
    }
    if (view === "grid" || (event.deltaY > 0 && zoom.factor === 1)) return;
    event.preventDefault();
    zoomTo(zoom.factor * STEP ** (-event.deltaY / 100), placeAt(event, canvas));
  });
  canvas.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, { x: event.clientX, y: event.clientY, moved: 0 });
    if (zoom.factor > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => follow(event, figure));
  canvas.addEventListener("pointerup", (event) => {
    const pressed = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (pressed?.moved <= CLICK && view !== "grid") chooseBoxAt(placeAt(event, canvas));
  });
  canvas.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => {
    pointer = undefined;
    describe();
  });
}

// One finger or the mouse moves what is shown, two fingers zoom.
function follow(event, figure) {
  const pressed = down.get(event.pointerId);
  if (pressed) {
    const apart = () => {
      const [first, second] = [...down.values()];
      return second && Math.hypot(first.x - second.x, first.y - second.y);
    };
    const before = apart();
    const [byX, byY] = [event.clientX - pressed.x, event.clientY - pressed.y];
    Object.assign(pressed, { x: event.clientX, y: event.clientY, moved: pressed.moved + Math.hypot(byX, byY) });
    const perPixel = visiblePart().width / figure.canvas.clientWidth;
    const { width, height } = current.explanation;
    if (before) zoomTo((zoom.factor * apart()) / before, placeAt(event, figure.canvas));
    else if (zoom.factor > 1) moveTo(zoom.factor, zoom.x - byX * perPixel, zoom.y - byY * perPixel, width, height);
  }
  pointer = { figure, ...placeAt(event, figure.canvas) };
  describe();
}

// The value under the pointer, or the highest one.
function describe() {
  const chosen = () => (view === "grid" ? figures.find(({ cell }) => cell.panel === current.panel) : figures.at(-1));
  const shown = figures.includes(pointer?.figure) && pointer.figure.levels ? pointer.figure : chosen();
  const { levels, cell } = shown;
  const { width } = current.explanation;
  const highest = () => levels.indexOf(levels.reduce((most, level) => Math.max(most, level)));
  const place = pointer ? Math.floor(pointer.y) * width + Math.floor(pointer.x) : highest();
  const value = valueOf(levels[place], isSigned(cell));
  const inSlice = shownSlice() === "all" ? "" : `, slice ${shownSlice()}`;
  const where = `${value.toFixed(2)} at x ${place % width}, y ${Math.floor(place / width)}${inSlice}`;
  byId("value").textContent = pointer ? where : `highest: ${where}`;
  byId("marker").style.left = `${100 * (isSigned(cell) ? (value + 1) / 2 : value)}%`;
}
