// What can be drawn on a frame: boxes, points and scribbles in pixels of the original frame, moved, resized, found and typed. Nothing is painted here.

export const PAD_NUMBERS = { box: "x0 y0 x1 y1", point: "x y", scribble: "x y x y ..." };

/** So few decimals that rounding moves a place by at most a quarter of a pixel of the screen; `scale` is pixels of the screen per pixel of the frame. */
export function padDecimals(scale) {
  return Math.min(Math.max(Math.ceil(Math.log10(2 * scale)), 0), 3);
}

export function padRounded(value, decimals) {
  return Number(value.toFixed(decimals));
}

/** The points that a prompt is made of. */
export function padPoints(prompt) {
  if (prompt.type === "box") return [prompt.xyxy.slice(0, 2), prompt.xyxy.slice(2)];
  return prompt.type === "point" ? [prompt.xy] : prompt.xys;
}

/** A prompt of a kind through points; of a box, two opposite corners in any order. */
export function padPrompt(type, points, timeSec) {
  const about = { type, time_sec: timeSec };
  if (type === "point") return { ...about, xy: [...points.at(-1)] };
  if (type === "scribble") return { ...about, xys: points.map((point) => [...point]) };
  const [[ax, ay], [bx, by]] = [points[0], points.at(-1)];
  return { ...about, xyxy: [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)] };
}

/** Rounded and inside the frame; points and strokes stay off its right and lower edge, where there is no pixel. */
export function padSettled(prompt, [width, height], decimals) {
  const edge = prompt.type === "box" ? 0 : 10 ** -decimals;
  const settle = (value, most) => padRounded(Math.min(Math.max(value, 0), most), decimals);
  const points = padPoints(prompt).map(([x, y]) => [settle(x, width - edge), settle(y, height - edge)]);
  const apart = points.filter(([x, y], place) => !place || x !== points[place - 1][0] || y !== points[place - 1][1]);
  return padPrompt(prompt.type, prompt.type === "scribble" ? apart : points, prompt.time_sec);
}

/** Why something is no prompt, in one sentence; "" where it is one. */
export function padFault(prompt, [width, height]) {
  const points = padPoints(prompt);
  if (points.some(([x, y]) => !(x >= 0 && y >= 0 && x <= width && y <= height))) return `Every place must lie inside the frame of ${width} x ${height} pixels.`;
  if (prompt.type === "box" && !(prompt.xyxy[0] < prompt.xyxy[2] && prompt.xyxy[1] < prompt.xyxy[3])) return "A box needs a width and a height: x0 < x1 and y0 < y1.";
  if (prompt.type === "scribble" && points.length < 2) return "A scribble needs two points that differ.";
  return "";
}

/** Shifted as a whole, as far as it stays inside the frame. */
export function padMoved(prompt, dx, dy, size) {
  const points = padPoints(prompt);
  const [sx, sy] = [dx, dy].map((shift, axis) => {
    const values = points.map((point) => point[axis]);
    return Math.min(Math.max(shift, -Math.min(...values)), size[axis] - Math.max(...values));
  });
  return padPrompt(prompt.type, points.map(([x, y]) => [x + sx, y + sy]), prompt.time_sec);
}

/** Where a box can be taken to resize it: name -> place. Other prompts are moved only. */
export function padHandles(prompt) {
  if (prompt.type !== "box") return {};
  const [x0, y0, x1, y1] = prompt.xyxy;
  const [cx, cy] = [(x0 + x1) / 2, (y0 + y1) / 2];
  return { nw: [x0, y0], n: [cx, y0], ne: [x1, y0], e: [x1, cy], se: [x1, y1], s: [cx, y1], sw: [x0, y1], w: [x0, cy] };
}

/** A box with one of its handles moved by so much; it may be turned inside out on the way. */
export function padResized(prompt, handle, [dx, dy]) {
  const edges = [...prompt.xyxy];
  if (handle.includes("w")) edges[0] += dx;
  if (handle.includes("n")) edges[1] += dy;
  if (handle.includes("e")) edges[2] += dx;
  if (handle.includes("s")) edges[3] += dy;
  return padPrompt("box", [edges.slice(0, 2), edges.slice(2)], prompt.time_sec);
}

/** The handle under a place, no farther than `reach`; "" for none. */
export function padHandleAt(prompt, [x, y], reach) {
  const apart = ([, [hx, hy]]) => Math.max(Math.abs(hx - x), Math.abs(hy - y));
  const [nearest] = Object.entries(padHandles(prompt)).sort((one, other) => apart(one) - apart(other));
  return nearest && apart(nearest) <= reach ? nearest[0] : "";
}

/** How far a place is from a prompt; 0 inside a box. */
export function padDistance(prompt, [x, y]) {
  if (prompt.type === "box") {
    const [x0, y0, x1, y1] = prompt.xyxy;
    return Math.hypot(Math.max(x0 - x, 0, x - x1), Math.max(y0 - y, 0, y - y1));
  }
  const points = padPoints(prompt);
  return Math.min(...points.map((start, place) => padToSegment([x, y], start, points[Math.min(place + 1, points.length - 1)])));
}

function padToSegment([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const along = Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1), 0), 1);
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}

/** The numbers of a prompt as text, and back: padTyped throws an error with one sentence. */
export function padWritten(prompt) {
  return padPoints(prompt).flat().join(" ");
}

export function padTyped(type, text, timeSec, size) {
  const words = text.trim().split(/[\s,;]+/).filter(Boolean);
  const values = words.map(Number);
  const wanted = { box: values.length === 4, point: values.length === 2, scribble: values.length >= 4 && values.length % 2 === 0 };
  if (!wanted[type] || !values.every(Number.isFinite)) throw new Error(`A ${type} is written as ${PAD_NUMBERS[type]}, in pixels of the frame.`);
  const points = values.flatMap((value, place) => (place % 2 ? [] : [[value, values[place + 1]]]));
  const prompt = type === "box" ? { type, time_sec: timeSec, xyxy: values } : padPrompt(type, points, timeSec);
  const fault = padFault(prompt, size);
  if (fault) throw new Error(fault);
  return prompt;
}

/** The question after a prompt is gone: its mention goes, and those after it count one less. */
export function padForgotten(question, gone) {
  return question
    .replace(new RegExp(`\\s*<prompt:${gone}>`, "g"), "")
    .replace(/<prompt:(\d+)>/g, (mention, place) => (Number(place) > gone ? `<prompt:${place - 1}>` : mention));
}
