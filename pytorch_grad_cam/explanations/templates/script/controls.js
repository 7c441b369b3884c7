// Controls

function swatch(name) {
  const made = element("span", "", "swatch");
  made.style.background = gradient(name);
  return [made, name];
}

function restyle(change) {
  Object.assign(style, change);
  if (figures.length) paint();
  writeLink();
}

function chooseColours(name) {
  press("colour-maps", Object.keys(tables).indexOf(name));
  restyle({ name });
}

function setZero(zeroIsTransparent) {
  byId("zero").checked = zeroIsTransparent;
  restyle({ zeroIsTransparent });
}

function setDark(on) {
  document.documentElement.style.colorScheme = on ? "dark" : "light";
  byId("dark").setAttribute("aria-pressed", on);
}

function slide(id) {
  const value = Number(byId(id).value);
  byId(`${id}-value`).textContent = value.toFixed(2);
  restyle({ [id]: value });
}

function slideTo(id, value) {
  byId(id).value = value;
  slide(id);
}

const keys = {
  ArrowLeft: () => turn(-1),
  ArrowRight: () => turn(1),
  ArrowUp: () => step("rank", -1),
  ArrowDown: () => step("rank", 1),
  "Shift ArrowUp": () => step("method", -1),
  "Shift ArrowDown": () => step("method", 1),
  "Shift ArrowLeft": () => step("layer", -1),
  "Shift ArrowRight": () => step("layer", 1),
  "+": () => zoomTo(zoom.factor * STEP),
  "-": () => zoomTo(zoom.factor / STEP),
  0: () => zoomTo(1),
  PageUp: () => stepSlice(-1),
  PageDown: () => stepSlice(1),
  b: () => showBoxes(!boxesAreShown),
  o: () => showOriginal(true),
};
Object.keys(VIEWS).forEach((name, index) => (keys[index + 1] = () => showView(name)));

function pressKey(event) {
  const name = event.key.startsWith("Arrow") && event.shiftKey ? `Shift ${event.key}` : event.key;
  const act = keys[name];
  if (!act || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
  event.preventDefault();
  act();
}

addEventListener("keydown", pressKey);
addEventListener("keyup", (event) => event.key === "o" && showOriginal(false));
addEventListener("blur", () => showOriginal(false));
addEventListener("hashchange", readLink);
byId("original").addEventListener("pointerdown", () => showOriginal(true));
for (const end of ["pointerup", "pointerleave", "pointercancel"]) byId("original").addEventListener(end, () => showOriginal(false));
byId("previous").addEventListener("click", keys.ArrowLeft);
byId("next").addEventListener("click", keys.ArrowRight);
byId("zoom-in").addEventListener("click", keys["+"]);
byId("zoom-out").addEventListener("click", keys["-"]);
byId("zoom-reset").addEventListener("click", keys[0]);
byId("download").addEventListener("click", download);
byId("slice").addEventListener("input", () => showSlice(Number(byId("slice").value)));
byId("zero").addEventListener("change", () => setZero(byId("zero").checked));
byId("minus").addEventListener("change", () => {
  current.minus = current.explanation.panels[byId("minus").selectedIndex];
  arrange();
  writeLink();
});
for (const id of ["opacity", "threshold"]) byId(id).addEventListener("input", () => slide(id));
byId("filter").addEventListener("input", list);
for (const id of ["kind", "order"]) byId(id).addEventListener("change", list);
toggle("dark", setDark);
toggle("boxes", showBoxes);
toggle("all-slices", (on) => showSlice(on ? "all" : undefined));
images.forEach((item, index) => item.firstElementChild.addEventListener("click", () => showImage(index)));

byId("dark").setAttribute("aria-pressed", matchMedia("(prefers-color-scheme: dark)").matches);
byId("views").append(...Object.entries(VIEWS).map(([name, text]) => button([text], () => showView(name))));
byId("colour-maps").append(...Object.keys(tables).map((name) => button(swatch(name), () => chooseColours(name))));
document.querySelector("nav").hidden = byId("turn").hidden = images.length === 1;
offerKinds();
readLink();
new ResizeObserver(() => figures.length && resize()).observe(stage);
