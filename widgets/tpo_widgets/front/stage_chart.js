// A chart of curves over the steps of a run: axes, bands of the stages, marks of alarms, a crosshair that mouse and keyboard move.

import { h, s, shown } from "./dom.js";

const CHART_LEFT = 54, CHART_RIGHT = 20, CHART_TOP = 20, CHART_BOTTOM = 32;

/**
 * Args: `title`; `unit` of the vertical axis; `height` in px; `medians`: whether they are drawn, over the values in a fainter line;
 * `from0`: whether the axis begins at 0; `point(x | null)` is called where mouse or keyboard ask for the values at a step of the run.
 *
 * `draw({ curves, bands, domain, origin, log, marks, axis, say })`: curves [{ key, colour, dash, label, parts: [{ from, steps, values, medians }] }],
 * with `from` what is added to a part's steps; bands [{ name, from, to }]; domain [first, last];
 * origin: the step of the run that the axis calls 0; marks [{ x, subject, label }]; axis: its name; say(step): a step in words.
 */
export function stageChart({ title, unit, height, medians = false, from0 = false, point }) {
  const drawing = s("svg", { role: "img", tabindex: 0, class: "tpo-sc-svg", height, "aria-label": title });
  const readout = h("div", { class: "tpo-sc-readout", hidden: true });
  const spoken = h("div", { class: "tpo-sc-spoken", role: "status" });
  const key = h("span", { class: "tpo-sc-key" });
  const empty = h("p", { class: "tpo-soft tpo-sc-empty", hidden: true }, "nothing to draw yet");
  const element = h("div", { class: "tpo-sc" }, h("div", { class: "tpo-sc-head" }, h("strong", {}, title), h("span", { class: "tpo-soft" }, unit), key), drawing, empty, readout, spoken);
  const back = s("g"), lines = s("g", { fill: "none", "stroke-linejoin": "round" }), front = s("g");
  const cross = s("line", { class: "tpo-sc-cross", y1: CHART_TOP, y2: height - CHART_BOTTOM, visibility: "hidden" });
  const name = s("title", {}, title);
  const frame = s("clipPath", { id: `tpo-sc-${Math.random().toString(36).slice(2)}` }, s("rect", { x: CHART_LEFT, y: CHART_TOP - 2, height: height - CHART_TOP - CHART_BOTTOM + 4 }));
  lines.setAttribute("clip-path", `url(#${frame.id})`);
  drawing.append(name, frame, back, lines, cross, front);
  const paths = new Map();
  let given = null, width = 0, x = null, y = null, at = null;

  function scales() {
    const values = [];
    for (const curve of given.curves) {
      for (const part of curve.parts) for (const value of part.values) if (value !== null && (!given.log || value > 0)) values.push(value);
    }
    const [first, last] = given.domain;
    x = (step) => CHART_LEFT + ((step - first) / Math.max(last - first, 1)) * (width - CHART_LEFT - CHART_RIGHT);
    x.back = (place) => first + ((place - CHART_LEFT) / Math.max(width - CHART_LEFT - CHART_RIGHT, 1)) * (last - first);
    y = values.length ? stageScale(values, { log: given.log, from0, low: height - CHART_BOTTOM, high: CHART_TOP }) : null;
    empty.hidden = Boolean(y);
  }

  function axes() {
    back.replaceChildren();
    given.bands.forEach((band, place) => {
      const [left, right] = [x(Math.max(band.from, given.domain[0])), x(Math.min(band.to, given.domain[1]))];
      const fill = { x: left, width: Math.max(right - left, 0), y: CHART_TOP, height: height - CHART_TOP - CHART_BOTTOM, class: place % 2 ? "tpo-sc-band" : "tpo-sc-band tpo-sc-odd" };
      back.append(s("rect", fill));
      if (right - left > 7 * band.name.length + 4) back.append(s("text", { x: left + 3, y: CHART_TOP - 6, class: "tpo-sc-soft" }, band.name));
    });
    for (const tick of y ? y.ticks : []) {
      back.append(s("line", { x1: CHART_LEFT, x2: width - CHART_RIGHT, y1: y(tick), y2: y(tick), class: "tpo-sc-grid" }));
      back.append(s("text", { x: CHART_LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, stageNumber(tick)));
    }
    const bottom = height - CHART_BOTTOM;
    back.append(s("line", { x1: CHART_LEFT, x2: width - CHART_RIGHT, y1: bottom, y2: bottom, class: "tpo-sc-axis" }));
    for (const tick of stageTicks(given.domain[0] - given.origin, given.domain[1] - given.origin, width > 500 ? 8 : 4)) {
      if (!Number.isInteger(tick)) continue;
      const place = x(tick + given.origin);
      back.append(s("line", { x1: place, x2: place, y1: bottom, y2: bottom + 4, class: "tpo-sc-axis" }));
      back.append(s("text", { x: place, y: bottom + 16, "text-anchor": "middle" }, tick.toLocaleString("en")));
    }
    back.append(s("text", { x: width - CHART_RIGHT, y: height - 3, "text-anchor": "end", class: "tpo-sc-soft" }, given.axis));
  }

  function path(key, which, attributes) {
    const id = `${key} ${which}`;
    if (!paths.has(id)) { paths.set(id, s("path", { "data-curve": key, "data-which": which })); lines.append(paths.get(id)); }
    const found = paths.get(id);
    for (const [attribute, value] of Object.entries(attributes)) found.setAttribute(attribute, value);
    found.used = true;
  }

  function curves() {
    for (const found of paths.values()) found.used = false;
    for (const curve of y ? given.curves : []) {
      const dash = curve.dash || "none";
      const smooth = medians && curve.parts.some((part) => part.medians);
      path(curve.key, "values", { d: stageLine(curve.parts, "values", x, y), stroke: curve.colour, "stroke-width": smooth ? 1 : 1.6, "stroke-opacity": (smooth ? 0.35 : 1) * (curve.faint ? 0.25 : 1), "stroke-dasharray": smooth ? "none" : dash });
      const zeros = given.log ? stageZeros(curve.parts, x, height - CHART_BOTTOM) : "";
      if (zeros) path(curve.key, "zeros", { d: zeros, stroke: curve.colour, "stroke-width": 1 });
      if (smooth) path(curve.key, "medians", { d: stageLine(curve.parts, "medians", x, y), stroke: curve.colour, "stroke-width": 2, "stroke-opacity": curve.faint ? 0.25 : 1, "stroke-dasharray": dash });
    }
    for (const [id, found] of paths) if (!found.used) { found.remove(); paths.delete(id); }
  }

  function marks() {
    front.replaceChildren();
    const bottom = height - CHART_BOTTOM;
    if ([...paths.values()].some((path) => path.dataset.which === "zeros") && y.ticks.every((tick) => bottom - y(tick) > 12)) front.append(s("text", { x: CHART_LEFT - 6, y: bottom + 3, "text-anchor": "end" }, "0"));
    for (const { x: step, subject, label } of given.marks) {
      if (step < given.domain[0] || step > given.domain[1]) continue;
      const place = x(step), top = CHART_TOP;
      front.append(s("g", { class: "tpo-sc-mark" }, s("title", {}, label),
        s("line", { x1: place, x2: place, y1: top, y2: height - CHART_BOTTOM }), s("path", { d: `M${place - 5} ${top}h10l-5 9z` })));
      const curve = given.curves.find((each) => each.key === subject);
      const found = curve && stageAt(curve, step);
      if (found && found.value !== null && (!given.log || found.value > 0)) front.append(s("circle", { class: "tpo-sc-ring", cx: x(found.x), cy: y(found.value), r: 5 }));
    }
  }

  function draw(what) {
    given = what;
    width = element.clientWidth;
    if (!width) return;
    drawing.setAttribute("width", width);
    frame.firstChild.setAttribute("width", Math.max(0, width - CHART_LEFT - CHART_RIGHT));
    scales();
    axes();
    curves();
    marks();
    if (!medians) key.replaceChildren(...(given.curves.length > 1 ? given.curves.map((curve) => h("span", {}, stageSwatch(curve), curve.label)) : []));
    name.textContent = `${title}: ${given.curves.length} curves over ${given.axis}`;
    if (at !== null) show(at);
  }

  /** Draws the crosshair at a step of the run; with `words`, says the values there as well. */
  function show(step, words = !readout.hidden) {
    at = step;
    const place = step === null || !x ? null : x(step);
    const outside = place === null || step < given.domain[0] || step > given.domain[1];
    cross.setAttribute("visibility", outside ? "hidden" : "visible");
    readout.hidden = outside || !words || !y;
    if (outside) return;
    cross.setAttribute("x1", place);
    cross.setAttribute("x2", place);
    if (readout.hidden) return;
    const found = given.curves.map((curve) => ({ curve, ...stageAt(curve, step) })).filter((each) => each.value !== undefined);
    readout.replaceChildren(h("div", { class: "tpo-soft" }, given.say(step)), ...found.map(({ curve, value, median }) =>
      h("div", { class: "tpo-sc-line" }, stageSwatch(curve), h("span", {}, curve.label), h("b", {}, shown(value, 4)), medians && median !== undefined && median !== null ? h("span", { class: "tpo-soft" }, `median ${shown(median, 4)}`) : null)));
    spoken.textContent = document.activeElement === drawing ? `${given.say(step)}: ${found.map(({ curve, value }) => `${curve.label} ${shown(value, 4)}`).join(", ")}` : "";
    const side = place > width / 2;
    Object.assign(readout.style, side ? { right: `${width - place + 10}px`, left: "auto" } : { left: `${place + 10}px`, right: "auto" });
  }

  drawing.addEventListener("pointermove", (event) => {
    const inside = event.clientX - drawing.getBoundingClientRect().left;
    if (given && x && inside >= CHART_LEFT && inside <= width - CHART_RIGHT) { readout.hidden = false; point(Math.round(x.back(inside))); }
  });
  drawing.addEventListener("pointerleave", () => { readout.hidden = true; point(null); });
  drawing.addEventListener("blur", () => { readout.hidden = true; point(null); });
  drawing.addEventListener("keydown", (event) => {
    if (!given) return;
    const [first, last] = given.domain;
    const stride = Math.max(1, Math.round((last - first) / (event.shiftKey ? 10 : 100)));
    const from = at === null ? last : at;
    const to = { ArrowLeft: from - stride, ArrowRight: from + stride, Home: first, End: last, Escape: null }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    readout.hidden = to === null;
    point(to === null ? null : Math.min(Math.max(to, first), last));
  });
  return { element, draw, show };
}

/** Short lines at the bottom of a logarithmic chart where values are 0, which it has no place for. */
function stageZeros(parts, x, bottom) {
  return parts.flatMap((part) => part.values.map((value, place) => value === 0 ? `M${x(part.from + part.steps[place]).toFixed(1)} ${bottom}v-5` : "")).join("");
}

/** A sample of a curve's line for a legend. */
export function stageSwatch({ colour, dash }) {
  return s("svg", { width: 18, height: 8, "aria-hidden": "true", class: "tpo-sc-swatch" }, s("line", { x1: 0, x2: 18, y1: 4, y2: 4, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash || "none" }));
}

/** A short number for axes: 2e-5, 0.25, 12k. */
export function stageNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

/** Round numbers between two ends. */
export function stageTicks(low, high, most) {
  const span = high - low || 1;
  const rough = span / most;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((each) => each >= rough);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) found.push(Number((place * step).toPrecision(12)));
  return found;
}

function stageScale(values, { log, from0, low, high }) {
  let least = Infinity, most = -Infinity;
  for (const value of values) { least = Math.min(least, value); most = Math.max(most, value); }
  if (log) {
    const ends = [Math.log10(least) - 0.02, Math.log10(most) + 0.02];
    if (ends[1] - ends[0] < 0.3) { ends[0] -= 0.15; ends[1] += 0.15; }
    const scale = (value) => (value > 0 ? low + ((Math.log10(value) - ends[0]) / (ends[1] - ends[0])) * (high - low) : NaN);
    const every = Math.max(1, Math.ceil((ends[1] - ends[0]) / 6));
    const found = [];
    for (let power = Math.floor(ends[0]); power <= ends[1]; power++) {
      for (const factor of ends[1] - ends[0] < 2 ? [1, 2, 5] : [1]) {
        const tick = Number((factor * 10 ** power).toPrecision(3));
        if ((factor > 1 || power % every === 0) && Math.log10(tick) >= ends[0] && Math.log10(tick) <= ends[1]) found.push(tick);
      }
    }
    scale.ticks = found;
    return scale;
  }
  if (from0) least = Math.min(least, 0);
  if (least === most) { least -= Math.abs(least) * 0.1 || 1; most += Math.abs(most) * 0.1 || 1; if (from0 && most > 0) least = Math.max(least, 0); }
  const more = (most - least) * 0.04;
  const ends = [from0 && least === 0 ? 0 : least - more, most + more];
  const scale = (value) => low + ((value - ends[0]) / (ends[1] - ends[0])) * (high - low);
  scale.ticks = stageTicks(ends[0], ends[1], 5);
  return scale;
}

function stageLine(parts, which, x, y) {
  const found = [];
  for (const part of parts) {
    let pen = "M";
    if (!part[which]) continue;
    part[which].forEach((value, place) => {
      if (value === null) return;
      const up = y(value);
      if (!Number.isFinite(up)) return;
      found.push(`${pen}${(x(part.from + part.steps[place])).toFixed(1)} ${up.toFixed(1)}`);
      pen = "L";
    });
    if (pen === "L" && part.steps.length === 1) found.push("h1.5");
  }
  return found.join("");
}

/** The drawn point of a curve that is nearest to a step of the run, within the stage that the step lies in. */
function stageAt(curve, step) {
  const part = curve.parts.find((each) => step > each.from && step <= each.to);
  if (!part || !part.steps.length) return {};
  const first = part.steps[0], last = part.steps[part.steps.length - 1], slack = 2 + (2 * (last - first)) / part.steps.length;
  if (step < part.from + first - slack || step > part.from + last + slack) return {};
  let low = 0, high = part.steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (part.from + part.steps[middle] <= step) low = middle; else high = middle;
  }
  const place = Math.abs(part.from + part.steps[low] - step) <= Math.abs(part.from + part.steps[high] - step) ? low : high;
  return { x: part.from + part.steps[place], value: part.values[place], median: part.medians ? part.medians[place] : undefined };
}
