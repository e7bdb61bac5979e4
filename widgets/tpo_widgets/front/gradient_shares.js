// Whose step it is, by layer of the language model: bars that go to both sides of zero.

import { h, s } from "./dom.js";

const WIDTH = 820, LEFT = 120, RIGHT = 26, TOP = 6, LINE = 20;
const LAYERS = ["llm.lora", "llm.base"];

/** Bars of shares. `pick(module)` is called on a click, Enter or Space; `draw(record, selected)` draws a record. */
export function gradientShares({ data, pick }) {
  const note = h("p", { class: "tpo-soft" });
  const box = h("div", { class: "tpo-g-scroll tpo-g-tall" });
  const readout = h("p", { class: "tpo-g-readout", "aria-live": "polite" });
  const legend = h("div", { class: "tpo-row tpo-g-legend" }, data.owners.map((owner, place) =>
    h("span", {}, h("i", { class: `tpo-g-swatch tpo-g-o${place % 6}` }), owner)));
  const element = h("div", {}, note, legend, box, readout);
  const svg = s("svg", { width: "100%", class: "tpo-g-shares", role: "listbox" });
  const grid = s("g");
  let rows = [], built = "", at = 0;
  box.append(svg);

  const percent = (share) => `${Math.round(100 * share)}%`;
  const words = (record, module) => {
    const said = data.owners.map((owner, place) => [owner, record.share(module, place)]).filter(([, share]) => Number.isFinite(share));
    return `${data.modules[module]}: ${said.length ? said.map(([owner, share]) => `${owner} ${percent(share)}`).join(", ") : "there is no step"}`;
  };

  function build(layers, prefix) {
    rows = layers.map((module, number) => bar(module, TOP + LINE * number, prefix));
    at = Math.min(at, rows.length - 1);
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${TOP + LINE * layers.length + 18}`);
    svg.setAttribute("aria-label", `Shares by layer of ${prefix}`);
    svg.replaceChildren(grid, ...rows.map((row) => row.element));
  }

  function draw(record, selected) {
    const learning = record.measurement.segment.modules;
    const prefix = LAYERS.find((name) => learning.some((module) => data.modules[module].startsWith(`${name}.`)));
    legend.hidden = readout.hidden = box.hidden = !prefix;
    note.textContent = prefix
      ? `How much of the step in each layer of ${prefix} is each loss's: its gradient along the sum of all. In sum 100% for each layer; left of zero it works against the others.`
      : "No layer of the language model learns in this step, so there is nothing to share.";
    if (!prefix) return;
    const layers = learning.filter((module) => data.modules[module] === prefix || data.modules[module].startsWith(`${prefix}.`));
    if (built !== layers.join()) build(layers, prefix);
    built = layers.join();
    const sums = layers.map((module) => sides(data.owners.map((_, place) => record.share(module, place))));
    const low = Math.min(0, ...sums.map(([less]) => less)), high = Math.max(1, ...sums.map(([, more]) => more));
    const x = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
    const bottom = TOP + LINE * layers.length;
    grid.replaceChildren(...ticks(low, high).flatMap((tick) => [
      s("line", { x1: x(tick), x2: x(tick), y1: TOP, y2: bottom, class: tick === 0 ? "tpo-g-zero-line" : tick === 1 ? "tpo-g-one-line" : "tpo-g-line" }),
      s("text", { x: x(tick), y: bottom + 13, "text-anchor": "middle" }, percent(tick))]));
    layers.forEach((module, number) => rows[number].draw(record, x, module === selected));
    if (layers.includes(selected) && !box.contains(box.getRootNode().activeElement)) at = layers.indexOf(selected);
    rows.forEach(({ element }, number) => element.setAttribute("tabindex", number === at ? 0 : -1));
    readout.textContent = rows[at].element.getAttribute("aria-label");
  }

  function bar(module, y, prefix) {
    const name = data.modules[module];
    const show = () => { readout.textContent = element.getAttribute("aria-label"); };
    const pieces = data.owners.map((_, place) => ({
      box: s("rect", { y: y + 2, height: LINE - 5, class: `tpo-g-o${place % 6}` }),
      said: s("text", { y: y + 13, "text-anchor": "middle", class: `tpo-g-on${place % 6}` }) }));
    const none = s("text", { y: y + 13 }, "no step");
    const element = s("g", { role: "option", class: "tpo-g-bar", "data-module": name, onclick: () => pick(module), onfocus: show, onpointerenter: show },
      s("rect", { x: 0, y, width: WIDTH, height: LINE - 1, class: "tpo-g-ground" }),
      s("text", { x: LEFT - 8, y: y + 13, "text-anchor": "end" }, name === prefix ? `${name}, all` : name),
      pieces.flatMap((piece) => [piece.box, piece.said]), none);

    function drawBar(record, x, chosen) {
      let less = 0, more = 0;
      pieces.forEach((piece, place) => {
        const share = record.share(module, place) || 0;  // none is drawn as zero
        const from = share < 0 ? less : more, to = from + share;
        if (share < 0) less = to; else more = to;
        const left = x(Math.min(from, to)), width = Math.abs(x(to) - x(from));
        piece.box.setAttribute("x", left.toFixed(2));
        piece.box.setAttribute("width", share ? Math.max(width - 1, 0.5).toFixed(2) : 0);
        piece.box.dataset.share = share;
        piece.said.setAttribute("x", (left + width / 2).toFixed(2));
        const said = width > 96 ? `${data.owners[place]} ${percent(share)}` : width > 34 ? percent(share) : "";
        if (piece.said.textContent !== said) piece.said.textContent = said;
      });
      none.setAttribute("x", x(0) + 6);
      none.setAttribute("visibility", less || more ? "hidden" : "visible");
      element.setAttribute("aria-label", words(record, module));
      element.setAttribute("aria-selected", String(chosen));
    }
    return { element, draw: drawBar };
  }

  box.addEventListener("keydown", (event) => {
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") rows[at].element.dispatchEvent(new Event("click"));
    else if (to === undefined) return;
    else {
      rows[at].element.setAttribute("tabindex", -1);
      at = Math.min(Math.max(to, 0), rows.length - 1);
      rows[at].element.setAttribute("tabindex", 0);
      rows[at].element.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  });
  return { element, draw };

  function sides(shares) {
    const finite = shares.filter(Number.isFinite);
    return [finite.reduce((sum, share) => sum + Math.min(share, 0), 0), finite.reduce((sum, share) => sum + Math.max(share, 0), 0)];
  }

  function ticks(low, high) {
    const rough = (high - low) / 8, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step) found.push(Math.abs(tick) < 1e-9 ? 0 : Number(tick.toPrecision(6)));
    return found;
  }
}
