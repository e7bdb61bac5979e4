// The runs of a sweep: table, parallel coordinates, learning curves. What the user does is in the model's traits; this module holds them together.

import { h, onNextFrame } from "./dom.js";
import { mounted } from "./mount.js";
import { runsAxesView } from "./runs_axes.js";
import { runsCurvesView } from "./runs_curves.js";
import { RunsData, runsJson } from "./runs_data.js";
import { RUNS_OPENS, runsChecks, runsPopover } from "./runs_popover.js";
import { runsTableView } from "./runs_table.js";

const RUNS_TRAITS = ["selected", "filters", "search", "only", "order", "columns", "axes", "colour", "term", "base", "reading"];

function buildRuns({ model, root, resources, document: first }) {
  let given = first, parts = [], busy = false, inside = false, read = "", closed = false;

  const runs = {
    model, data: new RunsData(first.columns, first.rows), visible: [], pointed: -1, popover: runsPopover(root),
    get: (name) => model.get(name),
    row: (id) => runs.data.places.get(id),
    column: (name) => runs.data.columns.get(name),
    set(values, save = true) {
      inside = true;
      for (const [name, value] of Object.entries(values)) model.set(name, value);
      inside = false;
      if (save) model.save_changes();
    },
    filter(name, value, save = true) {
      const { [name]: _, ...others } = model.get("filters");
      runs.set({ filters: value === null ? others : { ...others, [name]: value } }, save);
    },
    columns: () => known(model.get("columns"), given.shown),
    axes: () => known(model.get("axes"), given.axes),
    colour: () => known([model.get("colour")].filter(Boolean), [given.colour])[0] ?? "",
    point(row) {
      if (row === runs.pointed) return;
      runs.pointed = row;
      for (const part of parts) part.point?.(row);
    },
    redraw: null,
  };
  const known = (wanted, otherwise) => {
    const found = wanted.filter((name) => runs.data.columns.has(name));
    return found.length ? found : otherwise.filter((name) => runs.data.columns.has(name));
  };

  const title = h("h3"), counts = h("p", { class: "tpo-soft", role: "status" });
  const search = h("input", { type: "text", placeholder: "Search words", "aria-label": "Search in all words", spellcheck: "false", oninput: () => runs.set({ search: search.value }) });
  const columns = h("button", { type: "button", ...RUNS_OPENS, onclick: chooseColumns }, "Columns ▾");
  const clear = h("button", { type: "button", onclick: () => runs.set({ filters: {}, search: "", only: null }) }, "Clear filters");
  const keep = h("button", { type: "button", onclick: () => runs.set({ only: runs.get("selected") }) }, "Only selected");
  const chip = h("button", { type: "button", class: "chip", onclick: () => runs.set({ only: null }) });
  const table = runsTableView(runs);
  parts = [{ draw: drawHead }, table, runsAxesView(runs), runsCurvesView(runs, resources)];
  root.append(h("div", { class: "tpo-row tpo-runs-head" }, title, counts), h("div", { class: "tpo-row" }, search, columns, clear, keep, chip), ...parts.slice(1).map((part) => part.element));
  root.classList.add("tpo-runs");

  function chooseColumns() {
    const shown = runs.columns();
    const options = [...runs.data.columns.keys()].map((name) => ({ value: name, words: name, checked: shown.includes(name) }));
    runs.popover.open(columns, "Columns", runsChecks(options, (chosen) => runs.set({ columns: chosen })));
  }

  function drawHead() {
    const states = Object.entries(given.states).map(([state, count]) => `${count} ${state}`).join(", ");
    const isFiltered = Object.keys(runs.get("filters")).length > 0 || runs.get("search") !== "" || runs.get("only") !== null;
    const chosen = runs.get("selected").length, some = runs.get("only");
    title.textContent = given.title;
    counts.textContent = [`${given.total} ${given.total === 1 ? "run" : "runs"}${states ? `: ${states}` : ""}`, isFiltered ? `${runs.visible.length} pass the filters` : "",
      chosen ? `${chosen} selected` : "", busy ? `reading all ${given.total} …` : ""].filter(Boolean).join(" · ");
    if (globalThis.document.activeElement !== search) search.value = runs.get("search");
    clear.disabled = !isFiltered;
    keep.disabled = !chosen;
    chip.hidden = some === null;
    chip.textContent = `${some?.length} chosen ✕`;
    chip.setAttribute("aria-label", `${some?.length} runs were chosen; show all again`);
  }

  function draw() {
    if (closed) return;
    runs.visible = runs.data.ordered(runs.data.passing(runs.get("filters"), runs.get("search"), runs.get("only")), runs.get("order"));
    for (const part of parts) part.draw();
  }

  async function take(next) {
    given = next;
    if (!given.more) {
      busy = false;
      runs.data = new RunsData(given.columns, given.rows);
    } else if (given.more !== read) {
      const name = given.more;
      busy = true;
      if (!read) runs.data = new RunsData(given.columns, given.rows);
      try {
        const rows = runsJson(await resources.get(name));
        if (closed || given.more !== name) return;
        runs.data = new RunsData(given.columns, rows);
        read = name;
        busy = false;
      } catch (error) {
        counts.title = error.message;
      }
    }
    runs.pointed = -1;
    draw();
  }

  runs.redraw = onNextFrame(draw);
  const shownElsewhere = () => {
    const [chosen] = runs.get("selected");
    if (inside || !chosen) return;
    draw();
    table.reveal(chosen);
  };
  const readAgain = () => resources.forget();
  model.on("change:reading", readAgain);
  model.on("change:selected", shownElsewhere);
  for (const name of RUNS_TRAITS) model.on(`change:${name}`, runs.redraw);
  draw();
  if (first.more) take(first);
  return {
    update: take,
    close() {
      closed = true;
      runs.redraw.cancel();
      runs.popover.close();
      for (const part of parts) part.close?.();
      model.off("change:reading", readAgain);
      model.off("change:selected", shownElsewhere);
      for (const name of RUNS_TRAITS) model.off(`change:${name}`, runs.redraw);
    },
  };
}

export default mounted(buildRuns, "Runs");
