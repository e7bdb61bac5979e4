// Run lengths of COCO masks: column by column, the first run is background, as text or as a list of numbers.

/**
 * The mask of { size: [h, w], counts } as 0 and 1, row by row. Throws where the runs do not fill the size.
 * `into`, where it is as large, is filled and given back, so that a long video leaves no garbage behind.
 */
export function decodeRle({ size: [height, width], counts }, into = null) {
  const mask = into && into.length === height * width ? into.fill(0) : new Uint8Array(height * width);
  let place = 0, inside = 0;
  for (const run of typeof counts === "string" ? rleRuns(counts) : counts) {
    if (run < 0 || place + run > mask.length) throw new Error("These run lengths do not fit the mask's size.");
    if (inside) for (let at = place; at < place + run; at++) mask[(at % height) * width + Math.floor(at / height)] = 1;
    place += run;
    inside = 1 - inside;
  }
  if (place !== mask.length) throw new Error("These run lengths do not fill the mask.");
  return mask;
}

/** Five bits a letter, the lowest first; the last letter's highest bit is the sign. From the fourth on, a difference to two runs before. */
function rleRuns(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let number = 0, factor = 1, letter;
    do {
      letter = text.charCodeAt(at++) - 48;
      if (!(letter >= 0 && letter < 64)) throw new Error("These are no run lengths.");
      number += (letter & 31) * factor;
      factor *= 32;
    } while (letter & 32);
    if (letter & 16) number -= factor;
    runs.push(runs.length > 2 ? number + runs[runs.length - 2] : number);
  }
  return runs;
}

/** The edge of a mask between its pixels as closed lines [[x, y], ...], corners only. */
export function maskEdges(mask, [height, width]) {
  const next = new Map();
  const stride = width + 1;
  const link = (from, to) => { const found = next.get(from); if (found) found.push(to); else next.set(from, [to]); };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (!mask[at]) continue;
      const corner = y * stride + x;
      if (!y || !mask[at - width]) link(corner, corner + 1);
      if (x === width - 1 || !mask[at + 1]) link(corner + 1, corner + 1 + stride);
      if (y === height - 1 || !mask[at + width]) link(corner + 1 + stride, corner + stride);
      if (!x || !mask[at - 1]) link(corner + stride, corner);
    }
  }
  const lines = [];
  for (const first of next.keys()) {
    while (next.get(first).length) lines.push(maskLoop(next, first, stride));
  }
  return lines;
}

function maskLoop(next, first, stride) {
  const line = [];
  let at = first, before = 0;
  do {
    const to = next.get(at).pop();
    if (to - at !== before) line.push([at % stride, Math.floor(at / stride)]);
    before = to - at;
    at = to;
  } while (at !== first);
  return line;
}
