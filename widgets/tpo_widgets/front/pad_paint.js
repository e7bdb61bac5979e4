// Prompts and answers over a frame. Prompts are white on a dark line, answers vermilion and dashed, so that no colour says it alone.

import { padHandles, padPoints } from "./pad_shapes.js";

const PAD_FONT = "600 12px system-ui, sans-serif";
const PAD_DOT = 5;

/** Colours of the theme that a canvas needs. */
export function padColours(element) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  return { pointed: colour("--tpo-pointed"), model: colour("--tpo-model"), chosen: colour("--tpo-accent"), shade: "#1f2328" };
}

/** A prompt with its number; the selected one has a line of another colour, and handles where it can be changed. */
export function padPaintPrompt(context, view, prompt, { name, colours, selected = false, handles = false }) {
  const points = padPoints(prompt).map(([x, y]) => [view.x(x), view.y(y)]);
  const ink = selected ? colours.chosen : colours.shade;
  context.setLineDash([]);
  context.lineJoin = context.lineCap = "round";
  if (prompt.type === "box") {
    const [[x0, y0], [x1, y1]] = points;
    padRectangle(context, [x0, y0, x1, y1], ink, selected ? 6 : 4);
    padRectangle(context, [x0, y0, x1, y1], colours.pointed, 2);
  } else if (prompt.type === "scribble") {
    padLine(context, points, ink, selected ? 7 : 5);
    padLine(context, points, colours.pointed, 3);
  } else {
    padDot(context, points[0], PAD_DOT + (selected ? 3 : 2), ink);
    padDot(context, points[0], PAD_DOT, colours.pointed);
  }
  if (handles) for (const [x, y] of Object.values(padHandles(prompt))) padSquare(context, [view.x(x), view.y(y)], colours);
  const shift = prompt.type === "box" ? 0 : PAD_DOT + 3;
  if (name) padTag(context, [points[0][0] + shift, points[0][1] - shift], name, selected ? colours.chosen : colours.pointed, selected ? "#ffffff" : colours.shade);
}

/** A box that the model gave. */
export function padPaintAnswer(context, view, [x0, y0, x1, y1], name, colours) {
  const edges = [view.x(x0), view.y(y0), view.x(x1), view.y(y1)];
  context.setLineDash([]);
  padRectangle(context, edges, colours.shade, 4);
  context.setLineDash([7, 4]);
  padRectangle(context, edges, colours.model, 2);
  context.setLineDash([]);
  padTag(context, [edges[0], edges[1]], name, colours.model, "#ffffff");
}

function padRectangle(context, [x0, y0, x1, y1], colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
}

function padLine(context, points, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function padDot(context, [x, y], radius, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function padSquare(context, [x, y], colours) {
  context.fillStyle = colours.chosen;
  context.fillRect(x - 5, y - 5, 10, 10);
  context.fillStyle = colours.pointed;
  context.fillRect(x - 3, y - 3, 6, 6);
}

/** A name on a patch above a place, or below it where there is no room. */
function padTag(context, [x, y], name, ground, ink) {
  context.font = PAD_FONT;
  const wide = context.measureText(name).width + 8;
  const right = context.canvas.clientWidth - wide;
  const [left, top] = [Math.max(Math.min(x, right), 0), y - 19 < 0 ? Math.max(y + 3, 0) : y - 19];
  context.fillStyle = ground;
  context.fillRect(left, top, wide, 16);
  context.fillStyle = ink;
  context.textBaseline = "middle";
  context.fillText(name, left + 4, top + 8.5);
}
