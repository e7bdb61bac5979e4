// Curves over the steps of a run, with its stages as bands behind them.

import { h, s, shown } from "./dom.js";

const SIZE = [400, 200], EDGE = { left: 46, right: 10, top: 20, bottom: 26 };

/**
 * A chart. `point(number)` is called with the measurement under the pointer (null where it leaves), `pick(number)` on a click.
 *
 * `draw({ title, lines, places, bands, labels, log, range, at, pointed })`: lines [{ name, values, style, bold, faint }], null for no value and NaN for one that is not finite.
 */
export function gradientCurves({ point, pick }) {
  const heading = h("h4", {});
  const svg = s("svg", { viewBox: `0 0 ${SIZE.join(" ")}`, width: "100%", role: "img" });
  const legend = h("div", { class: "tpo-row tpo-g-legend" });
  const element = h("figure", { class: "tpo-g-figure" }, heading, svg, legend);
  let places = [], firsts = new Set(), x = () => 0;

  function draw({ title, lines, places: given, bands, labels, log, range, at, pointed }) {
    places = given;
    firsts = new Set(bands.map(({ first }) => first));
    const right = SIZE[0] - EDGE.right, bottom = SIZE[1] - EDGE.bottom;
    const [from, to] = [bands[0]?.start ?? 0, Math.max(places.at(-1) ?? 1, 1)];
    x = (place) => EDGE.left + ((place - from) / (to - from || 1)) * (right - EDGE.left);
    const scale = log ? logarithmic(lines) : { low: range[0], high: range[1], of: (value) => value, ticks: range.length > 2 ? range.slice(2) : range };
    const y = (value) => bottom - ((Math.min(Math.max(scale.of(value), scale.low), scale.high) - scale.low) / (scale.high - scale.low)) * (bottom - EDGE.top);
    heading.textContent = title;
    svg.replaceChildren(
      s("title", {}, `${title} over ${places.length} measurements: ${lines.filter((line) => !line.faint).map((line) => said(line, at)).join(", ")} now`),
      ...bands.map((band, number) => s("rect", { x: x(band.start), width: Math.max(x(band.end) - x(band.start), 1), y: EDGE.top, height: bottom - EDGE.top,
        class: number % 2 ? "tpo-g-band" : "tpo-g-band tpo-g-odd", "data-stage": band.stage })),
      ...stageNames(bands),
      ...scale.ticks.flatMap((tick) => [
        s("line", { x1: EDGE.left, x2: right, y1: y(tick), y2: y(tick), class: tick === 0 && !log ? "tpo-g-zero-line" : "tpo-g-line" }),
        s("text", { x: EDGE.left - 5, y: y(tick) + 4, "text-anchor": "end" }, shown(tick, 2))]),
      ...steps(labels, bottom),
      at === null ? "" : s("line", { x1: x(places[at]), x2: x(places[at]), y1: EDGE.top, y2: bottom, class: "tpo-g-now" }),
      pointed === null ? "" : s("line", { x1: x(places[pointed]), x2: x(places[pointed]), y1: EDGE.top, y2: bottom, class: "tpo-g-line" }),
      ...lines.flatMap((line) => curve(line, y, scale, log)));
    const here = pointed ?? at;
    legend.replaceChildren(...lines.filter((line) => !line.faint).map((line) => h("span", {},
      s("svg", { width: 22, height: 10, "aria-hidden": "true" }, s("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: `tpo-g-curve ${line.style}` })),
      said(line, here))), h("span", { class: "tpo-soft" }, here === null ? "" : labels[here].long));
  }

  const said = ({ name, values }, number) => {
    if (number === null) return name;
    const value = values[number];
    return `${name} ${value === null ? "–" : Number.isNaN(value) ? "not finite" : shown(value)}`.trim();
  };

  function logarithmic(lines) {
    const found = lines.flatMap(({ values }) => values.filter((value) => value > 0));
    const high = Math.ceil(Math.log10(found.reduce((most, value) => Math.max(most, value), found.length ? 0 : 1)));
    const least = Math.floor(Math.log10(found.reduce((most, value) => Math.min(most, value), Infinity)));
    const low = Math.max(Number.isFinite(least) ? least : high - 1, high - 9);
    const floor = low === high ? low - 1 : low, every = Math.ceil((high - floor) / 5);
    const ticks = Array.from({ length: high - floor + 1 }, (_, more) => floor + more).filter((power) => (high - power) % every === 0).map((power) => 10 ** power);
    return { low: floor, high, of: Math.log10, ticks };
  }

  /** Zero lies on the floor of a logarithmic scale as an open circle; what is not finite is a cross there. */
  function curve({ name, values, style, bold, faint }, y, scale, log) {
    const marks = [];
    let path = "", open = false;
    values.forEach((value, number) => {
      // each stage has samples of its own
      if (firsts.has(number)) open = false;
      const drawn = value !== null && Number.isFinite(value) && !(log && value <= 0);
      if (drawn) {
        path += `${open ? "L" : "M"}${x(places[number]).toFixed(1)} ${y(value).toFixed(1)}`;
        if (values.length <= 60 && !faint) marks.push(s("circle", { cx: x(places[number]), cy: y(value), r: 2, class: `tpo-g-dot ${style}` }));
      } else if (value === 0) marks.push(s("circle", { cx: x(places[number]), cy: SIZE[1] - EDGE.bottom, r: 3, class: `tpo-g-hollow ${style}` }));
      else if (Number.isNaN(value) && log) marks.push(s("text", { x: x(places[number]), y: SIZE[1] - EDGE.bottom - 3, "text-anchor": "middle", class: "tpo-g-bad-mark" }, "×"));
      open = drawn;
    });
    return [s("path", { d: path || "M0 0", class: `tpo-g-curve ${style}${bold ? " tpo-g-bold" : ""}${faint ? " tpo-g-faint" : ""}`, "data-name": name }), ...marks];
  }

  function stageNames(bands) {
    let free = EDGE.left;
    return bands.flatMap((band) => {
      const width = 6.4 * String(band.stage).length, middle = (x(band.start) + x(band.end)) / 2;
      if (middle - width / 2 < free || width > x(band.end) - x(band.start) + 8) return [];
      free = middle + width / 2 + 6;
      return [s("text", { x: middle, y: EDGE.top - 6, "text-anchor": "middle", class: "tpo-g-pale" }, String(band.stage))];
    });
  }

  /** The first step of each stage is named, then those between for which there is room. */
  function steps(labels, bottom) {
    const taken = [], wanted = [...places.keys()].sort((one, other) => firsts.has(other) - firsts.has(one) || one - other);
    return wanted.flatMap((number) => {
      const half = 3.3 * labels[number].short.length, middle = Math.min(x(places[number]), SIZE[0] - half);
      if (taken.some(([other, room]) => Math.abs(middle - other) < half + room + 12)) return [];
      taken.push([middle, half]);
      return [s("text", { x: middle, y: bottom + 14, "text-anchor": "middle" }, labels[number].short)];
    });
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect(), across = ((event.clientX - box.left) / box.width) * SIZE[0];
    let best = 0;
    places.forEach((place, number) => { if (Math.abs(x(place) - across) < Math.abs(x(places[best]) - across)) best = number; });
    return best;
  }
  svg.addEventListener("pointermove", (event) => point(nearest(event)));
  svg.addEventListener("pointerleave", () => point(null));
  // no click comes where what was pressed is drawn anew before the button is let go
  svg.addEventListener("pointerup", (event) => pick(nearest(event)));
  return { element, draw };
}
