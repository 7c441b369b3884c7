// Slices of a volume, or frames of a clip: all lie side by side in one picture, of which one at a time is shown

let slice; // its number, "all", or where nobody has chosen one that in which the map is highest

const hasSlices = () => Boolean(current.explanation.slices);

function shownSlice() {
  if (!hasSlices() || slice === "all") return "all";
  return Math.min(slice ?? current.panel.slice, current.explanation.slices.count - 1);
}

// What is shown of the picture: its size, and where in the picture it begins.
function placeSlice() {
  const { explanation, panel } = current;
  const { slices } = explanation;
  byId("slices").hidden = byId("slice-keys").hidden = !slices;
  if (!slices) return;
  explanation.whole ??= { width: explanation.width, height: explanation.height, origin: { x: 0, y: 0 } };
  const shown = shownSlice();
  const { count, columns, width, height } = slices;
  const origin = { x: (shown % columns) * width, y: Math.floor(shown / columns) * height };
  Object.assign(explanation, shown === "all" ? explanation.whole : { width, height, origin });
  byId("slice").max = count - 1;
  byId("slice").value = shown === "all" ? panel.slice : shown;
  byId("slice-value").textContent = shown === "all" ? `all ${count}` : `${shown} of ${count - 1}`;
  byId("all-slices").setAttribute("aria-pressed", shown === "all");
}

function showSlice(number) {
  if (!hasSlices()) return;
  const isOther = (number === "all") !== (shownSlice() === "all"); // of another size
  slice = number;
  if (isOther) {
    resetZoom();
    pointer = undefined;
  }
  arrange();
  writeLink();
}

function stepSlice(by) {
  if (!hasSlices()) return;
  const last = current.explanation.slices.count - 1;
  const from = shownSlice() === "all" ? current.panel.slice : shownSlice();
  showSlice(Math.min(last, Math.max(0, from + by)));
}

// What is shown of a picture of all slices, cut out, so that enlarged it has nothing of its neighbours.
function sliceOf(image) {
  const { width, height } = current.explanation;
  if (shownSlice() === "all") return image;
  const { x, y } = inPicture({ x: 0, y: 0 });
  const cut = new OffscreenCanvas(width, height);
  cut.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
  return cut;
}

// A part of what is shown as a part of the whole picture.
function inPicture(part) {
  const { x, y } = current.explanation.origin ?? { x: 0, y: 0 };
  return { ...part, x: part.x + x, y: part.y + y };
}
