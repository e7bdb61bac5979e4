// One frame of a clip on a canvas, with what a view draws over it, and the way between its pixels and those of the original frame.

import { h, onNextFrame } from "./dom.js";

const DECODED = 12;
const MOST_ZOOM = 16;

/**
 * A stage for the frames of one film.
 *
 * Args: `resources`; `name(number)` of a frame's resource; `size` [w, h] of the original frame; `label` for screen readers;
 * `draw(context, view)` over the frame, with `view.x(px)`, `view.y(px)`, `view.scale` from original pixels to those of the screen;
 * `pan`: whether dragging moves a zoomed frame; `mostHeight`: in CSS pixels.
 *
 * Gives: `element`, `canvas`, `show(number)` which resolves when it is drawn, `redraw()`, `toFrame(event)` -> [x, y] in original pixels,
 * `zoom(factor, at)`, `move(dx, dy)` of a zoomed frame in CSS pixels, `reset()`, `use(options)` to change name or size, `close()`.
 */
export function frameStage({ resources, name, size, label, draw = () => {}, pan = true, mostHeight = 480 }) {
  const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": label });
  const missing = h("p", { class: "tpo-missing", hidden: true });
  const element = h("div", { class: "tpo-stage" }, canvas, missing);
  const context = canvas.getContext("2d");
  const decoded = new Map();
  let current = null, wanted = -1, width = 0, height = 0, zoomed = 1, left = 0, top = 0, closed = false;

  const view = {
    get scale() { return (width / size[0]) * zoomed; },
    x: (px) => px * view.scale - left,
    y: (py) => py * view.scale - top,
  };

  function fit() {
    const room = element.clientWidth;
    if (!room) return;
    width = Math.floor(Math.min(room, (mostHeight * size[0]) / size[1]));
    height = Math.max(1, Math.round((width * size[1]) / size[0]));
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    clamp();
    paint();
  }

  function clamp() {
    left = Math.min(Math.max(left, 0), width * (zoomed - 1));
    top = Math.min(Math.max(top, 0), Math.max(size[1] * view.scale - height, 0));
  }

  function paint() {
    if (closed || !width) return;
    const ratio = canvas.width / width;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (current) {
      context.imageSmoothingEnabled = view.scale * (size[0] / current.width) < 2;
      context.drawImage(current, -left, -top, size[0] * view.scale, size[1] * view.scale);
    }
    draw(context, view);
    canvas.dataset.frame = wanted;
  }

  async function bitmap(number) {
    const key = name(number);
    if (decoded.has(key)) {
      const found = decoded.get(key);
      decoded.delete(key);
      decoded.set(key, found);
      return found;
    }
    const { bytes } = await resources.get(key);
    const found = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    decoded.set(key, found);
    for (const [oldest, picture] of decoded) {
      if (decoded.size <= DECODED) break;
      if (picture === current || oldest === key) continue;
      decoded.delete(oldest);
      picture.close();
    }
    return found;
  }

  async function show(number) {
    wanted = number;
    const key = name(number);
    const late = () => closed || wanted !== number || name(number) !== key;
    try {
      const found = await bitmap(number);
      if (late()) return;
      current = found;
      missing.hidden = true;
    } catch (error) {
      if (late()) return;
      current = null;
      missing.textContent = error.message;
      missing.hidden = false;
    }
    paint();
  }

  function toFrame(event) {
    const place = canvas.getBoundingClientRect();
    const x = (event.clientX - place.left + left) / view.scale;
    const y = (event.clientY - place.top + top) / view.scale;
    return [Math.min(Math.max(x, 0), size[0]), Math.min(Math.max(y, 0), size[1])];
  }

  function zoom(factor, at = [width / 2, height / 2]) {
    const after = Math.min(Math.max(zoomed * factor, 1), MOST_ZOOM);
    left = ((left + at[0]) * after) / zoomed - at[0];
    top = ((top + at[1]) * after) / zoomed - at[1];
    zoomed = after;
    clamp();
    paint();
  }

  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const place = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), [event.clientX - place.left, event.clientY - place.top]);
  }, { passive: false });

  // Two fingers zoom; one, or the mouse, moves a frame that is larger than its window.
  const fingers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pan && zoomed > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const place = canvas.getBoundingClientRect();
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2 - place.left, (now[1] + other[1]) / 2 - place.top]);
    } else if (pan && zoomed > 1) {
      left -= now[0] - before[0];
      top -= now[1] - before[1];
      clamp();
      paint();
    }
    fingers.set(event.pointerId, now);
  });
  for (const ended of ["pointerup", "pointercancel"]) canvas.addEventListener(ended, (event) => fingers.delete(event.pointerId));

  const redraw = onNextFrame(paint);
  const watch = new ResizeObserver(fit);
  watch.observe(element);
  return {
    element, canvas, show, redraw, toFrame, zoom,
    get zoomed() { return zoomed; },
    move(dx, dy) { left -= dx; top -= dy; clamp(); paint(); },
    reset() { zoomed = 1; left = top = 0; paint(); },
    use(options) {
      name = options.name ?? name;
      size = options.size ?? size;
      zoomed = 1;
      left = top = 0;
      current = null;
      fit();
    },
    close() {
      closed = true;
      redraw.cancel();
      watch.disconnect();
      for (const picture of decoded.values()) picture.close();
      decoded.clear();
    },
  };
}
