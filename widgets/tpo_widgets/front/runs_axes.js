// Parallel coordinates: an axis for each parameter and metric, a line for each run; ranges brushed on an axis are filters of the table.

import { h, s } from "./dom.js";
import { runsEnds, runsNumber } from "./runs_data.js";
import { RUNS_OPENS, runsChecks } from "./runs_popover.js";

const AXES_TOP = 30, AXES_HEIGHT = 230, AXES_BELOW = 52, AXES_LEFT = 34, AXES_RIGHT = 92, AXES_NEAR = 9, AXES_SHADES = 24;
const AXES_SCALE = [[0x3f, 0x77, 0xc8], [0x9b, 0x8f, 0x88], [0xc4, 0x70, 0x1a]];
const AXES_KEYS = "← → move the axis, ↑ ↓ its upper end, with Shift its lower end, L logarithmic, Esc all values";

/** The colour of a part from 0 to 1 of a scale; blue is least, orange most. */
function axesShade(part) {
  const [one, other, share] = part < 0.5 ? [AXES_SCALE[0], AXES_SCALE[1], 2 * part] : [AXES_SCALE[1], AXES_SCALE[2], 2 * part - 1];
  return `rgb(${one.map((start, place) => Math.round(start + (other[place] - start) * share)).join(",")})`;
}

/** Round numbers between two ends. */
export function runsTicks(low, high, most = 4) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * (1 - 1e-9));
  const found = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high * (1 + 1e-9) + step * 1e-9; number++) found.push(Number((number * step).toPrecision(12)));
  return found;
}

/** One axis: `part(value)` from 0 at its foot to 1, `value(part)` back, `ticks` with their words. */
function axisOf(column, isLog) {
  const present = column.values.filter((value) => value !== null);
  if (column.kind !== "number") {
    const words = column.categories, count = Math.max(words.length, 1);
    const part = (value) => (value === null ? null : (words.indexOf(value) + 0.5) / count);
    const every = Math.ceil(count / 12);
    return { column, name: column.name, words, part, ticks: words.filter((_, place) => place % every === 0).map((word) => [word, word]) };
  }
  const low = present.reduce((a, b) => Math.min(a, b), Infinity), high = present.reduce((a, b) => Math.max(a, b), -Infinity);
  const log = isLog && low > 0, there = present.length > 0;
  const part = (value) => {
    if (value === null || !there) return null;
    if (high === low) return 0.5;
    return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  };
  const value = (share) => (log ? low * (high / low) ** share : low + (high - low) * share);
  const different = [...new Set(present)].sort((a, b) => a - b);
  let ticks = different;
  if (different.length > 6) {
    ticks = log ? runsTicks(Math.log10(low), Math.log10(high)).filter(Number.isInteger).map((power) => 10 ** power) : runsTicks(low, high, 5);
    if (ticks.length < 2) ticks = [low, high];
  }
  return { column, name: column.name, low, high, log, canLog: there && low > 0 && high > low, part, value, ticks: ticks.map((each) => [each, runsNumber(each)]) };
}

export function runsAxesView(runs) {
  const svg = s("svg", { class: "tpo-runs-chart", role: "group", "aria-label": "Parallel coordinates", height: AXES_TOP + AXES_HEIGHT + AXES_BELOW });
  const axesButton = h("button", { type: "button", ...RUNS_OPENS, onclick: choose }, "Axes ▾");
  const colours = h("select", { "aria-label": "Colour by", onchange: () => runs.set({ colour: colours.value }) });
  const legend = h("span", { class: "tpo-runs-scale" });
  const told = h("p", { class: "tpo-soft tpo-runs-told", "aria-live": "polite" });
  const element = h("section", { "aria-label": "Parallel coordinates" },
    h("div", { class: "tpo-row" }, h("h3", {}, "Parallel coordinates"), axesButton, h("label", {}, "colour ", colours), legend), svg, told);
  const linear = new Map();
  let axes = [], across = [], width = 0, drag = null, lines = new Map();

  const yOf = (part) => (part === null ? AXES_TOP + AXES_HEIGHT + 22 : AXES_TOP + (1 - part) * AXES_HEIGHT);
  const partOf = (y) => Math.min(Math.max(1 - (y - AXES_TOP) / AXES_HEIGHT, 0), 1);
  const givenTo = (axis) => runs.get("filters")[axis.name];
  const isLog = (column) => linear.get(column.name) ?? column.log;

  function choose() {
    const shown = runs.axes();
    const options = [...runs.data.columns.values()].filter((each) => each.kind === "number" || (each.categories && each.categories.length <= 30))
      .map((each) => ({ value: each.name, words: each.name, checked: shown.includes(each.name) }));
    runs.popover.open(axesButton, "Axes", runsChecks(options, (chosen) => {
      const kept = runs.axes().filter((name) => chosen.includes(name));
      runs.set({ axes: [...kept, ...chosen.filter((name) => !kept.includes(name))] });
    }));
  }

  function draw() {
    width = svg.parentNode.clientWidth || 860;
    svg.setAttribute("viewBox", `0 0 ${width} ${AXES_TOP + AXES_HEIGHT + AXES_BELOW}`);
    axes = runs.axes().map((name) => axisOf(runs.column(name), isLog(runs.column(name))));
    const step = (width - AXES_LEFT - AXES_RIGHT) / Math.max(axes.length - 1, 1);
    across = axes.map((_, place) => AXES_LEFT + step * place);
    const focused = svg.contains(document.activeElement) && document.activeElement.dataset.axis;
    lines = new Map();
    const isMissing = runs.data.ids.some((_, row) => axes.some((axis) => axis.part(axis.column.values[row]) === null));
    svg.replaceChildren(s("title", {}, `Parallel coordinates of ${axes.map((axis) => axis.name).join(", ")}`),
      isMissing ? s("text", { x: 2, y: yOf(null) + 4, class: "soft" }, "none") : "", ...drawLines(), s("path", { class: "pointed" }), ...axes.map((axis, place) => drawAxis(axis, place, step)));
    if (focused) svg.querySelector(`[data-axis="${CSS.escape(focused)}"]`)?.focus();
    drawLegend();
    point(runs.pointed);
  }

  function colourAxis() {
    const column = runs.column(runs.colour());
    return column && axisOf(column, isLog(column));
  }

  function pathOf(row) {
    if (!lines.has(row)) {
      const at = axes.map((axis, place) => `${across[place].toFixed(1)} ${yOf(axis.part(axis.column.values[row])).toFixed(1)}`);
      lines.set(row, at.length === 1 ? `M${at[0]}h10` : `M${at.join("L")}`);
    }
    return lines.get(row);
  }

  // one path for all lines of a shade, so that thousands of runs stay fast
  function drawLines() {
    if (!axes.length) return [];
    const passing = new Set(runs.visible), shades = new Map(), scale = colourAxis();
    const out = [...runs.data.ids.keys()].filter((row) => !passing.has(row));
    for (const row of runs.visible) {
      const part = scale ? scale.part(scale.column.values[row]) : 0;
      const shade = part === null ? "var(--tpo-soft)" : axesShade(Math.round(part * AXES_SHADES) / AXES_SHADES);
      shades.set(shade, (shades.get(shade) ?? "") + pathOf(row));
    }
    const chosen = runs.get("selected").map(runs.row).filter((row) => row !== undefined);
    const opacity = runs.visible.length > 300 ? 0.4 : 0.85;
    return [s("path", { class: "out", d: out.map(pathOf).join("") }),
      ...[...shades].map(([stroke, found]) => s("path", { class: "in", d: found, style: { stroke }, opacity })),
      ...chosen.map((row) => s("path", { class: "chosen", d: pathOf(row), "data-row": row }))];
  }

  function drawAxis(axis, place, step) {
    const { column } = axis, x = across[place], y0 = AXES_TOP, y1 = AXES_TOP + AXES_HEIGHT, given = givenTo(axis);
    const letters = Math.max(4, Math.floor((place < axes.length - 1 ? step - 14 : AXES_RIGHT - 14) / 6.2));
    const cut = (words, most = letters) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);
    const ends = bands(axis, given), brushes = ends.map(([low, high]) => s("rect", { class: "brush", x: x - 7, y: yOf(high), width: 14, height: Math.max(2, yOf(low) - yOf(high)) }));
    const name = cut(column.name, Math.max(6, Math.floor((axes.length > 1 ? step - 8 : 200) / 6.4)));
    const atEdge = place === 0 && column.name.length > 8;
    return s("g", { class: "axis", tabindex: 0, role: "slider", "data-axis": column.name, "data-place": place, "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": 1,
      "aria-valuenow": ends.at(-1)?.[1] ?? 1, "aria-valuetext": given === undefined ? "all values" : String(given), "aria-label": `Axis ${column.name}. ${AXES_KEYS}` },
    s("line", { x1: x, x2: x, y1: y0, y2: y1 }), ...brushes,
    s("rect", { class: "grip", "data-part": "line", x: x - 12, y: y0 - 6, width: 24, height: AXES_HEIGHT + 12 }),
    ...axis.ticks.map(([value, words]) => [s("line", { x1: x - 3, x2: x + 3, y1: yOf(axis.part(value)), y2: yOf(axis.part(value)) }),
      s("text", { class: "tick", x: x + 8, y: yOf(axis.part(value)) + 4 }, s("title", {}, words), cut(words))]),
    s("text", { class: "name", "data-part": "name", x: atEdge ? 2 : x, y: 14, "text-anchor": atEdge ? "start" : "middle" }, s("title", {}, `${column.name}: drag to move`), name),
    axis.canLog ? s("text", { class: "log", "data-part": "log", x, y: y1 + 42, "text-anchor": "middle" }, s("title", {}, "change between linear and logarithmic"), axis.log ? "log" : "linear") : "");
  }

  /** The parts of an axis that a filter lets through: [[from, to], ...]. */
  function bands(axis, given) {
    if (given === undefined) return [];
    if (axis.words) {
      const list = Array.isArray(given) ? given : axis.words.filter((word) => word.toLowerCase().includes(given.trim().toLowerCase()));
      const places = list.map((word) => axis.words.indexOf(word)).filter((place) => place >= 0).sort((a, b) => a - b);
      return places.map((place) => [place / axis.words.length, (place + 1) / axis.words.length]);
    }
    const ends = runsEnds(given);
    if (!ends || !axis.ticks.length) return [];
    const clamped = ends.map((end) => (end <= axis.low ? 0 : end >= axis.high ? 1 : axis.part(end)));
    return axis.high === axis.low ? [[0, 1]] : [clamped];
  }

  /** Filters an axis to the part between two heights; all of it is no filter. */
  function brush(axis, from, to, save) {
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    if (axis.words) {
      const inside = axis.words.filter((_, place) => (place + 0.5) / axis.words.length >= low - 1e-9 && (place + 0.5) / axis.words.length <= high + 1e-9);
      return runs.filter(axis.name, inside.length === axis.words.length && low <= 0 && high >= 1 ? null : inside, save);
    }
    const rounded = (part) => (part <= 0.004 ? axis.low : part >= 0.996 ? axis.high : Number(axis.value(part).toPrecision(4)));
    runs.filter(axis.name, low <= 0 && high >= 1 ? null : `${rounded(low)}..${rounded(high)}`, save);
  }

  function drawLegend() {
    const names = [...runs.data.columns.values()].filter((each) => each.kind === "number").map((each) => each.name);
    if (colours.dataset.names !== names.join("\n")) {
      colours.dataset.names = names.join("\n");
      colours.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    colours.value = runs.colour();
    colours.disabled = !names.length;
    const axis = colourAxis();
    const bar = h("span", { class: "bar", style: { background: `linear-gradient(to right, ${[0, 0.5, 1].map(axesShade)})` } });
    legend.replaceChildren(...(axis && axis.ticks.length && axis.high > axis.low ? [runsNumber(axis.low), bar, runsNumber(axis.high)] : []));
  }

  function point(row) {
    const path = svg.querySelector("path.pointed"), isRow = row >= 0 && row < runs.data.length && axes.length > 0;
    if (path) path.setAttribute("d", isRow ? pathOf(row) : "");
    const colour = runs.colour();
    told.textContent = !isRow ? (svg.contains(document.activeElement) ? AXES_KEYS : "Drag along an axis to filter, its name to move it.")
      : `${runs.data.label(row)}${colour ? `, ${colour} ${runs.data.text(colour, row)}` : ""}`;
  }

  function nearest(event) {
    const place = svg.getBoundingClientRect(), x = event.clientX - place.left, y = event.clientY - place.top;
    const left = across.findLastIndex((at) => at <= x);
    if (left < 0 || left >= axes.length - 1) return -1;
    const share = (x - across[left]) / (across[left + 1] - across[left]);
    let found = -1, least = AXES_NEAR;
    for (const row of runs.visible) {
      const [from, to] = [left, left + 1].map((at) => yOf(axes[at].part(axes[at].column.values[row])));
      const away = Math.abs(from + (to - from) * share - y);
      if (away < least) { least = away; found = row; }
    }
    return found;
  }

  function changeLog(axis) {
    linear.set(axis.name, !axis.log);
    draw();
  }

  svg.addEventListener("pointerdown", (event) => {
    const group = event.target.closest("[data-axis]"), part = event.target.closest("[data-part]")?.dataset.part;
    if (!group || !part || event.button) return;
    const axis = axes[Number(group.dataset.place)], at = partOf(event.clientY - svg.getBoundingClientRect().top);
    if (part === "log") return changeLog(axis);
    event.preventDefault();
    group.focus();
    svg.setPointerCapture(event.pointerId);
    drag = { part, name: axis.name, from: at, start: [event.clientX, event.clientY], moved: false };
    const [band] = part === "line" ? bands(axis, givenTo(axis)) : [];
    if (!band || axis.words) return;
    const near = 6 / AXES_HEIGHT;
    if (Math.abs(at - band[0]) < near) drag.from = band[1];
    else if (Math.abs(at - band[1]) < near) drag.from = band[0];
    else if (at > band[0] && at < band[1]) drag.band = band;
  });
  svg.addEventListener("pointermove", (event) => {
    if (!drag) return runs.point(nearest(event));
    if (!drag.moved && Math.hypot(event.clientX - drag.start[0], event.clientY - drag.start[1]) < 4) return;
    drag.moved = true;
    const place = svg.getBoundingClientRect(), here = axes.findIndex((each) => each.name === drag.name);
    if (here < 0) return;
    if (drag.part === "name") {
      const step = across.length > 1 ? across[1] - across[0] : 1;
      const wanted = Math.min(Math.max(Math.round((event.clientX - place.left - AXES_LEFT) / step), 0), axes.length - 1);
      if (wanted !== here) moveAxis(here, wanted, false);
      return;
    }
    const at = partOf(event.clientY - place.top);
    if (!drag.band) return brush(axes[here], drag.from, at, false);
    const shift = Math.min(Math.max(at - drag.from, -drag.band[0]), 1 - drag.band[1]);
    brush(axes[here], drag.band[0] + shift, drag.band[1] + shift, false);
  });
  svg.addEventListener("pointerup", () => {
    if (!drag) return;
    if (!drag.moved && drag.part === "line") runs.filter(drag.name, null, false);
    drag = null;
    runs.model.save_changes();
  });
  svg.addEventListener("pointerleave", () => { if (!drag) runs.point(-1); });
  svg.addEventListener("click", (event) => {
    const row = event.target.closest("[data-part]") ? -1 : nearest(event);
    if (row < 0) return;
    const id = runs.data.ids[row], before = runs.get("selected");
    runs.set({ selected: before.includes(id) ? before.filter((each) => each !== id) : [...before, id] });
  });
  svg.addEventListener("focusin", () => point(runs.pointed));
  svg.addEventListener("focusout", () => point(runs.pointed));
  svg.addEventListener("keydown", keyed);

  function moveAxis(from, to, save) {
    const names = axes.map((axis) => axis.name);
    names.splice(to, 0, ...names.splice(from, 1));
    runs.set({ axes: names }, save);
  }

  function keyed(event) {
    const place = axes.findIndex((axis) => axis.name === event.target.dataset?.axis), axis = axes[place];
    if (!axis) return;
    const found = bands(axis, givenTo(axis)), steps = axis.words ? axis.words.length : 20;
    let low = found[0]?.[0] ?? 0, high = found.at(-1)?.[1] ?? 1;
    const up = event.key === "ArrowUp" ? 1 / steps : event.key === "ArrowDown" ? -1 / steps : 0;
    if (up && event.shiftKey) low = Math.min(Math.max(low + up, 0), high - 1 / steps);
    else if (up) high = Math.max(Math.min(high + up, 1), low + 1 / steps);
    const snapped = (part) => Math.round(part * steps) / steps;
    if (up) brush(axis, snapped(low), snapped(high), true);
    else if (event.key === "ArrowLeft" && place > 0) moveAxis(place, place - 1, true);
    else if (event.key === "ArrowRight" && place < axes.length - 1) moveAxis(place, place + 1, true);
    else if (event.key === "Escape" || event.key === "Delete") runs.filter(axis.name, null);
    else if (event.key.toLowerCase() === "l" && axis.canLog) changeLog(axis);
    else if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    event.stopPropagation();
  }

  const watch = new ResizeObserver(() => { if (svg.parentNode.clientWidth !== width) runs.redraw(); });
  watch.observe(element);
  return { element, draw, point, close: () => watch.disconnect() };
}
