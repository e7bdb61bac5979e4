// The runs as columns, and which of them pass the filters; `runs_filters.py` has the same rules.

const RUNS_NUMBER = "[+-]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][+-]?\\d+)?";
const RUNS_RANGE = new RegExp(`^(${RUNS_NUMBER})\\.\\.(${RUNS_NUMBER})$`);
const RUNS_CONDITION = new RegExp(`^(>=|<=|!=|>|<|=|)(${RUNS_NUMBER})$`);
const RUNS_COMPARED = {
  ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "!=": (a, b) => a !== b, ">": (a, b) => a > b, "<": (a, b) => a < b,
  "=": (a, b) => a === b, "": (a, b) => a === b,
};

/** What a resource holds. */
export function runsJson({ bytes }) {
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** A number of a cell: whole ones with all their digits, others with four. */
export function runsNumber(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return String(value);
  const short = Number(value.toPrecision(4));
  return short !== 0 && (Math.abs(short) < 1e-4 || Math.abs(short) >= 1e6) ? short.toExponential() : String(short);
}

/** The conditions of a filter of numbers; null where one of them is none. */
function runsConditions(given) {
  const found = given.trim().split(/\s+/).filter(Boolean).map((part) => {
    const range = RUNS_RANGE.exec(part), [, sign, number] = RUNS_CONDITION.exec(part) ?? [], bound = Number(number);
    if (range) {
      const [low, high] = [Number(range[1]), Number(range[2])].sort((a, b) => a - b);
      return { low, high, holds: (value) => low <= value && value <= high };
    }
    if (number === undefined) return null;
    const [low, high] = [sign.startsWith("<") ? -Infinity : bound, sign.startsWith(">") ? Infinity : bound];
    return { low, high, apart: sign === "!=", holds: (value) => RUNS_COMPARED[sign](value, bound) };
  });
  return found.includes(null) ? null : found;
}

/** The two ends of a filter of numbers that an axis can show; null where it is something else. */
export function runsEnds(given) {
  const found = typeof given === "string" ? runsConditions(given) : null;
  if (!found?.length || found.some((each) => each.apart)) return null;
  return [Math.max(...found.map((each) => each.low)), Math.min(...found.map((each) => each.high))];
}

/** A filter as a function of a value; null where it is none. */
export function runsTest(column, given) {
  if (Array.isArray(given)) {
    const through = new Set(given);
    return (value) => through.has(value);
  }
  if (column.kind !== "number") {
    const letters = given.trim().toLowerCase();
    return (value) => (value ?? "").toLowerCase().includes(letters);
  }
  const found = runsConditions(given);
  return found && ((value) => !found.length || (value !== null && found.every((each) => each.holds(value))));
}

export class RunsData {
  /** Columns of a document, and the rows that came with it or later. */
  constructor(columns, rows) {
    this.ids = rows.ids;
    this.links = rows.links;
    this.length = rows.ids.length;
    this.places = new Map(rows.ids.map((id, row) => [id, row]));
    this.columns = new Map(columns.map((each) => {
      const coded = rows.values[each.name];
      return [each.name, { ...each, values: each.categories ? coded.map((code) => (code === null ? null : each.categories[code])) : coded }];
    }));
  }

  text(name, row) {
    const column = this.columns.get(name), value = column.values[row];
    return value === null ? "–" : column.kind === "number" ? runsNumber(value) : value;
  }

  passing(filters, search, only) {
    const tests = Object.entries(filters).filter(([name]) => this.columns.has(name))
      .map(([name, given]) => [this.columns.get(name).values, runsTest(this.columns.get(name), given)]).filter(([, test]) => test);
    const worded = [...this.columns.values()].filter((each) => each.kind !== "number").map((each) => each.values);
    const letters = search.trim().toLowerCase(), through = only && new Set(only);
    return [...this.ids.keys()].filter((row) => (!through || through.has(this.ids[row]))
      && tests.every(([values, test]) => test(values[row]))
      && (!letters || worded.some((values) => (values[row] ?? "").toLowerCase().includes(letters))));
  }

  ordered(rows, [name, direction] = []) {
    if (!name || !this.columns.has(name)) return rows;
    const { values } = this.columns.get(name), sign = direction === "descending" ? -1 : 1;
    const compare = (a, b) => (values[a] < values[b] ? -sign : values[a] > values[b] ? sign : a - b);
    return [...rows.filter((row) => values[row] !== null).sort(compare), ...rows.filter((row) => values[row] === null)];
  }

  /** The best value of a metric; null where all are the same. */
  best(column, rows) {
    let low = Infinity, high = -Infinity;
    for (const row of rows) {
      const value = column.values[row];
      if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
    }
    return low < high ? (column.lower ? low : high) : null;
  }

  /** What a run is called beside others: the values in which it differs. */
  label(row) {
    const apart = [...this.columns.values()].filter((each) => (each.role === "parameter" || each.name === "seed") && new Set(each.values).size > 1);
    const words = apart.map((each) => `${each.name}=${this.text(each.name, row).slice(0, 32)}`);
    return words.join(" ") || (this.columns.has("run") && this.columns.get("run").values[row]) || this.ids[row];
  }

  /** Rows that differ by their seed alone, where there are several; one list for each such group. */
  overSeeds() {
    if (!this.columns.has("seed")) return [];
    const apart = [...this.columns.values()].filter((each) => each.role === "parameter" || each.name === "link");
    const found = new Map();
    for (let row = 0; row < this.length; row++) {
      const key = JSON.stringify(apart.map((each) => each.values[row]));
      found.set(key, [...(found.get(key) ?? []), row]);
    }
    return [...found.values()].filter((rows) => rows.length > 1);
  }
}
