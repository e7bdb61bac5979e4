// Elements in one line each.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: h("button", { class: "key", onclick: f }, "Play"). Attributes that are null or false are left out. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, in the same way. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style" && typeof value === "object") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets an element's only text, where it changed; the text node stays, since `textContent` would leave one behind at every step. */
export function reword(element, words) {
  if (!element.firstChild) element.append("");
  if (element.firstChild.data !== words) element.firstChild.data = words;
}

/** Calls `draw` once before the next picture of the screen, however often it is asked to. */
export function onNextFrame(draw) {
  let asked = 0;
  const ask = () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw(); });
  };
  ask.cancel = () => cancelAnimationFrame(asked);
  return ask;
}

/** A number for people: three digits that matter, "–" for none. */
export function shown(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}
