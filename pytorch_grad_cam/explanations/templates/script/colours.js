// Colours

const OPAQUE_FROM = 0.5; // where zero is transparent, the value from which a map is as opaque as it gets: a choice
const { signed: signedTable, ...tables } = JSON.parse(byId("colours").textContent);
const style = { name: Object.keys(tables)[0], opacity: 0.7, threshold: 0, zeroIsTransparent: true };

function colourTable(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// The colour and transparency of each level.
function palette(signed) {
  const table = colourTable(signed ? signedTable : tables[style.name]);
  const colours = new Uint8Array(4 * 256);
  for (let level = 0; level < 256; level++) {
    const strength = Math.abs(valueOf(level, signed));
    const entry = signed ? Math.min(255, Math.round((level / (2 * MIDDLE)) * 255)) : level;
    const alpha = style.zeroIsTransparent ? Math.min(1, strength / OPAQUE_FROM) : 1;
    if (strength < style.threshold) continue;
    colours.set([...table.subarray(3 * entry, 3 * entry + 3), Math.round(255 * alpha)], 4 * level);
  }
  return new Uint32Array(colours.buffer);
}

function coloured(levels, width, height, signed) {
  const pixels = new ImageData(width, height);
  const [packed, colours] = [new Uint32Array(pixels.data.buffer), palette(signed)];
  for (let index = 0; index < packed.length; index++) packed[index] = colours[levels[index]];
  const heat = new OffscreenCanvas(width, height);
  heat.getContext("2d").putImageData(pixels, 0, 0);
  return heat;
}

function gradient(name) {
  const table = colourTable(tables[name]);
  const stops = Array.from({ length: 18 }, (_, stop) => `rgb(${table.subarray(45 * stop, 45 * stop + 3).join(" ")})`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

// The scale, in the colours of the blend.
function paintBar(signed) {
  const bar = byId("bar");
  const levels = Uint8Array.from({ length: bar.width }, (_, index) => (signed ? Math.min(254, index) : index));
  const context = bar.getContext("2d");
  context.clearRect(0, 0, bar.width, 1);
  context.globalAlpha = style.opacity;
  context.drawImage(coloured(levels, bar.width, 1, signed), 0, 0);
  byId("lowest").textContent = signed ? "\u22121" : "0";
}
