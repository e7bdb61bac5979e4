// HeadView: what heads predict for a sample over its frames, beside the truth; one checkpoint, or two side by side.

import { h, reword, s, shown } from "./dom.js";
import { frameStage } from "./frame_stage.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";
import { objectHue, paintOverlay, placeOf } from "./head_overlay.js";
import { headRuns, jsonOf } from "./head_runs.js";
import { headTimeline } from "./head_timeline.js";

const FEW_FRAMES = 128, NEAR = [1, 2, 3, 4, -1, -2], STRIDE = 4, SOON = 5, LATER = 16, FEW_BOXES = 8, FEW_LABELS = 6, FEW_TERMS = 8, REST_MS = 120, PLAYED_MS = 66;
const NOT_HELD = "This page does not hold it.";
const HEAD_ICONS = {
  first: "M3,3 V13 M13,3 L6,8 L13,13 Z", before: "M11,3 L4,8 L11,13 Z", play: "M4,2 L13,8 L4,14 Z", pause: "M4,3 H7 V13 H4 Z M10,3 H13 V13 H10 Z",
  after: "M5,3 L12,8 L5,13 Z", last: "M13,3 V13 M3,3 L10,8 L3,13 Z", out: "M3,8 H13", in: "M3,8 H13 M8,3 V13",
};
const HEAD_HELP = "space play · ← → step, with shift 10 · home, end · w worst frame · [ ] sample · + − 0 zoom · esc no object · on the frame: click an object, ctrl+wheel or pinch to zoom, drag to move";

function headKey(label, draw, onclick, icon) {
  const face = icon ? s("svg", { width: 16, height: 16, "aria-hidden": "true" }, s("path", { d: HEAD_ICONS[icon], class: "head-icon" })) : draw;
  return h("button", { type: "button", "aria-label": label, title: label, onclick }, face);
}

function headTimes(times) {
  return Array.isArray(times) ? times : Array.from({ length: times.count }, (_, place) => times.first + times.step * place);
}

/** The last frame that came on display before a time. */
function frameAt(times, seconds) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= seconds + 1e-6) low = middle + 1; else high = middle;
  }
  return Math.min(Math.max(low - 1, 0), times.length - 1);
}

function buildHead({ model, root, playhead, resources, document: doc }) {
  root.classList.add("head-view");
  // a notebook's own shortcuts are not meant while a key is pressed in here
  root.dataset.lmSuppressShortcuts = "true";
  const sides = doc.names.length;
  const layers = { truth: true, model: true, trails: true, edges: true };
  let closed = false, place = -1, facts = null, times = [0], runs = null, scores = {}, stages = [];
  let frame = 0, busy = false, next = null, resting = 0, playing = null, order = 0, tellLegend = () => {};
  const style = getComputedStyle(root), colour = (name) => style.getPropertyValue(`--tpo-${name}`).trim();

  const how = () => model.get("how");
  const sourceOf = (side) => `${side}.${how()}`;
  const said = (source) => facts.sources[source] ?? { heads: [], boxes: [], windows: [], objects: [], kinds: [] };
  const sourcesNow = () => ["truth", ...doc.names.map((_, side) => sourceOf(side))];
  const has = (head) => !playhead.get("head") || playhead.get("head") === head || !facts.heads.includes(playhead.get("head"));
  const tone = (side) => (side === 0 ? "model" : "other");
  const nameOfFrame = (number) => `frame/${place}/${number}`;

  const keys = {
    sample: h("select", { "aria-label": "Sample", onchange: () => choose(Number(keys.sample.value)) }, ...doc.samples.map(([id, words], at) => h("option", { value: at }, `${id}: ${words}`))),
    play: headKey("Play", null, () => toggle(), "play"),
    worst: headKey("Jump to the worst frame", "worst", () => worst()),
    count: h("span", { class: "head-count" }),
  };
  const chooser = h("div", { class: "tpo-row head-chooser", hidden: doc.samples.length < 2 },
    headKey("Previous sample", "‹ previous", () => choose(place - 1)), keys.sample, headKey("Next sample", "next ›", () => choose(place + 1)), h("span", { class: "tpo-soft" }));
  const header = h("div", { class: "head-header" });
  const tools = h("div", { class: "tpo-row head-tools" });
  const board = h("div", { class: `head-stages head-stages-${Math.max(sides, 1)}` });
  const legend = h("div", { class: "head-legend", role: "group", "aria-label": "Objects" });
  const transport = h("div", { class: "tpo-row head-transport" },
    headKey("First frame", null, () => go(0), "first"), headKey("Previous frame", null, () => go(frame - 1), "before"), keys.play,
    headKey("Next frame", null, () => go(frame + 1), "after"), headKey("Last frame", null, () => go(times.length - 1), "last"), keys.worst, keys.count,
    h("span", { class: "head-space" }), headKey("Zoom out", null, () => zoom(0.8), "out"), headKey("Zoom in", null, () => zoom(1.25), "in"), headKey("No zoom", "1:1", () => reset()));
  const timeline = headTimeline({ onTime: (seconds) => go(frameAt(times, seconds)), onPick: (object) => pick("temporal", object) });
  const trouble = h("p", { class: "tpo-problem", role: "alert", hidden: true });
  const body = h("div", { class: "head-body" }, header, tools, h("div", { class: "head-main" }, board, legend), transport, timeline.element,
    h("p", { class: "tpo-soft head-help" }, HEAD_HELP));
  root.append(chooser, trouble, body);

  // Frames that a page without a kernel does not hold are stood in for by the nearest one before that it does.
  const framesHeld = {
    async get(name) {
      const number = Number(name.split("/")[2]);
      for (let coarse = 1; ; coarse *= 2) {
        const stand = number - (number % coarse);
        try {
          return await resources.get(nameOfFrame(stand));
        } catch (error) {
          if (error.message !== NOT_HELD || coarse > times.length) throw error;
        }
      }
    },
  };

  function choose(at) {
    if (at >= 0 && at < doc.samples.length && at !== place) playhead.set({ sample: doc.samples[at][0], time_sec: 0, object: -1 });
  }

  async function open(at) {
    place = at;
    stop();
    const mine = ++order;
    keys.sample.value = at;
    chooser.lastChild.textContent = `${at + 1} of ${doc.samples.length}`;
    let found = null;
    try {
      found = at === doc.place && doc.case ? doc.case : await jsonOf(resources, `case/${at}`);
    } catch (error) {
      if (mine !== order || closed) return;
      trouble.textContent = error.message;
    }
    if (mine !== order || closed) return;
    trouble.hidden = Boolean(found);
    body.hidden = !found;
    facts = found;
    if (!found) return;
    times = headTimes(found.times);
    runs = headRuns({ resources, place: at, length: doc.run });
    scores = {};
    setUp();
    want(frameAt(times, playhead.get("time_sec")), true);
    sourcesNow().forEach((source) => score(source));
  }

  async function score(source) {
    const mine = order;
    if (scores[source] || !facts.sources[source]?.heads.length) return;
    scores[source] = { saliency: null, hidden: {}, frames: {} };
    try {
      const found = await jsonOf(resources, `scores/${place}/${source}`);
      if (mine === order && !closed) { scores[source] = found; panels(); }
    } catch (error) {
      if (mine === order && !closed && error.message !== NOT_HELD) tellTrouble(error.message);
    }
  }

  function tellTrouble(words) {
    trouble.textContent = words;
    trouble.hidden = false;
  }

  function setUp() {
    stages.forEach((each) => each.stage.close());
    stages = Array.from({ length: Math.max(sides, 1) }, (_, side) => {
      const readout = h("p", { class: "head-readout", "aria-live": "off" });
      const label = sides ? `Frames with truth and ${doc.names[side]}` : "Frames with the truth";
      const stage = frameStage({ resources: framesHeld, name: nameOfFrame, size: facts.size, label, mostHeight: sides > 1 ? 380 : 440, draw: (context, view) => overlay(context, view, side) });
      let pressedAt = [0, 0];
      stage.canvas.addEventListener("pointerdown", (event) => { pressedAt = [event.clientX, event.clientY]; });
      stage.canvas.addEventListener("click", (event) => { if (Math.hypot(event.clientX - pressedAt[0], event.clientY - pressedAt[1]) < 4) clicked(stage, side, event); });
      return { stage, readout, element: h("div", { class: "head-side" }, sides > 1 ? h("h3", { class: `head-${tone(side)}-ink` }, doc.names[side]) : null, stage.element, readout) };
    });
    board.replaceChildren(...stages.map((each) => each.element));
    drawHeader();
    drawTools();
    panels();
  }

  function drawHeader() {
    const rows = facts.sides.map((side, at) => [doc.names[at], tone(at), side ? side.text || "(nothing)" : "not asked", side]);
    header.replaceChildren(h("h3", {}, facts.question || facts.id), h("dl", {},
      h("dt", { class: "head-truth-ink" }, "truth"), h("dd", {}, facts.answer || "(no answer given)"),
      ...rows.flatMap(([name, colour, words, side]) => [h("dt", { class: `head-${colour}-ink` }, name), h("dd", {}, words, " ", side ? route(side) : null, side ? losses(side) : null)])));
  }

  function route({ expected, emitted, probability }) {
    const [due, asked] = [expected, emitted].map((heads) => [...new Set(heads)]);
    const right = due.length === asked.length && due.every((head) => asked.includes(head));
    const list = (heads) => (heads.length ? heads.join(" + ") : "none");
    const odds = [...new Set([...due, ...asked])].filter((head) => head in probability).map((head) => `p(${head}) = ${shown(probability[head])}`);
    const words = `route ${list(asked)} emitted${right ? ", as expected" : `, ${list(due)} expected`}${odds.length ? `, ${odds.join(", ")}` : ""}`;
    return h("span", { class: `head-route ${right ? "head-right" : "head-wrong"}` }, `${right ? "✓" : "✗"} ${words}`);
  }

  function losses({ losses: terms }) {
    if (!terms.length) return null;
    const words = terms.map(([name, value, weight]) => `${name} ${shown(value)}${weight === 1 ? "" : ` × ${shown(weight)}`}`);
    return h("details", { class: "tpo-soft head-losses", open: terms.length <= FEW_TERMS }, h("summary", {}, `losses, ${terms.length} terms`), words.join(" · "));
  }

  function drawTools() {
    const head = playhead.get("head");
    const heads = facts.heads.length > 1 ? ["", ...facts.heads] : [];
    const press = (label, on, onclick, title) => h("button", { type: "button", "aria-pressed": String(on), onclick, title }, label);
    const box = (name, label) => h("label", {}, h("input", { type: "checkbox", checked: layers[name], onchange: (event) => { layers[name] = event.target.checked; panels(); } }), label);
    const slider = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: model.get("opacity"), "aria-label": "Opacity of masks", oninput: () => { model.set("opacity", Number(slider.value)); model.save_changes(); } });
    const masks = Object.values(facts.sources).some(({ kinds }) => kinds.length);
    tools.replaceChildren(
      ...(heads.length ? [h("span", { class: "head-group", role: "group", "aria-label": "Heads" }, ...heads.map((name) => press(name || "all heads", name === (facts.heads.includes(head) ? head : ""), () => playhead.set({ head: name, object: -1 }))))] : []),
      ...(sides ? [h("span", { class: "head-group", role: "group", "aria-label": "Answers" }, press("routed", how() === "routed", () => turn("routed"), "What the model gives by itself"), press("forced", how() === "forced", () => turn("forced"), "What the head gives where the true route is given"))] : []),
      box("truth", "truth"), ...(sides ? [box("model", "model")] : []), ...(masks ? [box("trails", "trails"), box("edges", "mask edges"), h("label", {}, "mask opacity", slider)] : []), ...silent());
  }

  function turn(name) {
    model.set("how", name);
    model.save_changes();
  }

  /** Why nothing of a checkpoint is drawn. */
  function silent() {
    if (!sides) return [h("span", { class: "tpo-soft" }, "No answer given: the truth alone.")];
    const mute = doc.names.filter((_, side) => !said(sourceOf(side)).heads.length);
    if (!mute.length) return [];
    const words = how() === "routed" ? "asked no head by itself" : "has no forced answer";
    return [h("span", { class: "head-silent", role: "status" }, `${sides > 1 ? mute.join(" and ") : "The model"} ${words}.`)];
  }

  // What lies over the frame on display.

  function itemsOf(source, side) {
    const found = [], truth = source === "truth";
    if (!layers[truth ? "truth" : "model"]) return found;
    const { boxes, kinds } = said(source);
    const selected = playhead.get("object");
    const short = count() <= FEW_LABELS;
    const label = (object, words) => (short || object === selected ? [several() ? object + 1 : "", words].filter(Boolean).join(" ") : truth && sides && layers.model ? "" : String(object + 1));
    const who = truth ? "truth" : doc.names[side];
    for (const each of has("region") ? boxes : []) {
      const away = each.at !== frame;
      if (away && boxes.length > FEW_BOXES && each.object !== selected) continue;
      found.push({ truth, object: each.object, box: each.box, away, label: label(each.object, away ? `${who}, at ${shown(each.time)} s` : who) });
    }
    const boxed = truth || !kinds.includes("mask") || said("truth").kinds.includes("track");
    for (const { object, entry } of has("mask") ? runs.over(source, frame) : []) {
      if (!entry.mask && !entry.box) continue;
      const item = { truth, object, mask: entry.mask ? entry : null, away: entry.at !== frame, label: label(object, entry.at === frame ? who : `${who}, at ${shown(entry.time)} s`) };
      if (entry.box && boxed) Object.assign(item, { box: entry.box, trail: layers.trails ? runs.trail(source, frame, object) : null });
      found.push(item);
    }
    return found;
  }

  const objectsOf = (head, source) => (head === "region" ? said(source).boxes : head === "temporal" ? said(source).windows : said(source).objects.map((object) => ({ object }))).map(({ object }) => object);
  const allObjects = (head) => [...new Set(sourcesNow().flatMap((source) => objectsOf(head, source)))].sort((one, other) => one - other);
  const count = () => ["region", "mask"].filter(has).reduce((sum, head) => sum + allObjects(head).length, 0);
  const several = () => count() > 1;

  function overlay(context, view, side) {
    if (!facts) return;
    const items = [...itemsOf("truth", side), ...(sides ? itemsOf(sourceOf(side), side) : [])];
    const prompts = facts.prompts.filter(({ at }) => at === frame);
    const colours = { truth: colour("truth"), model: colour(tone(side)), pointed: colour("pointed") };
    try {
      paintOverlay(context, view, { items, prompts, selected: playhead.get("object"), several: several(), opacity: model.get("opacity"), edges: layers.edges, colours });
    } catch (error) {
      tellTrouble(error.message);
    }
  }

  function clicked(stage, side, event) {
    const [x, y] = stage.toFrame(event);
    const size = ([x0, y0, x1, y1]) => Math.abs((x1 - x0) * (y1 - y0));
    const hit = [...itemsOf("truth", side), ...(sides ? itemsOf(sourceOf(side), side) : [])]
      .map((item) => ({ item, box: placeOf(item) }))
      .filter(({ box }) => box && x >= Math.min(box[0], box[2]) && x <= Math.max(box[0], box[2]) && y >= Math.min(box[1], box[3]) && y <= Math.max(box[1], box[3]))
      .sort((one, other) => size(one.box) - size(other.box))[0];
    playhead.set({ object: hit ? hit.item.object : -1 });
  }

  function pick(head, object) {
    const same = playhead.get("object") === object && (facts.heads.length < 2 || playhead.get("head") === head);
    playhead.set(same ? { object: -1 } : facts.heads.length > 1 ? { head, object } : { object });
  }

  // Legend, readouts and timeline.

  /** The score of an object: on the frame on display, and of the whole. */
  function scoreOf(head, object, source) {
    if (head !== "mask") {
      const found = (head === "region" ? said(source).boxes : said(source).windows).find((each) => each.object === object);
      return { here: head === "region" && found?.at === frame ? found.iou : null, whole: found?.iou ?? null, at: found?.at, score: found?.score };
    }
    const [kind, curve] = curveOf(source);
    if (!curve || object > 0) return { here: null, whole: null };
    const entry = runs.over(source, frame).find((each) => each.object === object)?.entry;
    const spot = curve.frames.indexOf(entry ? entry.at : frame);
    return { here: spot < 0 ? null : curve.values[spot], whole: curve.whole, kind, score: entry?.score, said: entry && entry.at !== frame ? `at ${shown(entry.time)} s` : "here" };
  }

  function curveOf(source) {
    const { frames } = scores[source] ?? { frames: {} };
    return frames.mask ? ["J", frames.mask] : frames.track ? ["IoU", frames.track] : ["IoU", null];
  }

  function drawLegend() {
    const heads = facts.heads.filter((head) => ["region", "temporal", "mask"].includes(head) && has(head));
    const what = { region: "box", temporal: "window", mask: "object" };
    const titles = doc.names.flatMap((name) => [sides > 1 ? `${name}: here` : "here", sides > 1 ? `${name}: whole` : "whole"]);
    const selected = playhead.get("object");
    const told = [];
    const rows = heads.flatMap((head) => allObjects(head).map((object) => {
      const moment = head === "region" ? [...said("truth").boxes, ...doc.names.flatMap((_, side) => said(sourceOf(side)).boxes)].find((each) => each.object === object) : null;
      const true_ = objectsOf(head, "truth").includes(object);
      const button = h("button", { type: "button", class: "head-object", "aria-pressed": String(selected === object), onclick: () => pick(head, object), "data-object": object, "data-head": head },
        h("span", { class: "head-swatch", style: { background: several() && head !== "temporal" ? objectHue(object) : "var(--tpo-model)" } }), `${what[head]} ${object + 1}${true_ ? "" : sides ? ", model only" : ""}`);
      const jump = moment ? h("button", { type: "button", class: "head-jump", title: "Show its frame", onclick: () => go(moment.at) }, `${shown(moment.time)} s`) : null;
      const cells = doc.names.flatMap((_, side) => {
        const here = h("td", { class: "n" });
        told.push(() => reword(here, shown(scoreOf(head, object, sourceOf(side)).here)));
        return [here, h("td", { class: "n" }, shown(scoreOf(head, object, sourceOf(side)).whole))];
      });
      return h("tr", {}, h("td", {}, button, jump), ...cells);
    }));
    const kind = sides && heads.includes("mask") && curveOf(sourceOf(0))[0] === "J" ? "IoU (J of masks)" : "IoU";
    const key = h("p", { class: "head-key" }, h("span", { class: "head-truth-ink" }, "╌ truth"), ...doc.names.map((name, side) => h("span", { class: `head-${tone(side)}-ink` }, `━ ${name}`)),
      facts.prompts.length ? h("span", {}, "▽ pointed at (white)") : null, h("span", { class: "tpo-soft" }, "┈ of another frame"));
    const table = h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, sides ? `object, ${kind}` : "object"), ...titles.map((title) => h("th", { class: "n" }, title)))), h("tbody", {}, ...rows));
    // the focus stays where it was when the table is drawn again
    const held = legend.contains(document.activeElement) ? document.activeElement.dataset : null;
    const scrolled = legend.querySelector(".head-rows")?.scrollTop ?? 0;
    const list = h("div", { class: "head-rows" }, rows.length ? table : h("p", { class: "tpo-soft" }, "No object: nothing to point at was asked or given."));
    legend.replaceChildren(key, list);
    list.scrollTop = scrolled;
    if (held) legend.querySelector(`[data-object="${held.object}"][data-head="${held.head}"]`)?.focus();
    // a step changes the scores here and nothing else, so the table stays
    tellLegend = () => told.forEach((tellCell) => tellCell());
  }

  function drawTimeline() {
    const selected = playhead.get("object");
    const named = (suffix) => doc.names.map((name, side) => ({ name: sides > 1 ? name : suffix, tone: tone(side), source: sourceOf(side) }));
    const all = [{ name: "truth", tone: "truth", source: "truth" }, ...named("model")].filter(({ tone: each }) => layers[each === "truth" ? "truth" : "model"]);
    const timed = has("temporal") && facts.heads.includes("temporal"), masked = has("mask") && facts.heads.includes("mask");
    const curves = masked ? all.slice(0).map((each) => ({ ...each, curve: curveOf(each.source) })).filter(({ curve }) => curve[1]) : [];
    timeline.draw({
      duration: Math.max(facts.duration, times[times.length - 1], 1e-3), selected, seen: facts.seen,
      windows: timed ? all.map((each) => ({ ...each, list: said(each.source).windows })) : [],
      saliency: timed ? all.filter(({ source }) => scores[source]?.saliency).map((each) => ({ ...each, ...scores[each.source].saliency })) : [],
      scores: selected > 0 ? [] : curves.map(({ curve: [, { times: at, values }], ...each }) => ({ ...each, times: at, values })),
      scoreName: curves.some(({ curve }) => curve[0] === "J") ? "J per frame" : "IoU per frame",
      hidden: masked ? all.map((each) => ({ ...each, name: `hidden: ${each.name}`, spans: (scores[each.source]?.hidden ?? {})[Math.max(selected, 0)] ?? [] })).filter(({ spans }) => spans.length) : [],
      moments: [...(has("region") ? all.flatMap((each) => said(each.source).boxes.map(({ time, object }) => ({ tone: each.tone, time, name: `${each.name}, box ${object + 1}` }))) : []), ...facts.prompts.map(({ time }) => ({ tone: "pointed", time, name: "pointed at" }))],
    });
  }

  function tell() {
    const words = `frame ${frame + 1} of ${times.length} · ${shown(times[frame], 4)} s`;
    reword(keys.count, words);
    tellLegend();
    timeline.at(times[frame], words);
    const object = Math.max(playhead.get("object"), 0);
    stages.forEach(({ readout }, side) => {
      const lines = sides ? ["region", "mask"].filter((head) => has(head) && allObjects(head).includes(object)).map((head) => {
        const { here, whole, kind, score: there, said: spot = "here" } = scoreOf(head, object, sourceOf(side));
        return `${head} ${object + 1}: ${kind ?? "IoU"} ${spot} ${shown(here)}, whole ${shown(whole)}${there === undefined || there === null ? "" : `, visible with ${shown(there)}`}`;
      }) : [];
      if (sides && has("temporal") && facts.heads.includes("temporal")) {
        const best = said(sourceOf(side)).windows[0];
        if (best) lines.push(`first window: IoU ${shown(best.iou)}${best.score === null ? "" : `, score ${shown(best.score)}`}`);
      }
      reword(readout, lines.join(" · "));
    });
  }

  function panels() {
    if (closed || !facts) return;
    drawLegend();
    drawTimeline();
    tell();
    const reason = worstFrame() === null ? "no object here has a score of single frames" : "Jump to the worst frame";
    Object.assign(keys.worst, { disabled: worstFrame() === null, title: reason });
    stages.forEach(({ stage }) => stage.redraw());
  }

  // Moving in time.

  function go(number) {
    playhead.set({ time_sec: times[Math.min(Math.max(number, 0), times.length - 1)] });
  }

  function worstFrame() {
    const found = [], selected = playhead.get("object");
    for (let side = 0; side < sides; side++) {
      const source = sourceOf(side), curve = has("mask") && selected <= 0 ? curveOf(source)[1] : null;
      if (curve) curve.values.forEach((value, at) => { if (value !== null) found.push([value, curve.frames[at]]); });
      if (has("region")) for (const { iou, at, object } of said(source).boxes) if (iou !== null && (selected < 0 || object === selected)) found.push([iou, at]);
    }
    return found.length ? found.reduce((worse, each) => (each[0] < worse[0] ? each : worse))[1] : null;
  }

  function worst() {
    const found = worstFrame();
    if (found !== null) go(found);
  }

  function needed(number) {
    const moving = sourcesNow().filter((source) => said(source).objects.length);
    return [framesHeld.get(nameOfFrame(number)), ...moving.map((source) => runs.need(source, number))].filter(Boolean);
  }

  /** Shows a frame when all of it is there; of those asked for in the meantime only the last. */
  async function want(number, fresh = false) {
    if (busy && !fresh) { next = number; return; }
    busy = true;
    next = null;
    const mine = order;
    const found = await Promise.allSettled(needed(number));
    if (mine !== order || closed) return;
    const failed = found.slice(1).find(({ status, reason }) => status === "rejected" && reason.message !== NOT_HELD);
    if (failed) tellTrouble(failed.reason.message);
    const step = number - frame;
    frame = number;
    readAhead(step);
    await Promise.all(stages.map(({ stage }) => stage.show(number)));
    if (mine !== order || closed) return;
    busy = false;
    tell();
    root.dataset.frame = number;
    clearTimeout(resting);
    resting = setTimeout(ahead, playing ? 0 : REST_MS);
    if (next !== null && next !== number) want(next);
  }

  /** Asks for what a steady hand comes to next, many frames in one message: to a notebook a message costs far more than a frame. */
  function readAhead(step) {
    const at = (steps) => frame + steps * step, inside = (number) => number >= 0 && number < times.length;
    if (!step || Math.abs(step) > STRIDE || !inside(at(SOON)) || resources.asked(nameOfFrame(at(SOON)))) return;
    for (let steps = 1; steps <= LATER && inside(at(steps)); steps++) Promise.allSettled(needed(at(steps)));
  }

  /** Fetches what is likely to be looked at: of a short clip everything, of a long one the neighbours. */
  async function ahead() {
    const mine = order;
    const near = times.length <= FEW_FRAMES ? times.map((_, number) => number) : NEAR.map((step) => frame + step).filter((number) => number >= 0 && number < times.length);
    const missing = near.filter((number) => !resources.has(nameOfFrame(number)));
    for (let at = 0; at < missing.length; at += 8) {
      if (mine !== order || closed) return;
      await Promise.allSettled(missing.slice(at, at + 8).flatMap(needed));
    }
  }

  function toggle() {
    if (playing) return stop();
    if (frame >= times.length - 1) go(0);
    let from = performance.now(), start = frame >= times.length - 1 ? 0 : times[frame];
    playing = setInterval(() => {
      if (busy) { from = performance.now(); start = playhead.get("time_sec"); return; }
      const seconds = start + (performance.now() - from) / 1000;
      const number = frameAt(times, seconds);
      if (number !== frame) go(number);
      if (seconds > times[times.length - 1]) stop();
    }, PLAYED_MS);
    dressPlay();
  }

  function stop() {
    clearInterval(playing);
    playing = null;
    dressPlay();
  }

  function dressPlay() {
    const label = playing ? "Pause" : "Play";
    keys.play.setAttribute("aria-label", label);
    keys.play.title = label;
    keys.play.querySelector("path").setAttribute("d", HEAD_ICONS[playing ? "pause" : "play"]);
  }

  const zoom = (factor) => stages.forEach(({ stage }) => stage.zoom(factor));
  const reset = () => stages.forEach(({ stage }) => stage.reset());

  const shortcuts = {
    " ": () => toggle(), ArrowLeft: (event) => go(frame - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => go(frame + (event.shiftKey ? 10 : 1)),
    Home: () => go(0), End: () => go(times.length - 1), w: worst, "[": () => choose(place - 1), "]": () => choose(place + 1),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => reset(), Escape: () => playhead.set({ object: -1 }),
  };

  function pressed(event) {
    const act = shortcuts[event.key];
    const typed = event.target.closest("select, input[type=range], input[type=text]");
    const own = event.key === " " && event.target.closest("button, input");
    if (!act || typed || own || event.ctrlKey || event.metaKey || event.altKey || !facts) return;
    event.preventDefault();
    event.stopPropagation();
    act(event);
  }

  function follow() {
    const wanted = Math.max(doc.samples.findIndex(([id]) => id === playhead.get("sample")), 0);
    const now = playhead.get("sample") ? wanted : place < 0 ? doc.place : wanted;
    if (now !== place) return void open(now);
    if (!facts) return;
    const number = frameAt(times, playhead.get("time_sec"));
    if (number !== frame || busy) want(number);
    if (seen !== `${playhead.get("head")}/${playhead.get("object")}`) { remember(); drawTools(); panels(); }
  }

  let seen = "";
  function remember() { seen = `${playhead.get("head")}/${playhead.get("object")}`; }
  function turned() {
    if (!facts) return;
    sourcesNow().forEach((source) => score(source));
    drawTools();
    panels();
    want(frame);
  }
  function faded() { stages.forEach(({ stage }) => stage.redraw()); }
  const repaint = () => requestAnimationFrame(() => { if (!closed) faded(); });

  const off = playhead.on(follow);
  model.on("change:how", turned);
  model.on("change:opacity", faded);
  model.on("change:theme", repaint);
  root.addEventListener("keydown", pressed);
  remember();
  follow();
  return () => {
    closed = true;
    stop();
    clearTimeout(resting);
    off();
    model.off("change:how", turned);
    model.off("change:opacity", faded);
    model.off("change:theme", repaint);
    root.removeEventListener("keydown", pressed);
    timeline.close();
    stages.forEach(({ stage }) => stage.close());
  };
}

export default mounted(buildHead, "What the heads predict", playheadOf);
