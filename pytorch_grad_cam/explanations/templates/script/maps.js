// Maps are grey pictures, one level a value: of 0 to 1 in 256 levels, of a signed one from -1 (0) over 0 (127) to 1
// (254). A map is decoded, enlarged as values, and only then coloured, so that the colours between two pixels are those
// of the values between them.

const MIDDLE = 127;
const valueOf = (level, signed) => (signed ? level / MIDDLE - 1 : level / 255);

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

// A part of a map, { x, y, width, height }, at the size of a canvas.
function levelsOf(map, part, width, height) {
  const surface = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  surface.imageSmoothingQuality = "high";
  surface.drawImage(map, part.x, part.y, part.width, part.height, 0, 0, width, height);
  const { data } = surface.getImageData(0, 0, width, height);
  const levels = new Uint8Array(width * height);
  for (let index = 0; index < levels.length; index++) levels[index] = data[4 * index];
  return levels;
}

function difference(levels, others, signed) {
  const scale = MIDDLE / (signed ? 2 * MIDDLE : 255); // of two signed maps half the difference, which is within -1 and 1
  return levels.map((level, index) => Math.round(MIDDLE + scale * (level - others[index])));
}
