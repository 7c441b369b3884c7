// The address says what is shown, so that it can be kept and sent: page.html#image=3&map=2&view=beside

const DEFAULTS = { image: "1", map: "1", view, minus: "2", colours: style.name, opacity: "0.7", threshold: "0", zero: "1", boxes: "", slice: "" };
let isRead = false;

function writeLink() {
  if (!isRead) return;
  const { panels } = current.explanation;
  const values = {
    image: current.index + 1,
    map: panels.indexOf(current.panel) + 1,
    view,
    minus: view === "difference" ? panels.indexOf(current.minus) + 1 : DEFAULTS.minus,
    colours: style.name,
    opacity: style.opacity,
    threshold: style.threshold,
    zero: style.zeroIsTransparent ? "1" : "",
    boxes: boxesAreShown ? "1" : "",
    slice: slice ?? "",
  };
  const changed = Object.entries(values).filter(([name, value]) => String(value) !== DEFAULTS[name]);
  history.replaceState(null, "", `#${new URLSearchParams(changed)}`);
}

function readLink() {
  const values = { ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) };
  const numbered = (name, count) => Math.min(count, Math.max(1, Math.floor(values[name]) || 1)) - 1;
  isRead = false;
  chooseColours(values.colours in tables ? values.colours : DEFAULTS.colours);
  setZero(values.zero !== "");
  slideTo("opacity", values.opacity);
  slideTo("threshold", values.threshold);
  showBoxes(values.boxes !== "");
  showView(values.view in VIEWS ? values.view : DEFAULTS.view);
  slice = /^\d+$/.test(values.slice) ? Number(values.slice) : values.slice === "all" ? "all" : undefined;
  showImage(numbered("image", images.length));
  const { panels } = current.explanation;
  current.minus = panels[numbered("minus", panels.length)];
  byId("minus").selectedIndex = panels.indexOf(current.minus);
  showExactly(panels[numbered("map", panels.length)]);
  isRead = true;
}
