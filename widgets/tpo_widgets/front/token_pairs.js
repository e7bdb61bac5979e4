// How alike the task tokens are: a matrix of cosines at one depth, and each pair along all depths.

import { h, onNextFrame, s } from "./dom.js";
import { TOKEN_ARROWS } from "./token_words.js";

const PAIR_LINES = 66;
const PAIR_LABELS = 16;
const PAIR_FONT = "11px system-ui, sans-serif";

function depthName(depth, depths) {
  return depth === 0 ? "embedding" : depth === depths - 1 ? "after the final norm" : `after layer ${depth - 1}`;
}

/** Calls `draw` when the colours change, by the view's own theme, the system's or the notebook's; gives how to stop. */
function onTheme(model, draw) {
  const system = matchMedia("(prefers-color-scheme: dark)"), notebook = new MutationObserver(draw);
  notebook.observe(document.body, { attributes: true });
  system.addEventListener("change", draw);
  model.on("change:theme", draw);
  return () => { notebook.disconnect(); system.removeEventListener("change", draw); model.off("change:theme", draw); };
}

/** Gives `element`, `update({ depth, pair, chosen })`, `close()`. `slots` are [sample, head, token]; `named(place, short)` calls one. */
export function tokenPairs({ model, root, resources, slots, depths, named, onPair, onDepth }) {
  const count = slots.length, many = (count * (count - 1)) / 2 > PAIR_LINES;
  const element = h("section", { "aria-label": "Similarity of task tokens" }, h("h3", {}, "How alike the task tokens are"));
  if (!count) {
    element.append(h("p", { class: "tpo-soft" }, "No sample of this record has a task token."));
    return { element, update() {}, close() {} };
  }
  const slider = h("input", { type: "range", min: 0, max: depths - 1, "aria-label": "Depth", oninput: () => onDepth(Number(slider.value)) });
  const depthText = h("output", {});
  const matrix = h("canvas", { tabindex: 0, role: "application", "aria-label": "Cosines of all pairs: arrow keys move from cell to cell, Enter selects the two tokens" });
  const readout = h("p", { class: "tpo-soft tpo-tk-line", role: "status" });
  const chart = h("div", {});
  const legend = h("p", { class: "tpo-soft tpo-tk-cosines" }, "−1", h("i", {}), "0", h("i", { class: "tpo-tk-plus" }), "1");
  element.append(h("label", { class: "tpo-row" }, "Depth", slider, depthText), h("div", { class: "tpo-tk-two" }, h("div", {}, matrix, legend, readout), chart));
  let cosine = null, depth = depths - 1, pair = [], chosen = -1, cursor = [0, 0], pointed = null, left = 0, top = 0, side = 1;
  resources.get("cosines").then(({ bytes }) => {
    const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    cosine = (at, [one, other]) => numbers[(at * count + one) * count + other];
    redraw();
  }, (error) => { readout.textContent = error.message; });

  function drawMatrix() {
    const wide = Math.min(matrix.parentElement.clientWidth, 420), look = getComputedStyle(root), ratio = globalThis.devicePixelRatio || 1;
    const colour = (name) => look.getPropertyValue(`--tpo-${name}`).trim(), context = matrix.getContext("2d");
    [left, top] = count <= PAIR_LABELS ? [Math.round(Math.min(150, wide * 0.42)), 16] : [4, 4];
    side = Math.max(Math.min(Math.floor((wide - left) / count), 46), 1);
    [[matrix.width, matrix.height], [matrix.style.width, matrix.style.height]] = [
      [left, top].map((edge) => Math.round((edge + side * count + 2) * ratio)), [left, top].map((edge) => `${edge + side * count + 2}px`)];
    context.scale(ratio, ratio);
    context.font = PAIR_FONT;
    context.textBaseline = "middle";
    const write = (text, x, y, align, ink) => { context.fillStyle = colour(ink); context.textAlign = align; context.fillText(text, x, y); };
    const fill = (ink, row, column, opacity = 1) => {
      context.globalAlpha = opacity;
      context.fillStyle = colour(ink);
      context.fillRect(left + column * side, top + row * side, side - (side > 6), side - (side > 6));
      context.globalAlpha = 1;
    };
    const edge = ([row, column], ink, thick) => {
      [context.strokeStyle, context.lineWidth] = [colour(ink), thick];
      context.strokeRect(left + column * side + thick / 2, top + row * side + thick / 2, side - thick, side - thick);
    };
    for (let row = 0; row < count; row += 1) {
      const middle = (row + 0.5) * side;
      if (count <= PAIR_LABELS) {
        let text = `${row}  ${named(row, true)}`;
        while (context.measureText(text).width > left - 8) text = `${text.slice(0, -2)}…`;
        write(text, 0, top + middle, "left", row === chosen || pair.includes(row) ? "ink" : "soft");
        write(row, left + middle, 7, "center", "soft");
      }
      for (let column = 0; column < count; column += 1) {
        const value = cosine ? cosine(depth, [row, column]) : NaN;
        fill("panel", row, column);
        if (Number.isFinite(value)) fill(value < 0 ? "fifth" : "other", row, column, Math.min(Math.abs(value), 1) * 0.75);
        if (side >= 34) write(Number.isFinite(value) ? value.toFixed(2) : "–", left + (column + 0.5) * side, top + middle, "center", "ink");
      }
    }
    if (pair.length === 2) edge(pair, "accent", 2.5);
    if (document.activeElement === matrix) edge(cursor, "ink", 1.5);
    matrix.dataset.depth = cosine ? depth : "";
    matrix.dataset.cells = `${left},${top},${side}`;
  }

  function tell() {
    const now = pointed ?? (document.activeElement === matrix ? cursor : pair.length === 2 ? pair : null);
    if (!now || !cosine) return void (readout.textContent = "Point at a cell to read it; click to select its two tokens.");
    const value = cosine(depth, now);
    readout.textContent = `${named(now[0])} and ${named(now[1])}: ${Number.isFinite(value) ? value.toFixed(4) : "not a number"} ${depthName(depth, depths)}`;
  }

  function drawChart() {
    if (!cosine) return;
    const centre = many ? pair[0] ?? Math.max(chosen, 0) : -1, drawn = [];
    for (let one = 0; one < count; one += 1) for (let other = one + 1; other < count; other += 1) if (!many || one === centre || other === centre) drawn.push([one, other]);
    const curve = (two) => Array.from({ length: depths }, (_, at) => cosine(at, two)), curves = drawn.map(curve);
    const low = Math.floor(curves.flat().filter(Number.isFinite).reduce((least, value) => Math.min(least, value), 0.9) * 10) / 10;
    const x = (at) => 38 + (at / Math.max(depths - 1, 1)) * 342, y = (value) => 12 + ((1 - value) / (1 - low)) * 194;
    const path = (values) => values.map((value, at) => (Number.isFinite(value) ? `${Number.isFinite(values[at - 1]) ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}` : "")).join("");
    const two = pair.length === 2 && pair[0] !== pair[1] ? curve(pair) : [];
    const said = `Cosine of each pair against depth. ${two.length ? `${named(pair[0])} and ${named(pair[1])}: ${two.map((value, at) => `${value.toFixed(2)} ${depthName(at, depths)}`).join(", ")}` : ""}`;
    const every = Math.ceil(depths / 9), tick = (at) => (at === 0 ? "emb." : at === depths - 1 ? "norm" : at % every || at > depths - 1 - every / 2 ? "" : at - 1);
    chart.replaceChildren(
      s("svg", { viewBox: "0 0 400 240", role: "img", class: "tpo-tk-chart", "aria-label": said }, s("title", {}, said),
        ...[1, (1 + low) / 2, low].flatMap((value) => [s("line", { x1: 38, x2: 380, y1: y(value), y2: y(value), class: "tpo-tk-rule" }),
          s("text", { x: 32, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2))]),
        ...Array.from({ length: depths }, (_, at) => s("text", { x: x(at), y: 222, "text-anchor": "middle" }, tick(at))),
        s("text", { x: 209, y: 237, "text-anchor": "middle" }, "depth (after layer)"),
        s("line", { x1: x(depth), x2: x(depth), y1: 12, y2: 206, class: "tpo-tk-now" }),
        ...curves.map((values, at) => s("path", { d: path(values), class: slots[drawn[at][0]][1] === slots[drawn[at][1]][1] ? "tpo-tk-pair" : "tpo-tk-pair tpo-tk-mixed" })),
        s("path", { d: path(two), class: "tpo-tk-two-line" }),
        ...two.map((value, at) => (Number.isFinite(value) ? s("circle", { cx: x(at), cy: y(value), r: 3, class: "tpo-tk-dot" }) : null))),
      h("p", { class: "tpo-soft" }, count < 2 ? "One task token has no pair." : `${many ? `Pairs of ${named(centre)}. ` : ""}Full lines: one head; dashed: two heads. Dots: the selected pair.`));
  }

  function cellUnder(event) {
    const place = matrix.getBoundingClientRect();
    const found = [Math.floor((event.clientY - place.top - top) / side), Math.floor((event.clientX - place.left - left) / side)];
    return found.every((each) => each >= 0 && each < count) ? found : null;
  }

  matrix.addEventListener("pointermove", (event) => { pointed = cellUnder(event); tell(); });
  matrix.addEventListener("pointerleave", () => { pointed = null; tell(); });
  matrix.addEventListener("click", (event) => { const found = cellUnder(event); if (found) onPair((cursor = found)); });
  matrix.addEventListener("focus", () => redraw());
  matrix.addEventListener("blur", () => redraw());
  matrix.addEventListener("keydown", (event) => {
    const step = TOKEN_ARROWS[event.key];
    if (event.key === "Enter") onPair(cursor);
    else if (step) cursor = cursor.map((each, axis) => Math.min(Math.max(each + step[axis], 0), count - 1));
    else return;
    event.preventDefault();
    redraw();
  });

  const redraw = onNextFrame(() => { drawMatrix(); tell(); drawChart(); });
  const watch = new ResizeObserver(redraw);
  watch.observe(element);
  const stop = onTheme(model, redraw);
  return {
    element,
    update(given) {
      ({ depth, pair, chosen } = given);
      slider.value = depth;
      depthText.textContent = depthName(depth, depths);
      redraw();
    },
    close() { watch.disconnect(); stop(); redraw.cancel(); },
  };
}
