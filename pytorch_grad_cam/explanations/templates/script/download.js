// What is shown as one PNG, with its words below

const FONT = 14;

function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (lines.at(-1) && context.measureText(longer).width > width) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

function asOnePicture() {
  const context = document.createElement("canvas").getContext("2d");
  const font = `${FONT * devicePixelRatio}px system-ui, sans-serif`;
  const line = 1.4 * FONT * devicePixelRatio;
  const left = Math.min(...figures.map(({ figure }) => figure.offsetLeft));
  const first = Math.min(...figures.map(({ figure }) => figure.offsetTop));
  const places = figures.map(({ figure }) => [figure.offsetLeft - left, figure.offsetTop - first].map((each) => each * devicePixelRatio));
  const width = Math.max(...figures.map(({ canvas }, index) => places[index][0] + canvas.width));
  context.font = font;
  const words = figures.map(({ caption, canvas }) => (figures.length > 1 ? wrapped(context, caption, canvas.width) : []));
  const bottom = Math.max(...figures.map(({ canvas }, index) => places[index][1] + canvas.height + line * words[index].length));
  const { title, explanation, panel } = current;
  const said = [title, ...(figures.length > 1 ? [] : [captionOf(panel)]), ...Object.values(explanation.about)].join(", ");
  const below = wrapped(context, said, width);
  Object.assign(context.canvas, { width, height: Math.ceil(bottom + line * (below.length + 0.5)) });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  Object.assign(context, { font, fillStyle: "#000" });
  figures.forEach(({ canvas }, index) => {
    const [x, y] = places[index];
    context.drawImage(canvas, x, y);
    words[index].forEach((text, row) => context.fillText(text, x, y + canvas.height + line * (row + 0.8)));
  });
  below.forEach((text, row) => context.fillText(text, 0, bottom + line * (row + 0.8)));
  return context.canvas;
}

function download() {
  asOnePicture().toBlob((blob) => {
    const link = element("a", "");
    link.href = URL.createObjectURL(blob);
    link.download = `${current.title}.${view === "single" ? captionOf(current.panel) : view}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
