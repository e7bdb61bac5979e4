// Which loss moves which module, who pulls against whom and where, whose step it is, and how all that goes on as a run trains.

import { h, onNextFrame, shown } from "./dom.js";
import { GRADIENT_TRACE, gradientConflicts, gradientData } from "./gradient_data.js";
import { gradientGrid } from "./gradient_grid.js";
import { gradientShares } from "./gradient_shares.js";
import { gradientCurves } from "./gradient_curves.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";

const FEW = 8, MOST_DECADES = 6, FOLD_FROM = 30;
const signed = (value) => (Math.abs(value) < 0.005 ? "0.00" : `${value > 0 ? "+" : ""}${value.toFixed(2)}`);

function buildGradients({ model, root, playhead, resources, document }) {
  const data = gradientData(document, resources);
  const { owners, modules, groups, pairs, pairNames, run } = data;
  const large = modules.length > FOLD_FROM;
  const open = new Set(Object.entries(groups).filter(([, members]) => !large || members.length <= FEW).map(([name]) => modules.indexOf(name)));
  let record = null, order = "model", all = false, pointed = null, closed = false, failed = "";

  const set = (values) => {
    const changed = Object.entries(values).filter(([name, value]) => model.get(name) !== value);
    for (const [name, value] of changed) model.set(name, value);
    if (changed.length) model.save_changes();
  };
  const chosenModule = () => modules.indexOf(model.get("module"));
  const chosenPair = () => pairNames.indexOf(model.get("pair"));
  const part = (title, note, ...children) =>
    h("section", { class: "tpo-g-part", "aria-label": title }, h("h3", {}, title), note ? h("p", { class: "tpo-soft" }, note) : null, children);

  // What is measured, and when.
  const title = h("h3", {}), cost = h("p", { class: "tpo-soft", "data-part": "cost" }), status = h("p", { class: "tpo-soft", role: "status" });
  const trace = data.measurements[0].line === GRADIENT_TRACE && run.length
    ? h("button", { onclick: () => set({ measurement: GRADIENT_TRACE }) }, "Trace") : null;
  const slider = h("input", { type: "range", min: 0, max: run.length - 1, step: 1, "aria-label": "Measurement of the run", oninput: () => show(Number(slider.value)) });
  const when = h("output", { class: "tpo-g-when" });
  const show = (number) => set({ measurement: run[Math.min(Math.max(number, 0), run.length - 1)].line });
  const bar = run.length ? h("div", { class: "tpo-row tpo-g-steps" }, trace, slider, when) : null;

  // Norms and conflicts.
  const per = h("button", { onclick: () => set({ per_parameter: !model.get("per_parameter") }) }, "Per parameter");
  const scale = h("div", { class: "tpo-row tpo-g-legend" });
  const norms = gradientGrid({ label: "Norm of each loss's gradient by module", act: onNorm });
  const sort = h("select", { "aria-label": "Order of the modules", onchange: () => { order = sort.value; draw(); } },
    h("option", { value: "model" }, "in the model's order"), h("option", { value: "strongest" }, "strongest conflict first"),
    h("option", { value: "pair", hidden: true }, "by the marked pair"));
  const cosines = gradientGrid({ label: "Cosine of every two losses' gradients by module", act: onCosine });
  const conflicts = h("ol", { class: "tpo-g-list" }), more = h("button", { onclick: () => { all = !all; draw(); } });
  const behind = h("p", { class: "tpo-soft" }), samples = h("ul", { class: "tpo-g-list" });
  const shares = gradientShares({ data, pick: (module) => set({ module: modules[module] }) });

  // Along the run.
  const which = h("select", { "aria-label": "Module of the curves", onchange: () => set({ module: which.value }) }, modules.map((name) => h("option", { value: name }, name)));
  const two = h("select", { "aria-label": "Losses of the curves", onchange: () => set({ pair: two.value }) },
    pairNames.map((name) => h("option", { value: name }, name.replace("|", " and "))));
  const touch = { point(number) { pointed = number; askCurves(); }, pick: show };
  const curves = [gradientCurves(touch), ...(pairs.length ? [gradientCurves(touch)] : [])];
  const labels = run.map(({ stage, step }) => ({ short: String(step), long: `stage ${stage}, step ${step}` }));

  root.append(
    title, cost, ...(bar ? [bar] : []), status,
    part("Norms", null, h("div", { class: "tpo-row" }, per, scale), norms.element),
    pairs.length
      ? part("Conflicts", "The cosine of two losses' gradients in each module. Select a cell for the samples behind it.",
        h("div", { class: "tpo-row" }, h("label", {}, "Modules ", sort), conflictLegend()), cosines.element,
        h("div", { class: "tpo-g-beside" },
          h("div", { "aria-label": "Strongest conflicts", role: "group" }, h("h4", {}, "Where losses pull against each other"), conflicts, more),
          h("div", { "aria-label": "Samples behind the pair", role: "group" }, h("h4", {}, "Samples behind it"), behind, samples)))
      : part("Conflicts", "There is one loss only, so none that it could pull against."),
    part("Shares in the language model", null, shares.element));
  if (run.length) {
    root.append(part("Over the steps of the run", null,
      h("div", { class: "tpo-row" }, h("label", {}, "Module ", which), pairs.length ? h("label", {}, "Losses ", two) : null),
      h("div", { class: "tpo-g-two" }, curves.map(({ element }) => element))));
  }

  function rowsOf(flat) {
    const learning = record.measurement.segment.modules, chosen = chosenModule();
    const row = (module, more = {}) => ({
      key: module, name: modules[module], open: null, inside: false, marked: module === chosen,
      title: `${record.parameters(module).toLocaleString("en")} parameters`, ...more });
    if (flat) return flat.map((module) => row(module));
    return learning.flatMap((module) => {
      if (data.isGroup(module)) return [row(module, { open: open.has(module), name: `${modules[module]} (all ${groups[modules[module]].filter(record.has).length})` })];
      const group = data.groupOf.get(module);
      return group !== undefined && !open.has(group) ? [] : [row(module, { inside: group !== undefined })];
    });
  }

  function sorted() {
    if (order === "model") return null;
    const worth = (module) => {
      const found = (order === "strongest" ? pairs.map((_, pair) => record.cosine(module, pair)) : [record.cosine(module, Number(order))]).filter(Number.isFinite);
      return found.length ? Math.min(...found) : 2;
    };
    return record.measurement.segment.modules.filter((module) => !data.isGroup(module))
      .map((module, place) => [worth(module), place, module]).sort((one, other) => one[0] - other[0] || one[1] - other[1]).map(([, , module]) => module);
  }

  function drawNorms() {
    const each = model.get("per_parameter");
    const value = (module, owner) => {
      const norm = record.norm(module, owner);
      return norm === null || !each ? norm : norm / Math.sqrt(Math.max(record.parameters(module), 1));
    };
    const values = record.measurement.segment.modules.flatMap((module) => owners.map((_, owner) => value(module, owner)));
    const found = values.filter((norm) => norm > 0), broken = values.some(Number.isNaN);
    const high = found.reduce((most, norm) => Math.max(most, norm), 0) || 1, low = found.reduce((least, norm) => Math.min(least, norm), high);
    const decades = Math.min(Math.max(Math.log10(high / low), 1), MOST_DECADES);
    norms.draw({
      columns: owners.map((owner, place) => ({ key: place, lines: [owner], swatch: `tpo-g-o${place % 6}`, marked: playhead.get("head") === owner,
        title: record.hasOwner(place) ? "Select this head in all views" : "It has no loss here" })),
      rows: rowsOf(null),
      selected: (module, owner) => module === chosenModule() && playhead.get("head") === owners[owner],
      cell(module, owner) {
        const norm = value(module, owner);
        if (norm === null) return { text: "", kind: "absent", words: "no loss in this measurement" };
        if (!Number.isFinite(norm)) return { text: "not finite", kind: "bad", words: "not finite" };
        if (norm === 0) return { text: "", kind: "zero", words: "0, it does not reach this module" };
        const shade = 6 + 54 * Math.max(0, 1 + Math.log10(norm / high) / decades);
        return { text: shown(norm, 2), kind: "norm", shade, words: `${shown(norm, 4)}${each ? " per square root of parameters" : ""}` };
      },
    });
    per.setAttribute("aria-pressed", String(each));
    per.title = "Divide norms by the square root of each module's number of parameters";
    scale.replaceChildren(
      h("span", {}, shown(high / 10 ** decades, 2), h("i", { class: "tpo-g-ramp" }), `${shown(high, 2)}${each ? " per √parameters" : ""}, log scale`),
      h("span", {}, h("i", { class: "tpo-g-key tpo-g-zero" }), "does not reach"),
      ...(broken ? [h("span", {}, h("i", { class: "tpo-g-key tpo-g-bad" }), "not finite")] : []));
  }

  function drawCosines() {
    const flat = sorted(), chosen = chosenPair();
    sort.value = order === "model" || order === "strongest" ? order : "pair";
    cosines.draw({
      columns: pairs.map(([one, other], place) => ({ key: place, lines: [owners[one], owners[other]], marked: place === chosen,
        sort: order === String(place) ? "ascending" : "none", title: "Sort the modules by this pair" })),
      rows: rowsOf(flat),
      selected: (module, pair) => module === chosenModule() && pair === chosen,
      cell(module, pair) {
        const cosine = record.cosine(module, pair);
        if (!Number.isFinite(cosine)) return { text: "", kind: "none", words: "none, one of them does not reach it or is not finite" };
        return { text: signed(cosine), kind: cosine < 0 ? "against" : "agree", shade: 62 * Math.abs(cosine), words: `cosine ${cosine.toFixed(4)}` };
      },
    });
    const found = gradientConflicts(data, record);
    conflicts.replaceChildren(...(all ? found.slice(0, 200) : found.slice(0, FEW)).map(({ module, pair, cosine }) => {
      const [one, other] = pairs[pair];
      const here = module === chosenModule() && pair === chosen;
      return h("li", {}, h("button", { "aria-pressed": String(here), onclick: () => select(module, pair) },
        `${owners[one]} and ${owners[other]} pull against each other in ${modules[module]}: cosine ${cosine.toFixed(2)}`));
    }));
    if (!found.length) conflicts.append(h("li", { class: "tpo-soft" }, "No two losses pull against each other in this measurement."));
    conflicts.classList.toggle("tpo-g-long", all);
    more.hidden = found.length <= FEW;
    more.textContent = all ? "Show the strongest only" : `Show all ${found.length}`;
  }

  function drawSamples() {
    const pair = chosenPair(), segment = record.measurement.segment, ofTrace = record.measurement.line === GRADIENT_TRACE;
    const ranked = pair >= 0 && ofTrace ? (document.ranked[pairNames[pair]] ?? []).map((place) => segment.samples[place]) : segment.samples;
    const [one, other] = pair >= 0 ? pairs[pair].map((place) => owners[place]) : [];
    behind.textContent = pair < 0 ? "Select a cell of the conflict map."
      : ofTrace ? `First those that teach both ${one} and ${other}, then by what the two add to their loss.`
        : `The samples of this measurement, for ${one} and ${other}. A run keeps their ids only.`;
    const current = playhead.get("sample");
    samples.replaceChildren(...(pair < 0 ? [] : ranked).map((id) => {
      const known = document.samples[id];
      const added = known ? [one, other].filter((owner) => owner in known.losses).map((owner) => `${owner} ${shown(known.losses[owner])}`).join(", ") : "";
      return h("li", {}, h("button", { "aria-pressed": String(id === current), "data-sample": id, onclick: () => playhead.set({ sample: id }) },
        h("b", {}, id), known?.question ? ` ${known.question}` : "", added ? h("small", {}, added) : null));
    }));
  }

  function drawCurves() {
    if (!run.length || !record) return;
    const fallback = ["llm.lora", "llm.base"].map((name) => modules.indexOf(name)).find((place) => place >= 0) ?? 0;
    const module = chosenModule() >= 0 ? chosenModule() : fallback;
    const strongest = gradientConflicts(data, record)[0]?.pair ?? 0, pair = chosenPair() >= 0 ? chosenPair() : strongest;
    which.value = modules[module];
    two.value = pairNames[pair] ?? "";
    const records = run.map((each) => data.record(each));
    const common = { places: data.along.places, bands: data.along.bands, labels, pointed, at: run.indexOf(record.measurement) < 0 ? null : run.indexOf(record.measurement) };
    curves[0].draw({ ...common, title: `Norms in ${modules[module]}`, log: true, lines: owners.map((name, owner) => ({
      name, style: `tpo-g-o${owner % 6}`, values: records.map((each) => (each && each.has(module) ? each.norm(module, owner) : null)) })) });
    if (!pairs.length) return;
    const values = (place) => records.map((each) => { const value = each ? each.cosine(module, place) : NaN; return Number.isFinite(value) ? value : null; });
    const others = pairs.map((_, place) => place).filter((place) => place !== pair);
    const line = (place) => ({ name: pairNames[place].replace("|", " and "), values: values(place), style: "tpo-g-pair", bold: place === pair, faint: place !== pair });
    curves[1].draw({ ...common, title: `Cosines in ${modules[module]} (the other pairs are faint)`, range: [-1, 1, -1, -0.5, 0, 0.5, 1], lines: [...others, pair].map(line) });
  }

  function draw() {
    if (closed || !record) return;
    const { measurement } = record;
    title.textContent = `${measurement.segment.title}${measurement.step === null ? "" : `, before step ${measurement.step}`}`;
    cost.textContent = measurement.segment.cost + (measurement.seconds === null ? "" : ` · ${shown(measurement.seconds, 2)} s`);
    const place = run.indexOf(measurement);
    if (bar) {
      slider.value = Math.max(place, 0);
      when.textContent = place < 0 ? "the trace" : `${labels[place].long} (${place + 1} of ${run.length}${document.measured > run.length ? `, evenly out of ${document.measured}` : ""})`;
      slider.setAttribute("aria-valuetext", when.textContent);
      if (trace) trace.setAttribute("aria-pressed", String(place < 0));
    }
    status.textContent = failed;
    status.hidden = !failed;
    drawNorms();
    if (pairs.length) { drawCosines(); drawSamples(); }
    shares.draw(record, chosenModule());
    drawCurves();
  }

  const ask = onNextFrame(draw), askCurves = onNextFrame(drawCurves);

  function go() {
    const wanted = data.at(model.get("measurement"));
    const arrive = () => { record = data.record(wanted); failed = ""; ask(); };
    if (data.record(wanted)) return arrive();
    data.load(wanted).then(() => { if (wanted === data.at(model.get("measurement"))) arrive(); },
      (error) => { failed = error.message; status.hidden = false; status.textContent = failed; });
  }

  function select(module, pair) {
    set({ module: modules[module], pair: pairNames[pair] });
  }

  function fold(module) {
    if (!open.delete(module)) open.add(module);
    draw();
  }

  function onNorm({ row, column }) {
    const head = column === null ? null : owners[column];
    if (row === null) {
      if (!["mlm", "assign"].includes(head)) playhead.set({ head: playhead.get("head") === head ? "" : head });
    } else if (column === null && data.isGroup(row)) fold(row);
    else set({ module: modules[row] });
  }

  function onCosine({ row, column }) {
    if (row === null) { order = order === String(column) ? "model" : String(column); draw(); }
    else if (column !== null) select(row, column);
    else if (data.isGroup(row)) fold(row);
    else set({ module: modules[row] });
  }

  function unfold() {
    const group = data.groupOf.get(chosenModule());
    if (group !== undefined) open.add(group);
  }

  function onModule() {
    unfold();
    draw();
    norms.reveal(chosenModule());
    cosines.reveal(chosenModule());
  }

  const heard = { "change:measurement": go, "change:pair": ask, "change:per_parameter": ask, "change:module": onModule };
  for (const [event, listener] of Object.entries(heard)) model.on(event, listener);
  const off = playhead.on(ask);
  unfold();
  go();
  if (run.length) data.loadAll(askCurves).catch((error) => { failed = error.message; ask(); });
  return () => {
    closed = true;
    ask.cancel();
    askCurves.cancel();
    off();
    for (const [event, listener] of Object.entries(heard)) model.off(event, listener);
  };
}

function conflictLegend() {
  return h("div", { class: "tpo-row tpo-g-legend" },
    h("span", {}, "-1 against", h("i", { class: "tpo-g-both" }), "together +1"),
    h("span", {}, h("i", { class: "tpo-g-key tpo-g-none" }), "one does not reach it"));
}

export default mounted(buildGradients, "Gradients", playheadOf);
