// Drawing on a stage with mouse, pen, finger and keys. What is finished is handed to the pad; what is not yet is its draft.

import { padDecimals, padDistance, padFault, padHandleAt, padMoved, padPrompt, padResized, padSettled } from "./pad_shapes.js";

export const PAD_TOOLS = { box: "b", point: "p", scribble: "s", select: "v" };
const PAD_LEAST = 2;
const PAD_REACH = { mouse: 8, pen: 10, touch: 18 };

/**
 * Listens on a stage's canvas.
 *
 * `pad` has `size`, `tool`, `prompts`, `selected`, `timeSec`, `scale` (CSS pixels per pixel of the frame), `isHere(prompt)`, and hears of
 * `draft(prompt, place)` (place -1: a new one; null: none), `hover(at)`, `put(prompt, place)`, `select(place)` and `complain(sentence)`.
 *
 * Gives `settle(prompt)`, `cancel()` which tells whether something was being drawn, `nudge(dx, dy)` and `close()`.
 */
export function padPointer(stage, pad) {
  const { canvas } = stage;
  const down = new Map();
  let gesture = null;

  const settle = (prompt) => padSettled(prompt, pad.size, padDecimals(pad.scale * (globalThis.devicePixelRatio || 1)));

  function begin(event) {
    const at = stage.toFrame(event);
    const started = { id: event.pointerId, from: [event.clientX, event.clientY], last: [event.clientX, event.clientY], at, far: false };
    if (pad.tool !== "select") return { ...started, act: "draw", points: [at], place: -1, prompt: null };
    const reach = (PAD_REACH[event.pointerType] ?? 10) / pad.scale;
    const chosen = pad.prompts[pad.selected];
    const handle = chosen && pad.isHere(chosen) ? padHandleAt(chosen, at, reach) : "";
    if (handle) return { ...started, act: "resize", handle, place: pad.selected, original: chosen, prompt: null };
    const place = found(at, reach);
    pad.select(place);
    return { ...started, act: place < 0 ? "pan" : "move", place, original: pad.prompts[place], prompt: null };
  }

  /** The nearest prompt within reach, the smaller and later one of those that lie around a place. */
  function found(at, reach) {
    let best = -1, least = Infinity;
    pad.prompts.forEach((prompt, place) => {
      const apart = padDistance(prompt, at);
      const area = prompt.type === "box" ? (prompt.xyxy[2] - prompt.xyxy[0]) * (prompt.xyxy[3] - prompt.xyxy[1]) : 0;
      if (!pad.isHere(prompt) || apart > reach || (best >= 0 && area > least)) return;
      [best, least] = [place, area];
    });
    return best;
  }

  function extend(event) {
    const at = stage.toFrame(event);
    gesture.far ||= Math.hypot(event.clientX - gesture.from[0], event.clientY - gesture.from[1]) >= PAD_LEAST;
    if (gesture.act === "pan") {
      stage.move(event.clientX - gesture.last[0], event.clientY - gesture.last[1]);
      gesture.last = [event.clientX, event.clientY];
      return;
    }
    if (gesture.act === "draw") gesture.prompt = drawn(event, at);
    else if (gesture.far) {
      const [dx, dy] = [at[0] - gesture.at[0], at[1] - gesture.at[1]];
      gesture.prompt = gesture.act === "move" ? padMoved(gesture.original, dx, dy, pad.size) : padResized(gesture.original, gesture.handle, [dx, dy]);
    }
    if (gesture.prompt) pad.draft(settle(gesture.prompt), gesture.place);
  }

  function drawn(event, at) {
    const { points } = gesture;
    if (pad.tool !== "scribble") return padPrompt(pad.tool, [points[0], at], pad.timeSec);
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) {
      const next = stage.toFrame(each);
      if (Math.hypot(next[0] - points.at(-1)[0], next[1] - points.at(-1)[1]) * pad.scale >= PAD_LEAST) points.push(next);
    }
    return padPrompt("scribble", points, pad.timeSec);
  }

  function finish(event) {
    extend(event);
    const { act, far, place, points, prompt } = gesture;
    gesture = null;
    pad.draft(null, -1);
    if (act === "pan" || (act !== "draw" && !far)) return;
    if (act === "draw" && pad.tool === "scribble" && points.length === 1) return pad.complain("Drag to draw a scribble: it needs two points that differ.");
    if (act === "draw" && pad.tool === "box" && !far) return pad.complain("Drag to draw a box: it needs a width and a height.");
    const made = settle(prompt);
    const fault = padFault(made, pad.size);
    if (fault) pad.complain(fault);
    else pad.put(made, place);
  }

  function cancel() {
    if (!gesture) return false;
    gesture = null;
    pad.draft(null, -1);
    return true;
  }

  function nudge(dx, dy) {
    const chosen = pad.prompts[pad.selected];
    if (!chosen || !pad.isHere(chosen)) return false;
    const made = padMoved(chosen, dx, dy, pad.size);
    if (JSON.stringify(made) !== JSON.stringify(chosen)) pad.put(made, pad.selected);
    return true;
  }

  const listeners = {
    pointerdown(event) {
      down.set(event.pointerId, event);
      // a second finger zooms, so what the first one began was no drawing
      if (down.size > 1) return void cancel();
      if (event.button !== 0 || gesture) return;
      canvas.setPointerCapture(event.pointerId);
      gesture = begin(event);
    },
    pointermove(event) {
      if (!gesture) pad.hover(stage.toFrame(event));
      else if (event.pointerId === gesture.id) extend(event);
    },
    pointerup(event) {
      down.delete(event.pointerId);
      if (gesture && event.pointerId === gesture.id) finish(event);
    },
    pointercancel(event) {
      down.delete(event.pointerId);
      if (gesture && event.pointerId === gesture.id) cancel();
    },
    pointerleave() { if (!gesture) pad.hover(null); },
  };
  for (const [name, listener] of Object.entries(listeners)) canvas.addEventListener(name, listener);
  return {
    settle, cancel, nudge,
    close() { for (const [name, listener] of Object.entries(listeners)) canvas.removeEventListener(name, listener); },
  };
}
