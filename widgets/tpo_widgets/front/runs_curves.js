// Learning curves of the selected runs, or of those that pass the filters: a line for each run, or the mean over seeds with its interval.

import { h, s } from "./dom.js";
import { runsTicks } from "./runs_axes.js";
import { runsJson, runsNumber } from "./runs_data.js";

const CURVES_MOST = 15, CURVES_HEIGHT = 240, CURVES_LEFT = 56, CURVES_RIGHT = 14, CURVES_TOP = 10, CURVES_BELOW = 34;
// readable on light and on dark paper; with three dashes they make fifteen different lines
const CURVES_COLOURS = ["#2f7fc1", "#b5578f", "#a07400", "#7d6bd0", "#3a8f8a"], CURVES_DASHES = ["none", "7 4", "2 3"];

export function runsCurvesView(runs, resources) {
  const terms = h("select", { "aria-label": "Term", onchange: () => runs.set({ term: terms.value }) });
  const scale = h("button", { type: "button", "aria-pressed": "false", onclick() { log = !log; drawChart(); } }, "log");
  const mean = h("button", { type: "button", "aria-pressed": "false", onclick() { over = !over; draw(); } }, "mean over seeds");
  const svg = s("svg", { class: "tpo-runs-chart", role: "img", height: CURVES_HEIGHT });
  const legend = h("div", { class: "tpo-runs-legend" });
  const told = h("p", { class: "tpo-soft tpo-runs-told", "aria-live": "polite" });
  const chart = h("div", { hidden: true }, svg, told, legend);
  const element = h("section", { "aria-label": "Learning curves" },
    h("div", { class: "tpo-row" }, h("h3", {}, "Learning curves"), h("label", {}, "term ", terms), scale, mean), chart);
  const none = h("p", { class: "tpo-soft" }, "Reading the logs …");
  element.append(none);
  let known = null, wanted = "", curves = [], log = false, over = false, named = -1, closed = false, places = null;

  async function readTerms() {
    named = runs.get("reading");
    try {
      known = runsJson(await resources.get("terms")).terms;
    } catch (error) {
      known = known ?? [];
      none.textContent = error.message;
    }
    if (closed) return;
    terms.replaceChildren(...known.map((name) => h("option", { value: name }, name)));
    wanted = "";
    draw();
  }

  const term = () => (known.includes(runs.get("term")) ? runs.get("term") : known[0]);

  /** What is drawn: [{ label, name of the resource, rows }, ...] and how many there would be. */
  function asked() {
    const chosen = runs.get("selected").map(runs.row).filter((row) => row !== undefined);
    const rows = chosen.length ? chosen : runs.visible, among = new Set(rows);
    if (over) {
      const groups = runs.data.overSeeds().filter((group) => group.some((row) => among.has(row)));
      const label = (group) => runs.data.label(group[0]).replace(/(^| )seed=\S+$/, "") || "all seeds";
      return [groups.map((group) => ({ label: `${label(group)} (${group.length} seeds)`, rows: group, name: `mean ${JSON.stringify([group.map((row) => runs.data.ids[row]), term()])}` })), groups.length];
    }
    return [rows.slice(0, CURVES_MOST).map((row) => ({ label: runs.data.label(row), rows: [row], name: `curve ${JSON.stringify([runs.data.ids[row], term()])}` })), rows.length];
  }

  function draw() {
    if (named !== runs.get("reading")) return void readTerms();
    if (known === null) return;
    chart.hidden = !known.length;
    none.hidden = known.length > 0;
    for (const control of [terms, scale, mean]) control.disabled = !known.length;
    if (!known.length) return void (none.textContent = runs.data.length ? "No run has logged a training (metrics.jsonl)." : "No runs yet.");
    terms.value = term();
    const groups = runs.data.overSeeds();
    mean.hidden = !groups.length;
    if (!groups.length) over = false;
    mean.setAttribute("aria-pressed", String(over));
    const [found, all] = asked(), now = JSON.stringify([found.map(({ name }) => name), named]);
    if (now === wanted) return drawChart();
    wanted = now;
    const shown = found.slice(0, CURVES_MOST);
    Promise.all(shown.map((each) => resources.get(each.name).then(
      (found) => ({ ...each, ...runsJson(found) }), (error) => ({ ...each, problem: error.message })))).then((read) => {
      if (closed || now !== wanted) return;
      curves = read.map((each, place) => ({ ...each, colour: CURVES_COLOURS[place % 5], dash: CURVES_DASHES[Math.floor(place / 5) % 3], values: each.values ?? each.mean }));
      chart.dataset.of = all;
      drawChart();
    });
  }

  function drawChart() {
    const drawn = curves.filter((each) => each.steps?.length), all = Number(chart.dataset.of ?? 0);
    scale.setAttribute("aria-pressed", String(log));
    const width = svg.parentNode.clientWidth || 860, right = width - CURVES_RIGHT, foot = CURVES_HEIGHT - CURVES_BELOW;
    svg.setAttribute("viewBox", `0 0 ${width} ${CURVES_HEIGHT}`);
    const usable = (value) => value !== null && (!log || value > 0);
    const values = drawn.flatMap((each) => [...each.values, ...(each.low ?? []), ...(each.high ?? [])]).filter(usable).map((value) => (log ? Math.log10(value) : value));
    const steps = drawn.flatMap((each) => each.steps);
    const ends = (list) => list.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
    let [x0, x1] = ends(steps), [y0, y1] = ends(values);
    if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
    if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
    const x = (step) => CURVES_LEFT + ((step - x0) / (x1 - x0)) * (right - CURVES_LEFT);
    const y = (value) => foot - (((log ? Math.log10(value) : value) - y0) / (y1 - y0)) * (foot - CURVES_TOP);
    places = values.length ? { x, y, usable } : null;
    const parts = [s("title", {}, `${term()} over the steps of ${drawn.length} ${over ? "groups of runs" : "runs"}`)];
    if (values.length) {
      for (const tick of runsTicks(y0, y1)) {
        const at = y(log ? 10 ** tick : tick);
        parts.push(s("line", { class: "grid", x1: CURVES_LEFT, x2: right, y1: at, y2: at }), s("text", { x: CURVES_LEFT - 6, y: at + 4, "text-anchor": "end" }, runsNumber(log ? 10 ** tick : tick)));
      }
      for (const tick of runsTicks(x0, x1, 6)) parts.push(s("text", { x: x(tick), y: foot + 16, "text-anchor": "middle" }, runsNumber(tick)));
      parts.push(s("text", { x: right, y: foot + 30, "text-anchor": "end", class: "soft" }, "step"));
    }
    for (const [place, each] of drawn.entries()) {
      const through = (list) => list.map((value, number) => (usable(value) ? `${x(each.steps[number]).toFixed(1)} ${y(value).toFixed(1)}` : null)).filter(Boolean);
      const line = through(each.values);
      if (each.low && each.low.every(usable)) parts.push(s("path", { class: "band", style: { fill: each.colour }, d: `M${[...through(each.low), ...through(each.high).reverse()].join("L")}Z` }));
      if (!line.length) continue;
      parts.push(line.length === 1 ? s("circle", { cx: line[0].split(" ")[0], cy: line[0].split(" ")[1], r: 4, style: { fill: each.colour } })
        : s("path", { class: "curve", "data-run": each.rows.map((row) => runs.data.ids[row]).join(" "), "data-place": place, style: { stroke: each.colour, strokeDasharray: each.dash }, d: `M${line.join("L")}` }));
    }
    svg.replaceChildren(...parts);
    drawLegend();
    const more = all > curves.length ? `${curves.length} of ${all} are drawn; select runs to choose them. ` : "";
    told.dataset.rest = !values.length && curves.length ? "None of these runs has this curve." : `${more}${runs.get("selected").length ? "Selected runs" : "Runs that pass the filters"}${over ? ", mean and 95% interval (Student's t)" : ""}; of each line at most 300 points.`;
    told.textContent = told.dataset.rest;
  }

  function drawLegend() {
    const now = JSON.stringify(curves.map((each) => [each.label, each.problem, each.rows, each.values?.at(-1)]));
    if (now === legend.dataset.now) return;
    legend.dataset.now = now;
    legend.replaceChildren(...curves.map((each) => {
      const swatch = s("svg", { width: 26, height: 10, "aria-hidden": "true" }, s("line", { x1: 0, x2: 26, y1: 5, y2: 5, style: { stroke: each.colour, strokeDasharray: each.dash, strokeWidth: 2.5 } }));
      const last = each.problem ? "no curve" : `last ${runsNumber(each.values?.at(-1))}`;
      return h("button", { type: "button", class: each.problem ? "off" : null, title: each.problem ? `${each.label}: ${each.problem}` : each.label, onpointerenter: () => runs.point(each.rows[0]), onpointerleave: () => runs.point(-1),
        onfocus: () => runs.point(each.rows[0]), onblur: () => runs.point(-1) }, each.problem ? null : swatch, h("span", { class: "name" }, each.label), h("span", { class: "tpo-soft" }, last));
    }));
  }

  svg.addEventListener("pointermove", (event) => {
    const at = svg.getBoundingClientRect(), px = event.clientX - at.left, py = event.clientY - at.top;
    let found = null, least = 400;
    for (const each of places ? curves : []) {
      (each.steps ?? []).forEach((step, number) => {
        if (!places.usable(each.values[number])) return;
        const away = (places.x(step) - px) ** 2 + (places.y(each.values[number]) - py) ** 2;
        if (away < least) { least = away; found = [each, number]; }
      });
    }
    told.textContent = found ? `${found[0].label}: step ${runsNumber(found[0].steps[found[1]])}, ${term()} ${runsNumber(found[0].values[found[1]])}` : told.dataset.rest;
    runs.point(found ? found[0].rows[0] : -1);
  });
  svg.addEventListener("pointerleave", () => { told.textContent = told.dataset.rest ?? ""; runs.point(-1); });

  function point(row) {
    const id = row < 0 ? null : runs.data.ids[row];
    for (const path of svg.querySelectorAll("path.curve")) path.classList.toggle("pointed", id !== null && path.dataset.run.split(" ").includes(id));
  }

  return { element, draw, point, close() { closed = true; } };
}
