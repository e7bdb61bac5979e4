// A small window below a button: lists of checkboxes for columns, axes and categories.

import { h } from "./dom.js";

/** What a button says that opens a window. */
export const RUNS_OPENS = { "aria-haspopup": "dialog", "aria-expanded": "false" };

let runsNames = 0;

/** A name for an element that nothing else on the page has. */
export function runsName() {
  return `tpo-runs-${(runsNames += 1)}`;
}

/** One window for a view: `open(button, label, content)`, `close()`. Escape and a click elsewhere close it. */
export function runsPopover(root) {
  let panel = null, opener = null;

  function close(focus = false) {
    if (!panel) return;
    panel.remove();
    panel = null;
    opener.setAttribute("aria-expanded", "false");
    if (focus) opener.focus();
    document.removeEventListener("pointerdown", outside, true);
  }

  function outside(event) {
    if (!panel.contains(event.target) && !opener.contains(event.target)) close();
  }

  function open(button, label, content) {
    const again = panel && opener === button;
    close();
    if (again) return;
    opener = button;
    panel = h("div", { class: "tpo-runs-popover", role: "dialog", "aria-label": label, onkeydown(event) {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close(true);
    } }, content);
    root.append(panel);
    const place = button.getBoundingClientRect(), within = root.getBoundingClientRect();
    panel.style.left = `${Math.max(8, Math.min(place.left - within.left, within.width - panel.offsetWidth - 8))}px`;
    panel.style.top = `${place.bottom - within.top + 4}px`;
    button.setAttribute("aria-expanded", "true");
    document.addEventListener("pointerdown", outside, true);
    panel.querySelector("input, button")?.focus();
  }

  return { open, close };
}

/** A list of checkboxes with "all" and "none": `changed(chosen)` gets the values that are checked, in their order. */
export function runsChecks(options, changed) {
  const boxes = options.map(({ value, words, checked }) => {
    const box = h("input", { type: "checkbox", checked, onchange: tell });
    return { value, box, row: h("label", { title: words }, box, h("span", {}, words)) };
  });
  function tell() { changed(boxes.filter(({ box }) => box.checked).map(({ value }) => value)); }
  const every = (on) => () => { for (const { box } of boxes) box.checked = on; tell(); };
  return h("div", {}, h("div", { class: "tpo-row" }, h("button", { type: "button", onclick: every(true) }, "all"),
    h("button", { type: "button", onclick: every(false) }, "none")), h("div", { class: "tpo-runs-checks" }, ...boxes.map(({ row }) => row)));
}
