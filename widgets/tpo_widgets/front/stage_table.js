// The table of a recipe: a column for each stage, a row for each part of the model, and below them what each stage is fed and for how long.

import { h, s } from "./dom.js";
import { stageNumber } from "./stage_chart.js";

const HEAD_COLOURS = ["#c05a93", "#b87800", "#1b9aaa", "#7a8a00", "#a0522d", "#5b7fd4"];
const SPARK_WIDTH = 96, SPARK_HEIGHT = 30;
const STATE_WORDS = { trained: "trained", partly: "partly", frozen: "frozen", absent: "none" };
const PROGRESS_WORDS = { done: "done", training: "training", stopped: "stopped", waiting: "waiting", skipped: "not in this run" };

/** The colour of a head, a term or a task: the same wherever it appears. */
export function stageColour(owner, heads) {
  const place = heads.indexOf(owner);
  if (place >= 0) return HEAD_COLOURS[place % HEAD_COLOURS.length];
  return { loss: "var(--tpo-ink)", mlm: "var(--tpo-other)", assign: "#8c6bb1" }[owner] ?? "var(--tpo-soft)";
}

/** 1234 -> 1.23k. */
export function stageCount(value) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${Number((value / size).toPrecision(3))}${letter}`;
  return String(value);
}

/** Gives `element`, `update({ stage, head, run })`. `choose(stage)` and `point(head)` are called when a column or a head's row is chosen. */
export function stageTable(document, { choose, point }) {
  const { stages, rows, kinds, totals } = document;
  const heads = rows.filter((row) => row.key.startsWith("heads.")).map((row) => row.key.slice(6));
  const buttons = stages.map((stage, place) => h("button", {
    "aria-pressed": "false", "aria-label": `stage ${stage.name}: ${stage.title}`, title: stage.title,
    onclick: () => choose(stage.name), onkeydown: (event) => step(event, place) }, stage.name));
  const bars = stages.map(() => progressCell());
  const sparks = stages.map((stage) => spark(stage));
  const headRows = new Map();

  function step(event, place) {
    const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: stages.length - 1 }[event.key];
    if (to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
  }

  function rowHeader(row) {
    const name = row.key.startsWith("heads.") ? row.key.slice(6) : "";
    if (!name) return h("th", { scope: "row", title: row.key }, row.label);
    const button = h("button", { class: "tpo-st-head", "aria-pressed": "false", title: `${row.key}: look at this head`, onclick: () => point(name) },
      h("i", { style: { background: stageColour(name, heads) } }), row.label);
    const header = h("th", { scope: "row" }, button);
    headRows.set(name, button);
    return header;
  }

  const line = (label, cells, attributes = {}) => h("tr", attributes, h("th", { scope: "row" }, label), ...cells);
  const cells = (make) => stages.map((stage, place) => h("td", {}, make(stage, place)));
  const progress = line("progress", bars.map((bar) => bar.element), { hidden: true });
  const some = (test) => stages.some(test);
  const settings = [
    totals.length ? line("learns, of all", cells((_, place) => h("span", { title: `${totals[place][0].toLocaleString("en")} of ${totals[place][1].toLocaleString("en")} parameters` }, `${stageCount(totals[place][0])} of ${stageCount(totals[place][1])}`))) : null,
    line("data", cells((stage) => mixture(stage, heads))),
    line("losses × weight", cells((stage) => h("div", { class: "tpo-st-terms" }, stage.losses.map(([term, weight]) =>
      h("span", {}, h("i", { style: { background: stageColour(term, heads) } }), `${term} × ${stageNumber(weight)}`))))),
    line("length", cells((stage) => stage.steps ? `${stage.steps.toLocaleString("en")} steps` : `${stage.epochs} epoch${stage.epochs === 1 ? "" : "s"}`)),
    line("rows per step", cells((stage) => h("span", { title: `${stage.batching === "mixed" ? "all tasks in every batch" : "one task per batch"}; at most ${stage.questions} question(s) share a row` },
      `${stage.batch}`, h("small", {}, stage.questions > 1 ? ` × ≤${stage.questions} questions` : "", stage.batching === "mixed" ? ", mixed" : "")))),
    line("learning rate", sparks.map((each) => h("td", {}, each.element))),
    some((stage) => stage.curriculum.length || stage.easiest) ? line("difficulty", cells(curriculum)) : null,
    line("precision", cells((stage) => h("span", { title: `weight decay ${stage.decay}, gradient clipped at ${stage.clip ?? "no"} norm` }, stage.precision, h("small", {}, [stage.clip ? `clip ${stageNumber(stage.clip)}` : "", stage.decay ? `decay ${stageNumber(stage.decay)}` : ""].filter(Boolean).map((words) => h("div", {}, words)))))),
    some((stage) => stage.starts.length) ? line("starts from", cells((stage) => stage.starts.length ? h("small", { title: stage.starts.map(([to, from]) => `${to} from ${from}`).join("\n") }, origins(stage)) : "–")) : null,
  ];
  const parts = rows.map((row) => h("tr", { "data-row": row.key }, rowHeader(row), ...row.cells.map((kind, place) => partCell(kinds[kind], row, stages[place]))));
  const table = h("table", { class: "tpo-st" },
    h("caption", { class: "tpo-sc-spoken" }, "Stages as columns: which part of the model is frozen or trained, and how."),
    h("colgroup", {}, h("col", { class: "tpo-st-first" }), stages.map(() => h("col"))),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "stage"), ...stages.map((stage, place) => h("th", { scope: "col" }, buttons[place], h("div", { class: "tpo-st-title" }, stage.title)))), progress),
    h("tbody", { class: "tpo-st-parts" }, parts),
    h("tbody", { class: "tpo-st-settings" }, settings));
  table.style.minWidth = `${128 + 100 * stages.length}px`;
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell && cell.cellIndex > 0) choose(stages[cell.cellIndex - 1].name);
  });

  function update({ stage, head, run }) {
    const chosen = stages.findIndex((each) => each.name === stage);
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(place === chosen)));
    for (const row of table.rows) [...row.cells].forEach((cell, place) => cell.classList.toggle("tpo-st-chosen", place > 0 && place - 1 === chosen));
    for (const [name, button] of headRows) button.setAttribute("aria-pressed", String(name === head));
    progress.hidden = !run;
    if (!run) return;
    const found = new Map(run.stages.map((each) => [each.name, each]));
    stages.forEach((each, place) => {
      const at = found.get(each.name);
      if (at) bars[place].update(at);
      sparks[place].update(at && at.step && at.total ? at.step / at.total : null);
    });
  }
  return { element: h("div", { class: "tpo-st-scroll" }, table), update, heads };
}

function partCell(cell, row, stage) {
  const learns = cell.state === "trained" || cell.state === "partly";
  const count = cell.total === undefined ? null : learns ? cell.trained : cell.total;
  const rates = (cell.rates ?? []).map(stageNumber).join(", ");
  const exact = cell.total === undefined ? "" : learns ? `, ${cell.trained.toLocaleString("en")} of ${cell.total.toLocaleString("en")} parameters` : `, ${cell.total.toLocaleString("en")} parameters`;
  const title = `${row.label} in stage ${stage.name}: ${STATE_WORDS[cell.state]}${rates ? ` at ${rates}` : ""}${exact}`;
  return h("td", { class: `tpo-st-${cell.state}`, "data-state": cell.state, "data-trained": cell.trained, "data-total": cell.total, title },
    h("div", { class: "tpo-st-state" }, stateIcon(cell.state), STATE_WORDS[cell.state], !learns && count ? h("small", {}, stageCount(count)) : null),
    learns ? h("div", { class: "tpo-st-rate" }, `lr ${rates}`, count === null ? null : h("small", {}, stageCount(count))) : null,
    cell.names && cell.names.length ? h("small", { class: "tpo-st-names" }, cell.names.join(", ")) : null);
}

function stateIcon(state) {
  if (state === "absent") return null;
  const flame = "M6 0.8C6.4 3 9.6 4.6 9.6 7.8A3.6 3.6 0 0 1 2.4 7.8C2.4 6.4 3.2 5.6 3.6 4.6C4.2 5.4 4.4 5.8 4.6 6.2C5.6 4.8 6.2 3 6 0.8Z";
  const flake = "M6 0.8V11.2M1.5 3.4L10.5 8.6M10.5 3.4L1.5 8.6M4.6 1.8L6 3.1L7.4 1.8M4.6 10.2L6 8.9L7.4 10.2M1.4 5.1L3.2 4.5L2.9 2.6M10.6 5.1L8.8 4.5L9.1 2.6M1.4 6.9L3.2 7.5L2.9 9.4M10.6 6.9L8.8 7.5L9.1 9.4";
  return s("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true", class: "tpo-st-icon" }, s("path", state === "frozen" ? { d: flake, fill: "none", stroke: "currentColor", "stroke-width": 0.9 } : { d: flame, fill: state === "partly" ? "none" : "currentColor", stroke: "currentColor" }));
}

function mixture(stage, heads) {
  const percent = (share) => `${Number((100 * share).toPrecision(2))}%`;
  const words = stage.data.map(([task, share]) => `${task} ${Number((100 * share).toPrecision(4))}%`).join(", ");
  return h("div", {},
    h("div", { class: "tpo-st-mix", role: "img", "aria-label": words, title: words }, stage.data.map(([task, share]) => h("i", { style: { width: `${100 * share}%`, background: stageColour(task, heads) } }))),
    h("div", { class: "tpo-st-terms" }, stage.data.map(([task, share]) => h("span", {}, h("i", { style: { background: stageColour(task, heads) } }), `${task} ${percent(share)}`))));
}

function curriculum(stage) {
  if (!stage.curriculum.length && !stage.easiest) return "–";
  const parts = stage.curriculum.map(([until, difficulty]) => h("div", {}, `≤ ${stageNumber(difficulty)} until ${Math.round(100 * until)}%`));
  return h("small", {}, parts, stage.easiest ? h("div", {}, `≥ ${stageNumber(stage.easiest)} throughout`) : null);
}

function origins(stage) {
  return [...new Set(stage.starts.map(([, from]) => from.replace(/^(heads|tokens\.task)\.([^.]+).*$/, "$2")))].join(", ");
}

function spark(stage) {
  const { factors, steps, warmup, end } = stage.schedule;
  const last = Math.max(steps[steps.length - 1], 1);
  const across = (step) => 2 + (step * (SPARK_WIDTH - 4)) / last;
  const up = (factor) => SPARK_HEIGHT - 3 - factor * (SPARK_HEIGHT - 7);
  const words = `learning rate over the stage: ${warmup ? `rises for ${Math.round(100 * warmup)}% of the steps, then` : ""} falls along a cosine to ${Math.round(100 * end)}% of its peak`;
  const dot = s("circle", { r: 3, class: "tpo-st-now", visibility: "hidden" });
  const drawn = s("svg", { class: "tpo-st-spark", width: SPARK_WIDTH, height: SPARK_HEIGHT, viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, role: "img", "aria-label": words },
    s("title", {}, words),
    s("line", { x1: 2, x2: SPARK_WIDTH - 2, y1: up(0), y2: up(0), class: "tpo-sc-axis" }),
    stage.curriculum.map(([until]) => s("line", { x1: 2 + until * (SPARK_WIDTH - 4), x2: 2 + until * (SPARK_WIDTH - 4), y1: 2, y2: up(0), class: "tpo-st-until" })),
    s("polyline", { points: factors.map((factor, place) => `${across(steps[place]).toFixed(1)},${up(factor).toFixed(1)}`).join(" "), class: "tpo-st-curve" }), dot);
  const peaks = `peak ${stage.rates.map(stageNumber).join(", ")}`;
  function update(share) {
    dot.setAttribute("visibility", share === null ? "hidden" : "visible");
    if (share === null) return;
    const step = Math.min(share, 1) * last, high = Math.max(1, steps.findIndex((each) => each >= step)), low = high - 1;
    const part = steps.length > 1 ? (step - steps[low]) / (steps[high] - steps[low]) : 0;
    dot.setAttribute("cx", across(step));
    dot.setAttribute("cy", up(steps.length > 1 ? factors[low] + (factors[high] - factors[low]) * part : factors[0]));
  }
  return { element: h("div", {}, drawn, h("small", { class: "tpo-st-peak", title: peaks }, peaks)), update };
}

function progressCell() {
  const fill = h("i"), words = h("small");
  const bar = h("div", { class: "tpo-st-bar", role: "progressbar", "aria-valuemin": 0 }, fill);
  function update({ name, step, total, state }) {
    const share = total ? Math.min(1, step / total) : state === "training" ? 1 : 0;
    fill.style.width = `${100 * share}%`;
    fill.className = `tpo-st-${state}`;
    bar.setAttribute("aria-label", `stage ${name}: ${PROGRESS_WORDS[state]}`);
    if (total) bar.setAttribute("aria-valuemax", total); else bar.removeAttribute("aria-valuemax");
    bar.setAttribute("aria-valuenow", step);
    const steps = step ? `${step.toLocaleString("en")}${total ? ` of ${total.toLocaleString("en")}` : " steps"}` : "";
    words.textContent = state === "done" ? `done, ${step.toLocaleString("en")} steps` : [PROGRESS_WORDS[state], steps].filter(Boolean).join(" ");
  }
  return { element: h("td", {}, bar, words), update };
}
