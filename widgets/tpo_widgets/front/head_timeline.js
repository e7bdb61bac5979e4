// The timeline below the frames of HeadView: windows, saliency, scores of every frame, hidden spans and moments, with a line to scrub.

import { h, s, shown } from "./dom.js";

const LEFT = 104, RIGHT = 16, BAR = 16, LANE = 5, CURVE = 46, LANES = 9;

/**
 * A timeline. `onTime(seconds)` is called while it is scrubbed, `onPick(object)` where a window is clicked.
 *
 * Gives `element`, `draw(data)`, `at(seconds, words)`, `close()`. `data`: `duration`; `windows` [{ name, tone, list }]; `saliency` and
 * `scores` [{ name, tone, times, values }]; `hidden` [{ name, tone, spans }]; `moments` [{ tone, time, name }]; `seen` times; `selected`.
 */
export function headTimeline({ onTime, onPick }) {
  const element = h("div", { class: "head-timeline", role: "slider", tabindex: 0, "aria-label": "Time", "aria-valuemin": 0 });
  let data = null, time = 0, words = "", width = 0, line = null;
  const x = (seconds) => LEFT + (Math.max(width - LEFT - RIGHT, 1) * Math.min(Math.max(seconds, 0), data.duration)) / data.duration;

  function build() {
    width = element.clientWidth;
    if (!data || !width) return;
    const parts = [];
    let top = 8;
    for (const row of data.windows) top = windowRow(parts, row, top);
    if (data.saliency.length) top = curvePanel(parts, "saliency", data.saliency, top, null);
    if (data.scores.length) top = curvePanel(parts, data.scoreName, data.scores, top, [0, 1]);
    for (const row of data.hidden) top = hiddenRow(parts, row, top);
    if (data.moments.length) top = momentRow(parts, top);
    const height = axis(parts, top);
    line = s("g", { class: "head-scrub" },
      s("line", { x1: 0, x2: 0, y1: 2, y2: height - 18 }), s("path", { d: "M-6,0 H6 L0,8 Z" }));
    const chart = s("svg", { width, height, role: "img", "aria-label": chartWords() }, s("title", {}, chartWords()), ...parts, line);
    element.replaceChildren(chart);
    move();
  }

  function chartWords() {
    const spans = data.windows.map(({ name, list }) => `${name}: ${list.map(({ window: [start, end] }) => `${shown(start)} to ${shown(end)} s`).join(", ") || "none"}`);
    return ["Timeline.", ...spans, ...data.scores.map(({ name, values }) => `${name}: ${values.length} scored frames`)].join(" ");
  }

  function named(parts, name, y, tone) {
    parts.push(s("text", { x: LEFT - 10, y, "text-anchor": "end", class: `head-name ${tone ? `head-${tone}-ink` : ""}` }, name));
  }

  function windowRow(parts, { name, tone, list }, top) {
    named(parts, name, top + 12, tone);
    parts.push(s("rect", { x: LEFT, y: top, width: Math.max(width - LEFT - RIGHT, 1), height: BAR, class: "head-lane" }));
    const main = tone === "truth" ? list : list.slice(0, 1);
    const others = tone === "truth" ? [] : list.slice(1, 1 + LANES);
    main.forEach((each) => parts.push(...bar(each, tone, top, BAR)));
    others.forEach((each, place) => parts.push(...bar(each, tone, top + BAR + 2 + place * LANE, LANE - 1)));
    return top + BAR + (others.length ? 2 + others.length * LANE : 0) + 6;
  }

  function bar({ window: [start, end], object, score, iou }, tone, y, height) {
    const left = x(Math.min(start, end)), long = Math.max(x(Math.max(start, end)) - left, 1);
    const said = [`${shown(start)}–${shown(end)} s`, score === null ? "" : `score ${shown(score)}`, iou === null ? "" : `IoU ${shown(iou)}`].filter(Boolean).join(", ");
    const chosen = data.selected === object;
    const found = [s("rect", {
      x: left, y, width: long, height, class: `head-bar head-${tone}${chosen ? " head-chosen" : data.selected >= 0 ? " head-dimmed" : ""}`,
      onclick: () => onPick(object), "data-object": object,
    }, s("title", {}, said))];
    if (height === BAR && score !== null && score !== undefined) {
      const inside = long > 46;
      found.push(s("text", { x: inside ? left + long - 5 : left + long + 4, y: y + 12, "text-anchor": inside ? "end" : "start", class: inside ? "head-inside" : "" }, shown(score, 2)));
    }
    return found;
  }

  function curvePanel(parts, title, curves, top, range) {
    parts.push(s("rect", { x: LEFT, y: top, width: Math.max(width - LEFT - RIGHT, 1), height: CURVE, class: "head-panel" }));
    named(parts, title, top + 12);
    if (range) parts.push(s("line", { x1: LEFT, x2: width - RIGHT, y1: top + CURVE / 2, y2: top + CURVE / 2, class: "head-grid" }),
      s("text", { x: LEFT - 10, y: top + CURVE, "text-anchor": "end", class: "head-soft" }, "0 to 1"));
    curves.forEach(({ tone, times, values }, place) => {
      const finite = values.filter((value) => value !== null);
      if (!finite.length) return;
      const [low, high] = range ?? [finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))];
      const y = (value) => top + 3 + (CURVE - 6) * (high > low ? 1 - (value - low) / (high - low) : 0.5);
      let path = "", open = false;
      values.forEach((value, at) => {
        if (value === null) { open = false; return; }
        path += `${open ? "L" : "M"}${x(times[at]).toFixed(1)},${y(value).toFixed(1)}`;
        if (!open && (at + 1 >= values.length || values[at + 1] === null)) path += "h0.1";
        open = true;
      });
      parts.push(s("path", { d: path, class: `head-curve head-${tone}-line` }));
      // each curve has a scale of its own, since scores of different origin have no common unit
      if (!range) named(parts, `${shown(low, 2)} to ${shown(high, 2)}`, top + 25 + place * 11, tone);
    });
    return top + CURVE + Math.max(0, range ? 0 : (curves.length - 2) * 11) + 8;
  }

  function hiddenRow(parts, { name, tone, spans }, top) {
    named(parts, name, top + 10, tone);
    for (const [start, end] of spans) {
      parts.push(s("rect", { x: x(start), y: top + 1, width: Math.max(x(end) - x(start), 1), height: 11, class: `head-hidden head-${tone}-line` },
        s("title", {}, `${name} from ${shown(start)} to ${shown(end)} s`)));
    }
    return top + 16;
  }

  function momentRow(parts, top) {
    named(parts, "moments", top + 11);
    for (const { tone, time: at, name } of data.moments) {
      const shape = tone === "pointed" ? "M-5,-4 H5 L0,5 Z" : tone === "truth" ? "M0,-6 L6,0 L0,6 L-6,0 Z" : "M-4,-4 H4 V4 H-4 Z";
      parts.push(s("path", { d: shape, transform: `translate(${x(at)},${top + 7})`, class: `head-moment head-${tone}` }, s("title", {}, `${name}, ${shown(at)} s`)));
    }
    return top + 18;
  }

  function axis(parts, top) {
    const rough = (data.duration * 64) / Math.max(width - LEFT - RIGHT, 64);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999) ?? rough;
    for (const at of data.seen) parts.push(s("line", { x1: x(at), x2: x(at), y1: top, y2: top + 4, class: "head-seen" }));
    parts.push(s("line", { x1: LEFT, x2: width - RIGHT, y1: top, y2: top, class: "head-axis" }));
    for (let tick = 0; tick <= data.duration + 1e-9; tick += step) {
      parts.push(s("line", { x1: x(tick), x2: x(tick), y1: top, y2: top + 6, class: "head-axis" }),
        s("text", { x: x(tick), y: top + 18, "text-anchor": tick === 0 ? "start" : x(tick) > width - RIGHT - 14 ? "end" : "middle", class: "head-soft" }, `${shown(tick, 4)} s`));
    }
    return top + 22;
  }

  function move() {
    if (line) line.setAttribute("transform", `translate(${x(time)},0)`);
    element.setAttribute("aria-valuenow", time);
    element.setAttribute("aria-valuemax", data ? data.duration : 0);
    element.setAttribute("aria-valuetext", words);
  }

  let held = null, from = 0;
  function scrub(event) {
    const place = element.getBoundingClientRect();
    const share = (event.clientX - place.left - LEFT) / Math.max(width - LEFT - RIGHT, 1);
    onTime(Math.min(Math.max(share, 0), 1) * data.duration);
  }
  element.addEventListener("pointerdown", (event) => {
    if (!data || event.button > 0) return;
    held = event.pointerId;
    from = event.clientX;
    scrub(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.pointerId !== held) return;
    // captured late, so that a click still reaches the window below it
    if (Math.abs(event.clientX - from) > 3 && !element.hasPointerCapture(held)) element.setPointerCapture(held);
    scrub(event);
  });
  for (const ended of ["pointerup", "pointercancel"]) element.addEventListener(ended, () => { held = null; });
  const watch = new ResizeObserver(build);
  watch.observe(element);
  return {
    element,
    draw(given) { data = given; build(); },
    at(seconds, said) { time = seconds; words = said; if (data) move(); },
    close() { watch.disconnect(); },
  };
}
