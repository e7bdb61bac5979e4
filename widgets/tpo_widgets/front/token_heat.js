// A map over the frames that the model sees: on a strip of all of them, large on the current one, with its scale and its sums.

import { h, onNextFrame, shown } from "./dom.js";
import { frameStage } from "./frame_stage.js";
import { frameOfToken, patchAt, tokenOf } from "./token_words.js";

const HEAT_MEAN = -1;
const HEAT_PARTS = {
  frames: "frames", clip: "clip, no frame", context: "given text", prompts: "pointed at", words: "answers' words", routes: "routes", itself: "itself", slots: "other slots",
};

/** A colour of the scale for each of 256 steps from 0 to the most. */
function heatRamp(colours) {
  const stops = colours.map((colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16)));
  return Array.from({ length: 256 }, (_, step) => {
    const at = (step / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    return `rgb(${stops[low].map((value, channel) => Math.round(value + (at - low) * (stops[low + 1][channel] - value))).join(",")})`;
  });
}

/** Maps from a resource: `frame(layer, number)` are the values of one frame, by the layer's place. */
function heatOf({ about, bytes }) {
  const [, frames, cells] = about.shape;
  const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  return { about, cells, frame: (layer, number) => numbers.subarray((layer * frames + number) * cells, (layer * frames + number + 1) * cells) };
}

function heatPercent(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 0.0005 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`;
}

/** Shows a `source` ({ name, title, attention, hidden } or { why, how }): `fill(detail, place)`, `update(...)`, `close()`. */
export function tokenHeat({ resources, picture, colours, most, onTime, onPatch, onLayer, onOpacity }) {
  const ramp = heatRamp(colours);
  const title = h("p", { class: "tpo-tk-title" }), warning = h("p", { class: "tpo-tk-warning", role: "note", hidden: true });
  const layers = h("select", { "aria-label": "Layer", onchange: () => onLayer(Number(layers.value)) });
  const layerPart = h("label", { class: "tpo-row" }, "Layer", layers);
  const reach = h("select", { "aria-label": "Scale", onchange: () => refresh() }, h("option", { value: "all" }, "all frames"), h("option", { value: "own" }, "each frame"));
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": "Opacity of the map", oninput: () => onOpacity(Number(slider.value)) });
  const ticks = h("div", { class: "tpo-tk-ticks" }, h("span"), h("span"), h("span")), unit = h("div", { class: "tpo-soft" });
  const scale = h("div", { class: "tpo-tk-scale" }, h("div", { class: "tpo-tk-ramp", style: { background: `linear-gradient(to right, ${colours.join(", ")})` } }), ticks, unit);
  const reading = h("p", { class: "tpo-soft tpo-tk-line", role: "status" });
  const strip = h("div", { class: "tpo-tk-strip", role: "group", "aria-label": "Frames that the model sees" });
  const parts = h("div", {});
  const stage = frameStage({ resources, name: (number) => `frame/${place}/${number}`, size: [1, 1], label: "Frame with the map over it; arrow keys step from frame to frame",
    draw: drawMap, pan: false, mostHeight: 420 });
  const element = h("section", { "aria-label": "Where it looks" }, h("h3", {}, "Where it looks"), title, warning,
    h("div", { class: "tpo-tk-two" },
      h("div", {}, stage.element, reading),
      h("div", {}, h("div", { class: "tpo-row tpo-tk-controls" }, layerPart, h("label", { class: "tpo-row" }, "Scale", reach), h("label", { class: "tpo-row" }, "Opacity", slider)), scale, strip, parts)));
  let detail = null, place = 0, heat = null, asked = "", layer = 0, now = {};

  function fill(given, givenPlace) {
    [detail, place, asked, heat] = [given, givenPlace, "", null];
    stage.use({ size: detail.size });
    strip.replaceChildren(...detail.times.map((time, number) => h("button", { "data-frame": number, onclick: () => onTime(time) },
      h("canvas", { "aria-hidden": "true" }), h("span", {}, `${number} · ${time.toFixed(2)} s`), h("span", { class: "tpo-soft" }, " "))));
    [...strip.children].forEach((each, number) => picture(number).then((address) => { each.firstChild.style.backgroundImage = `url(${address})`; }, () => {}));
    stage.canvas.dataset.frame = "";
  }

  const patch = () => (frameOfToken(detail, now.token) === now.frame ? tokenOf(detail, now.token).cell : -1);
  const cellUnder = (event) => {
    const [row, column] = stage.toFrame(event).map((at, axis) => Math.min(Math.floor((at / detail.size[axis]) * detail.grid), detail.grid - 1)).reverse();
    return row * detail.grid + column;
  };
  const choose = (cell) => { const found = patchAt(detail, now.frame, cell); if (found >= 0) onPatch(found); };

  function read(cell) {
    const where = `Frame ${now.frame} of ${detail.times.length}, ${detail.times[now.frame].toFixed(2)} s`;
    const value = heat && cell >= 0 ? heat.frame(layer, now.frame)[cell] : NaN;
    const number = Number.isFinite(value) ? `: ${shown(value, 4)}` : "";
    reading.textContent = cell < 0 || !detail.grid ? where : `${where} · row ${Math.floor(cell / detail.grid)}, column ${cell % detail.grid}${number}`;
  }

  stage.canvas.addEventListener("pointermove", (event) => read(cellUnder(event)));
  stage.canvas.addEventListener("pointerleave", () => read(patch()));
  stage.canvas.addEventListener("click", (event) => choose(cellUnder(event)));
  for (const listens of [strip, stage.canvas]) listens.addEventListener("keydown", (event) => {
    const next = now.frame + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? NaN);
    if (!strip.children[next]) return;
    event.preventDefault();
    onTime(detail.times[next]);
    if (listens === strip) strip.children[next].focus();
  });

  /** The end of the scale: the greatest value of a map, or of one of its frames. */
  function greatest(number) {
    if (reach.value === "all") return heat.about.most[layer];
    const found = heat.frame(layer, number).filter(Number.isFinite);
    return found.length ? Math.max(...found) : null;
  }

  function paintCells(context, number, x, y) {
    if (!heat || number >= heat.about.shape[1]) return;
    const side = Math.round(Math.sqrt(heat.cells)), values = heat.frame(layer, number), top = greatest(number);
    context.globalAlpha = now.opacity;
    for (let cell = 0; cell < values.length; cell += 1) {
      if (!Number.isFinite(values[cell])) continue;
      const [row, column] = [Math.floor(cell / side), cell % side];
      const [x0, x1, y0, y1] = [x(column / side), x((column + 1) / side), y(row / side), y((row + 1) / side)].map(Math.round);
      context.fillStyle = ramp[top > 0 ? Math.round(255 * Math.min(Math.max(values[cell] / top, 0), 1)) : 0];
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.globalAlpha = 1;
  }

  function drawMap(context, view) {
    if (!detail || now.frame === undefined) return;
    paintCells(context, now.frame, (share) => view.x(share * detail.size[0]), (share) => view.y(share * detail.size[1]));
    if (patch() >= 0) outline(context, view, patch());
    stage.canvas.dataset.map = heat ? asked : "";
  }

  function outline(context, view, cell) {
    const [wide, tall] = detail.size.map((each) => (each / detail.grid) * view.scale);
    // white between dark lines shows on any picture
    for (const [colour, thick] of [["#000000", 4], ["#ffffff", 2]]) {
      [context.strokeStyle, context.lineWidth] = [colour, thick];
      context.strokeRect(view.x(0) + (cell % detail.grid) * wide + 2, view.y(0) + Math.floor(cell / detail.grid) * tall + 2, wide - 4, tall - 4);
    }
  }

  const redrawStrip = onNextFrame(() => [...strip.children].forEach((each, number) => {
    const [canvas, , text] = each.children, sum = heat?.about.frames[layer][number];
    each.setAttribute("aria-current", String(number === now.frame));
    each.tabIndex = number === now.frame ? 0 : -1;
    text.textContent = heat ? (now.source.attention ? heatPercent(sum) : shown(sum)) : " ";
    const wide = canvas.clientWidth, tall = Math.max(1, Math.round((wide * detail.size[1]) / detail.size[0])), ratio = globalThis.devicePixelRatio || 1;
    if (!wide) return;
    canvas.style.height = `${tall}px`;
    [canvas.width, canvas.height] = [Math.round(wide * ratio), Math.round(tall * ratio)];
    const context = canvas.getContext("2d");
    context.scale(canvas.width / wide, canvas.height / tall);
    paintCells(context, number, (share) => share * wide, (share) => share * tall);
  }));

  async function load(name = "") {
    if (name === asked) return;
    [asked, heat] = [name, null];
    try {
      const found = name && (await resources.get(name));
      if (found && asked === name) { heat = heatOf(found); refresh(); }
    } catch (error) {
      if (asked === name) title.textContent = error.message;
    }
  }

  function refresh() {
    const about = heat?.about;
    layer = Math.max(about ? about.layers.indexOf(now.layer) : 0, 0);
    layerPart.hidden = !about || about.layers.length < 2;
    if (about) {
      layers.replaceChildren(...about.layers.map((each) => h("option", { value: each }, each === HEAT_MEAN ? `mean over layers ${about.layers.slice(1).join(", ")}` : `layer ${each}`)));
      layers.value = String(about.layers[layer]);
    }
    const top = about && now.frame < about.shape[1] ? greatest(now.frame) : null;
    scale.hidden = !about;
    [0, top === null ? null : top / 2, top].forEach((value, at) => { ticks.children[at].textContent = shown(value); });
    unit.textContent = now.source.attention ? "share of the attention, each cell; below a frame, its sum" : "logits, each cell; below a frame, their sum";
    drawParts(about?.shares[layer]);
    read(patch());
    stage.redraw();
    redrawStrip();
  }

  function drawParts(shares) {
    if (!shares) return parts.replaceChildren();
    const some = Object.entries(HEAT_PARTS).filter(([part]) => shares[part] === null || shares[part] > 0);
    const said = some.map(([part, name]) => `${name} ${heatPercent(shares[part])}`);
    parts.replaceChildren(
      h("div", { class: "tpo-tk-stack", role: "img", "aria-label": `Of its attention: ${said.join(", ")}` },
        ...some.map(([part]) => h("div", { class: `tpo-tk-part-${part}`, style: { width: `${100 * (shares[part] ?? 0)}%` } }))),
      h("ul", { class: "tpo-tk-legend" }, ...some.map(([part], at) => h("li", { "data-part": part, "data-share": shares[part], title: shares[part] }, h("i", { class: `tpo-tk-part-${part}` }), said[at]))));
  }

  function update(given) {
    now = given;
    const { source } = now, leaks = source.attention && !(source.hidden <= most);
    title.replaceChildren(source.title ?? source.why, " ", source.how ? h("code", {}, source.how) : "");
    warning.hidden = !leaks;
    warning.textContent = leaks ? `⚠ It looks at what it must not see: ${shown(source.hidden)} of its attention in one layer (a sound mask: at most ${most}).` : "";
    slider.value = now.opacity;
    load(source.name);
    if (stage.canvas.dataset.frame !== String(now.frame)) stage.show(now.frame);
    refresh();
  }

  const watch = new ResizeObserver(redrawStrip);
  watch.observe(strip);
  return { element, fill, update, close() { watch.disconnect(); redrawStrip.cancel(); stage.close(); } };
}
