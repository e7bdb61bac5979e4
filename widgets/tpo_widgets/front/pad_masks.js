// The masks of an answer: pictures with alpha that are fetched for the frame that is shown, a few of them kept.

const PAD_MASKS = 12;

/** `redraw()` is called when one has come, `complain(sentence)` where one does not. Gives `at(found, timeSec)` -> { picture, boxes } or null, and `close()`. */
export function padMasks(resources, redraw, complain) {
  const kept = new Map();

  async function fetched(name) {
    try {
      const { about, bytes } = await resources.get(name);
      const picture = bytes.byteLength ? await createImageBitmap(new Blob([bytes], { type: "image/png" })) : null;
      if (!kept.has(name)) return void picture?.close();
      kept.set(name, { picture, boxes: about.boxes });
      redraw();
    } catch (error) {
      complain(`The masks cannot be drawn: ${error.message}`);
    }
  }

  function keep(name) {
    kept.set(name, null);
    for (const [oldest, mask] of kept) {
      if (kept.size <= PAD_MASKS) break;
      mask?.picture?.close();
      kept.delete(oldest);
    }
    fetched(name);
  }

  return {
    at(found, timeSec) {
      const place = padNearest(found.times ?? [], timeSec);
      if (place < 0) return null;
      const name = `mask/${found.number}/${place}`;
      if (!kept.has(name)) keep(name);
      return kept.get(name);
    },
    close() {
      for (const mask of kept.values()) mask?.picture?.close();
      kept.clear();
    },
  };
}

/** The nearest of some times, no farther than half of the usual step between two of them; -1 for none. */
export function padNearest(times, at) {
  if (!times.length) return -1;
  const steps = times.slice(1).map((time, place) => time - times[place]).sort((one, other) => one - other);
  const middle = steps.length / 2;
  const usual = steps.length ? (steps[Math.ceil(middle) - 1] + steps[Math.floor(middle)]) / 2 : Infinity;
  let best = 0;
  times.forEach((time, place) => { if (Math.abs(time - at) < Math.abs(times[best] - at)) best = place; });
  return Math.abs(times[best] - at) <= usual / 2 + 1e-6 ? best : -1;
}
