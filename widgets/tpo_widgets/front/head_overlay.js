// What lies over a frame of HeadView: boxes, masks with their edge, tracks with trails, and what the user points at.
// Truth is dashed, the model's lines are whole; what belongs to another frame is dotted and faint.

import { decodeRle, maskEdges } from "./rle.js";

const HEAD_HUES = ["#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#8C6BB1"];
const HEAD_DASH = { truth: [7, 4], away: [2, 4] };
const HEAD_FAINT = 0.55, HEAD_DIMMED = 0.4;
const headShapes = new WeakMap();
let headPixels = null;

/** The colour of an object among several. */
export const objectHue = (place) => HEAD_HUES[place % HEAD_HUES.length];

/** The edge of an entry's mask as a path in pixels of the frame, and the box around it. */
function shapeOf(entry) {
  if (!headShapes.has(entry)) {
    const path = new Path2D();
    let box = null;
    headPixels = decodeRle(entry.mask, headPixels);
    for (const line of maskEdges(headPixels, entry.mask.size)) {
      line.forEach(([x, y], place) => {
        if (place) path.lineTo(x, y); else path.moveTo(x, y);
        box = box ? [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)] : [x, y, x, y];
      });
      path.closePath();
    }
    headShapes.set(entry, { path, box });
  }
  return headShapes.get(entry);
}

/** The box that an object takes up, xyxy in pixels of the frame, or null. */
export const placeOf = (item) => item.box ?? (item.mask ? shapeOf(item.mask).box : null);

/**
 * Draws over a frame. `scene`: `items` [{ object, truth, box, mask (an entry of a run), away, trail, label }], `prompts`, `selected` object or -1,
 * `several` whether objects have colours of their own, `opacity` of masks, `edges` whether their edges are drawn, `colours`.
 */
export function paintOverlay(context, view, scene) {
  const order = (item) => (item.object === scene.selected ? 2 : 0) + (item.truth ? 1 : 0);
  const items = [...scene.items].sort((one, other) => order(one) - order(other));
  for (const item of items) if (item.mask) paintMask(context, view, scene, item);
  for (const item of items) {
    if (item.trail) paintTrail(context, view, scene, item);
    if (item.box) paintBox(context, view, scene, item);
  }
  for (const prompt of scene.prompts) paintPrompt(context, view, prompt, scene.colours);
  for (const item of items) if (item.label) paintLabel(context, view, scene, item);
  context.globalAlpha = 1;
}

function styled(context, scene, item, unit = 1) {
  const chosen = item.object === scene.selected;
  context.globalAlpha = item.away ? HEAD_FAINT : scene.selected >= 0 && !chosen ? HEAD_DIMMED : 1;
  context.strokeStyle = item.truth ? scene.colours.truth : scene.colours.model;
  context.lineWidth = (chosen ? 3 : 2) * unit;
  context.setLineDash((item.away ? HEAD_DASH.away : item.truth ? HEAD_DASH.truth : []).map((length) => length * unit));
}

/** A dark line under a coloured one, so that it is seen on any frame. */
function outlined(context, draw) {
  const { strokeStyle, lineWidth, globalAlpha } = context;
  const dash = context.getLineDash();
  context.setLineDash([]);
  Object.assign(context, { strokeStyle: "#000000", lineWidth: lineWidth * 2, globalAlpha: globalAlpha * 0.3 });
  draw();
  context.setLineDash(dash);
  Object.assign(context, { strokeStyle, lineWidth, globalAlpha });
  draw();
}

function paintBox(context, view, scene, item) {
  const [x0, y0, x1, y1] = ordered(item.box);
  styled(context, scene, item);
  const draw = () => context.strokeRect(view.x(x0), view.y(y0), (x1 - x0) * view.scale, (y1 - y0) * view.scale);
  if (item.away) draw(); else outlined(context, draw);
  context.setLineDash([]);
}

const ordered = ([x0, y0, x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];

function paintMask(context, view, scene, item) {
  const { path } = shapeOf(item.mask);
  context.save();
  context.translate(view.x(0), view.y(0));
  context.scale(view.scale, view.scale);
  styled(context, scene, item, 1 / view.scale);
  const strength = context.globalAlpha;
  if (!item.truth && scene.opacity > 0) {
    context.globalAlpha = strength * scene.opacity;
    context.fillStyle = scene.several ? objectHue(item.object) : context.strokeStyle;
    context.fill(path, "evenodd");
    context.globalAlpha = strength;
  }
  if (scene.edges) outlined(context, () => context.stroke(path));
  context.restore();
}

function paintTrail(context, view, scene, item) {
  styled(context, scene, item);
  context.setLineDash([]);
  context.fillStyle = context.strokeStyle;
  const strength = context.globalAlpha;
  item.trail.forEach((point, place) => {
    const before = item.trail[place - 1];
    context.globalAlpha = strength * ((place + 1) / item.trail.length);
    if (!point) return;
    if (before) {
      context.beginPath();
      context.moveTo(view.x(before[0]), view.y(before[1]));
      context.lineTo(view.x(point[0]), view.y(point[1]));
      context.stroke();
    }
    context.beginPath();
    context.arc(view.x(point[0]), view.y(point[1]), 2.5, 0, 7);
    context.fill();
  });
}

function paintPrompt(context, view, prompt, colours) {
  const path = new Path2D();
  const points = (prompt.points ?? []).map(([x, y]) => [view.x(x), view.y(y)]);
  if (prompt.box) path.rect(view.x(prompt.box[0]), view.y(prompt.box[1]), ...extent(prompt.box).map((side) => side * view.scale));
  if (points.length > 1) points.forEach(([x, y], place) => (place ? path.lineTo(x, y) : path.moveTo(x, y)));
  for (const [x, y] of points) { path.moveTo(x + 4, y); path.arc(x, y, 4, 0, 7); }
  for (const [strokeStyle, lineWidth] of [["#000000", 5], [colours.pointed, 2.5]]) {
    Object.assign(context, { strokeStyle, lineWidth, globalAlpha: 1 });
    context.stroke(path);
  }
}

const extent = ([x0, y0, x1, y1]) => [x1 - x0, y1 - y0];

/** A tag at a corner of an object: above for the truth, below for the model. */
function paintLabel(context, view, scene, item) {
  const box = placeOf(item);
  if (!box) return;
  const [x0, y0, , y1] = ordered(box);
  styled(context, scene, item);
  context.setLineDash([]);
  context.globalAlpha = Math.max(context.globalAlpha, 0.75);
  context.font = "600 11px system-ui, sans-serif";
  const width = context.measureText(item.label).width + 8, height = 16;
  const { canvas } = context, ratio = canvas.width / (parseFloat(canvas.style.width) || canvas.width);
  const left = clampTo(view.x(x0) - 1, canvas.width / ratio - width);
  const top = clampTo(item.truth ? view.y(y0) - height - 5 : view.y(y1) + 5, canvas.height / ratio - height);
  context.fillStyle = scene.several ? objectHue(item.object) : context.strokeStyle;
  context.fillRect(left, top, width, height);
  context.fillStyle = inkOn(context.fillStyle);
  context.textBaseline = "middle";
  context.fillText(item.label, left + 4, top + height / 2 + 0.5);
}

const clampTo = (value, most) => Math.max(0, Math.min(value, most));

function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}
