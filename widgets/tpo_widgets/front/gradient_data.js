// The measurements of a GradientView: which there are, and their numbers, of which all but the first are fetched.

export const GRADIENT_TRACE = -1;
const NO_LOSS = -1;

/**
 * Numbers by measurement, module and owner or pair, all by their places in the document's lists.
 *
 * Gives: `measurements` [{ line, stage, step, seconds, segment, place }], `pairs` [[one, other]], `pairNames`, `at(line)` the measurement of a
 * line of probes.jsonl, `record(measurement)` or null where its numbers are not here yet, `load(measurement)`, `loadAll(progress)`, and
 * `along` { places, bands } on which stages follow one another.
 */
export function gradientData(document, resources) {
  const { owners, modules, groups, segments } = document;
  const pairs = owners.flatMap((_, one) => owners.slice(one + 1).map((_, more) => [one, one + 1 + more]));
  const columns = 2 * owners.length + pairs.length;
  const places = segments.map((segment) => new Map(segment.modules.map((module, place) => [module, place])));
  const measurements = segments.flatMap((segment, number) => segment.lines.map((line, place) => ({
    line, number, place, segment, stage: segment.stage, step: segment.steps[place], seconds: segment.seconds[place] })));
  const run = measurements.filter((each) => each.line !== GRADIENT_TRACE);
  const start = measurements.find((each) => each.line === document.start);
  const first = document.values && Float64Array.from(document.values, (value) => value ?? NaN);
  const chunks = new Map();

  const chunkOf = ({ number, place, segment }) => `values/${number}/${Math.floor(place / segment.chunk)}`;

  function numbers(measurement) {
    const chunk = chunks.get(chunkOf(measurement));
    if (!chunk && measurement === start && first) return [first, 0];
    return chunk ? [chunk, (measurement.place % measurement.segment.chunk) * measurement.segment.modules.length * columns] : null;
  }

  async function load(measurement) {
    const name = chunkOf(measurement);
    if (chunks.has(name)) return;
    const { bytes } = await resources.get(name);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    chunks.set(name, Float32Array.from({ length: bytes.byteLength / 4 }, (_, place) => view.getFloat32(4 * place, true)));
  }

  function record(measurement) {
    const found = numbers(measurement);
    if (!found) return null;
    const [values, offset] = found, place = places[measurement.number], mine = new Set(measurement.segment.owners);
    const read = (module, column) => (place.has(module) ? values[offset + place.get(module) * columns + column] : NaN);
    return {
      measurement,
      has: (module) => place.has(module),
      hasOwner: (owner) => mine.has(owner),
      /** Null where the owner has no loss or the module does not learn, NaN where it is not finite. */
      norm(module, owner) { const value = place.has(module) ? read(module, owner) : NO_LOSS; return value === NO_LOSS ? null : value; },
      share: (module, owner) => read(module, owners.length + owner),
      cosine: (module, pair) => read(module, 2 * owners.length + pair),
      parameters: (module) => measurement.segment.parameters[place.get(module)] ?? NaN,
    };
  }

  return {
    owners, modules, groups, pairs, measurements, run, record, load,
    pairNames: pairs.map(([one, other]) => `${owners[one]}|${owners[other]}`),
    groupOf: new Map(Object.entries(groups).flatMap(([name, members]) => members.map((member) => [member, modules.indexOf(name)]))),
    isGroup: (module) => modules[module] in groups,
    at(line) {
      if (line === GRADIENT_TRACE || !run.length) return start;
      return run.findLast((each) => each.line <= line) ?? run[0];
    },
    async loadAll(progress) {
      const firsts = new Map(run.map((each) => [chunkOf(each), each]));
      await Promise.all([...firsts.values()].map((each) => load(each).then(progress)));
    },
    along: gradientAlong(run),
  };
}

/** Places of measurements on one axis, and { start, end, stage, first } of each stage on it. */
function gradientAlong(run) {
  const bands = [], places = [];
  let start = 0;
  run.forEach((each, number) => {
    const before = run[number - 1];
    if (!before || each.stage !== before.stage || each.step <= before.step) {
      start = places.at(-1) ?? 0;
      bands.push({ start, end: start, stage: each.stage, first: number });
    }
    places.push(start + each.step);
    bands.at(-1).end = places.at(-1);
  });
  return { places, bands };
}

/** Where two owners pull against each other in a record, the strongest first; groups of modules are left out. */
export function gradientConflicts(data, record) {
  const found = [];
  for (const module of record.measurement.segment.modules) {
    if (data.isGroup(module)) continue;
    data.pairs.forEach((_, pair) => {
      const cosine = record.cosine(module, pair);
      if (cosine < 0) found.push({ module, pair, cosine });
    });
  }
  return found.sort((one, other) => one.cosine - other.cosine);
}
