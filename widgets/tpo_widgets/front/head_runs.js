// Masks and boxes of every frame, fetched in runs of frames and kept while they are near.

const HEAD_RUNS_KEPT = 40;
const HEAD_TRAIL = 16;
const headText = new TextDecoder();

/** JSON that travels as a resource. */
export async function jsonOf(resources, name) {
  return JSON.parse(headText.decode((await resources.get(name)).bytes));
}

/**
 * The runs of one sample. `need(source, frame)` resolves when what lies over a frame is there; `over(source, frame)` gives it as
 * [{ object, entry }]; `trail(source, frame, object)` gives the centres of an object's boxes up to that frame, null where it is hidden.
 */
export function headRuns({ resources, place, length }) {
  const kept = new Map();
  const waiting = new Map();
  const nameOf = (source, frame) => `run/${place}/${source}/${Math.floor(frame / length)}`;

  function need(source, frame) {
    const name = nameOf(source, frame);
    if (kept.has(name)) return null;
    if (!waiting.has(name)) {
      waiting.set(name, jsonOf(resources, name).then((run) => {
        kept.set(name, run);
        if (kept.size > HEAD_RUNS_KEPT) kept.delete(kept.keys().next().value);
      }).finally(() => waiting.delete(name)));
    }
    return waiting.get(name);
  }

  function over(source, frame) {
    const run = kept.get(nameOf(source, frame));
    const row = run ? run.frames[frame - run.first] : null;
    if (!row) return [];
    return row.map((at, column) => ({ object: run.objects[column], entry: run.table[at] })).filter(({ entry }) => entry);
  }

  function trail(source, frame, object) {
    const points = [];
    let last = null;
    for (let at = frame; at >= 0 && points.length < HEAD_TRAIL; at--) {
      if (!kept.has(nameOf(source, at))) break;
      const found = over(source, at).find((each) => each.object === object && each.entry.box !== undefined);
      if (!found || found.entry.time === last || found.entry.at > at) continue;
      last = found.entry.time;
      const box = found.entry.box;
      points.unshift(box ? [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] : null);
    }
    return points;
  }

  return { need, over, trail };
}
