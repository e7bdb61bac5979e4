// Draw on the frames of a clip, ask a question, see the answer.

import { h } from "./dom.js";
import { frameStage } from "./frame_stage.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";
import { padAsk } from "./pad_ask.js";
import { padHistory } from "./pad_history.js";
import { padList } from "./pad_list.js";
import { padMasks } from "./pad_masks.js";
import { padColours, padPaintAnswer, padPaintPrompt } from "./pad_paint.js";
import { PAD_TOOLS, padPointer } from "./pad_pointer.js";
import { padForgotten, padPoints } from "./pad_shapes.js";
import { padTimeline } from "./pad_timeline.js";

const PAD_ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAD_HELP = "Frame to draw on. Keys: b box, p point, s scribble, v select, arrows move the selected prompt, or go to the next frame, Delete, Escape.";

function buildPad({ model, root, playhead, resources, document: clip }) {
  const times = Array.isArray(clip.times) ? clip.times : Array.from({ length: clip.times.count }, (_, place) => place * clip.times.step_sec);
  const history = padHistory();
  let view = null, drafted = null, known = state();

  const pad = {
    size: clip.size,
    tool: "box",
    get prompts() { return model.get("drawn"); },
    get selected() { return model.get("selected"); },
    get timeSec() { return times[frame()]; },
    get scale() { return view ? view.scale : 1; },
    isHere: (prompt) => numberAt(prompt.time_sec) === frame(),
    draft(prompt, place) {
      drafted = prompt && { prompt, place };
      readout.textContent = prompt ? measured(prompt) : "";
      stage.redraw();
    },
    hover(at) { readout.textContent = at ? `${at.map((value) => value.toFixed(1)).join(", ")} px` : ""; },
    put(prompt, place) {
      const after = place < 0 ? [...pad.prompts, prompt] : pad.prompts.map((each, index) => (index === place ? prompt : each));
      commit(after, place < 0 ? after.length - 1 : place);
    },
    select(place) {
      model.set("selected", place);
      model.save_changes();
    },
    remove(place) { commit(pad.prompts.filter((_, index) => index !== place), -1, padForgotten(model.get("question"), place)); },
    complain: (sentence) => asking.complain(sentence),
    mention: (place) => asking.mention(place),
    go: (timeSec) => playhead.set({ time_sec: times[numberAt(timeSec)] }),
  };

  const stage = frameStage({ resources, size: clip.size, name: (number) => `frame/${number}`, label: PAD_HELP, draw: paint, pan: false });
  const pointer = padPointer(stage, pad);
  const masks = padMasks(resources, () => stage.redraw(), (sentence) => asking.complain(sentence));
  const asking = padAsk(model, pad.go);
  const list = padList(pad);
  const timeline = padTimeline(clip.duration_sec, pad.go);
  const readout = h("output", { class: "tpo-pad-readout tpo-soft" });
  const bar = h("input", { type: "range", min: 0, max: times.length - 1, "aria-label": "Frame", oninput: () => playhead.set({ time_sec: times[bar.value] }) });
  const moment = h("span", { class: "tpo-pad-moment" });
  const tools = Object.fromEntries(Object.entries(PAD_TOOLS).map(([tool, key]) => [tool, h("button", { type: "button", title: `Key ${key}`, onclick: () => take(tool) }, tool[0].toUpperCase() + tool.slice(1))]));
  const actions = {
    undo: act("Undo", "Ctrl+Z", () => travel(history.undo(state()))),
    redo: act("Redo", "Ctrl+Shift+Z", () => travel(history.redo(state()))),
    remove: act("Delete", "Delete the selected prompt", () => pad.remove(pad.selected)),
    clear: act("Clear", "Delete all prompts", () => commit([], -1)),
  };
  const zooms = [act("−", "Zoom out", () => zoom(1 / 1.5)), act("+", "Zoom in", () => zoom(1.5)), act("Fit", "Show the whole frame", () => zoom(0))];

  function act(words, help, onclick) { return h("button", { type: "button", title: help, "aria-label": words.length > 1 ? null : help, onclick }, words); }

  function state() { return { drawn: model.get("drawn"), question: model.get("question") }; }

  function numberAt(timeSec) { return Math.max(times.findLastIndex((time) => time <= timeSec + 1e-6), 0); }

  function frame() { return numberAt(playhead.get("time_sec")); }

  function measured(prompt) {
    const points = padPoints(prompt);
    const places = (prompt.type === "scribble" ? [points[0], points.at(-1)] : points).map(([x, y]) => `${x}, ${y}`).join(" to ");
    const [x0, y0, x1, y1] = prompt.xyxy ?? [];
    const more = prompt.type === "box" ? ` (${Number((x1 - x0).toFixed(3))} x ${Number((y1 - y0).toFixed(3))})` : prompt.type === "scribble" ? ` (${points.length} points)` : "";
    return `${places}${more} px`;
  }

  function commit(drawn, selected, question = model.get("question")) {
    known = { drawn, question };
    history.record(state(), known);
    change(drawn, selected, question);
  }

  function change(drawn, selected, question) {
    known = { drawn, question };
    model.set("drawn", drawn);
    model.set("selected", selected);
    if (question !== model.get("question")) model.set("question", question);
    model.save_changes();
    asking.complain("");
  }

  function travel(step) { if (step) change(step.drawn, Math.min(pad.selected, step.drawn.length - 1), step.question); }

  function take(tool) {
    pointer.cancel();
    pad.tool = tool;
    show();
  }

  function zoom(factor) {
    if (factor) stage.zoom(factor);
    else stage.reset();
  }

  function paint(context, given) {
    view = given;
    const colours = padColours(root), found = model.get("found") ?? {}, mask = found.objects ? masks.at(found, pad.timeSec) : null;
    if (mask?.picture) {
      context.imageSmoothingEnabled = false;
      context.drawImage(mask.picture, view.x(0), view.y(0), clip.size[0] * view.scale, clip.size[1] * view.scale);
    }
    (mask?.boxes ?? []).forEach((box, place) => { if (box) padPaintAnswer(context, view, box, `object ${place + 1}`, colours); });
    (found.boxes ?? []).forEach((box, place) => padPaintAnswer(context, view, box, `answer ${place + 1}`, colours));
    pad.prompts.forEach((prompt, place) => {
      const selected = place === pad.selected;
      if (!pad.isHere(prompt) || drafted?.place === place) return;
      padPaintPrompt(context, view, prompt, { name: String(place), colours, selected, handles: selected && pad.tool === "select" });
    });
    if (drafted) padPaintPrompt(context, view, drafted.prompt, { name: drafted.place < 0 ? "" : String(drafted.place), colours, selected: true });
  }

  function show() {
    const number = frame(), found = model.get("found") ?? {};
    for (const [tool, button] of Object.entries(tools)) button.setAttribute("aria-pressed", String(tool === pad.tool));
    stage.canvas.style.cursor = pad.tool === "select" ? "default" : "crosshair";
    actions.undo.disabled = !history.undoable;
    actions.redo.disabled = !history.redoable;
    actions.remove.disabled = !pad.prompts[pad.selected];
    actions.clear.disabled = !pad.prompts.length;
    bar.value = number;
    moment.textContent = `frame ${number + 1} of ${times.length}, ${times[number].toFixed(2)} s`;
    bar.setAttribute("aria-valuetext", moment.textContent);
    list.show(pad.prompts, pad.selected);
    timeline.show({ now: times[number], prompts: pad.prompts.map((prompt) => prompt.time_sec), windows: found.windows ?? [] });
    stage.redraw();
  }

  function follow() {
    pointer.cancel();
    stage.show(frame());
    show();
  }

  function followDrawn() {
    // what Python sets can be undone too
    const now = state();
    if (JSON.stringify(now.drawn) !== JSON.stringify(known.drawn)) history.record(known, now);
    known = now;
    show();
  }

  function press(event) {
    const key = event.key.toLowerCase(), isText = event.target.matches("input[type=text], select"), onFrame = event.target === stage.canvas;
    if (isText) return;
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) (key === "y" || event.shiftKey ? actions.redo : actions.undo).click();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key === "escape") { if (!pointer.cancel()) pad.select(-1); }
    else if (key === "delete" || key === "backspace") actions.remove.click();
    else if (onFrame && event.key in PAD_ARROWS) arrow(PAD_ARROWS[event.key], event.shiftKey ? 10 : 1);
    else if ("+-0".includes(key)) zoom({ "+": 1.5, "-": 1 / 1.5, 0: 0 }[key]);
    else {
      const tool = Object.keys(PAD_TOOLS).find((name) => PAD_TOOLS[name] === key);
      if (!tool) return;
      take(tool);
    }
    event.preventDefault();
  }

  function arrow([dx, dy], far) {
    if (!pointer.nudge(dx * far, dy * far)) playhead.set({ time_sec: times[Math.min(Math.max(frame() + dx, 0), times.length - 1)] });
  }

  const single = times.length === 1;
  // the last frame lies where the axis below it has its time
  bar.style.width = `calc(${(100 * times.at(-1)) / clip.duration_sec}% + 16px)`;
  const content = h("div", { class: "tpo-pad", "data-lm-suppress-shortcuts": "true", onkeydown: press },
    h("div", { class: "tpo-row tpo-pad-tools" },
      h("div", { class: "tpo-row", role: "group", "aria-label": "Tools" }, ...Object.values(tools)),
      h("div", { class: "tpo-row", role: "group", "aria-label": "Changes" }, ...Object.values(actions)),
      h("div", { class: "tpo-row", role: "group", "aria-label": "Zoom" }, ...zooms)),
    stage.element,
    h("div", { class: "tpo-pad-below" }, readout, moment),
    single ? null : h("div", { class: "tpo-pad-time" }, bar, timeline.element),
    h("div", { class: "tpo-pad-columns" }, list.element, asking.element));
  root.append(content);

  const stops = [playhead.on(follow)];
  const watched = { "change:drawn": followDrawn, "change:selected": show, "change:found": show, "change:theme": show, "change:question": () => { known = { ...known, question: model.get("question") }; } };
  for (const [event, listener] of Object.entries(watched)) {
    model.on(event, listener);
    stops.push(() => model.off(event, listener));
  }
  follow();
  asking.show();
  return () => { for (const close of [...stops, pointer.close, asking.close, masks.close, stage.close]) close(); };
}

export default mounted(buildPad, "PromptPad", playheadOf);
