// The run below the table: how it stands, what is wrong, and its curves.

import { h, onNextFrame, shown } from "./dom.js";
import { stageChart, stageNumber, stageSwatch } from "./stage_chart.js";
import { stageColour } from "./stage_table.js";

const DASHES = ["", "6 3", "2 3", "8 3 2 3", "4 2", "1 2"];
const GROUPS = ["gradient", "lr", "pace", "memory"];
const UNITS = { loss: "before its weight", gradient: "before clipping", lr: "of the first group", pace: "rows/s", memory: "MiB" };
const FINE_PAUSE_MS = 3000;

/** Gives `element`, `update(document)`, `look({ stage, head })`, `close()`. `choose(stage)` asks to look at a stage. */
export function stageRun({ resources, heads, choose }) {
  let run = null, curves = [], fine = null, asked = "", askedAt = 0, chosen = "", head = "", first = true, drawn = "";
  const hidden = new Set();
  const words = h("p", { class: "tpo-sr-words" }), notes = h("div", { class: "tpo-soft" }), list = h("ol", { class: "tpo-sr-alarms", "aria-label": "alarms" });
  const toggles = h("div", { class: "tpo-row", role: "group", "aria-label": "curves that are shown" }), legend = h("div", { class: "tpo-sr-legend" });
  const log = h("button", { "aria-pressed": "true", onclick: () => { log.setAttribute("aria-pressed", String(!isLog())); redraw(); } }, "log scale");
  const isLog = () => log.getAttribute("aria-pressed") === "true";
  const charts = {
    loss: stageChart({ title: "Losses", unit: UNITS.loss, height: 270, medians: true, point }),
    gradient: stageChart({ title: "Gradient norms", unit: UNITS.gradient, height: 170, point }),
    lr: stageChart({ title: "Learning rate", unit: UNITS.lr, height: 170, from0: true, point }),
    pace: stageChart({ title: "Throughput", unit: UNITS.pace, height: 170, from0: true, medians: true, point }),
    memory: stageChart({ title: "Memory", unit: UNITS.memory, height: 170, from0: true, point }),
  };
  const scope = h("span", { class: "tpo-soft" });
  const small = h("div", { class: "tpo-sr-grid" }, GROUPS.map((group) => charts[group].element));
  const figures = h("div", {}, h("div", { class: "tpo-row tpo-sr-tools" }, toggles, log, scope), charts.loss.element, legend, small);
  const element = h("section", { class: "tpo-sr", "aria-label": "the run" }, words, notes, list, figures);

  function point(step) {
    for (const chart of Object.values(charts)) chart.show(step);
  }

  /** Where each stage lies on the axis of the whole run. */
  function bands() {
    let from = 0;
    const found = [];
    run.stages.forEach((stage, place) => {
      if (!stage.step) return;
      const length = stage.state === "training" ? Math.max(stage.total ?? 0, stage.step) : stage.step;
      found.push({ name: stage.name, place, from, to: from + length });
      from += length;
    });
    return found;
  }

  function parts(found, places) {
    return found.filter((part) => places.has(part.place)).map((part) => ({ ...part, ...places.get(part.place) })).sort((one, other) => one.from - other.from);
  }

  function redraw() { paint(); }

  const paint = onNextFrame(() => {
    if (!run) return;
    const all = bands();
    const one = all.find((band) => band.name === chosen);
    const domain = one ? [one.from, one.to] : [0, all.length ? all[all.length - 1].to : 1];
    const places = new Map(all.map(({ place, from, to }) => [place, { from, to }]));
    const say = (step) => {
      const band = all.find((each) => step > each.from && step <= each.to) ?? all[0];
      return band ? `stage ${band.name}, step ${(step - band.from).toLocaleString("en")}` : "";
    };
    const marks = run.alarms.filter((alarm) => all.some((band) => band.name === alarm.stage)).map((alarm) => {
      const band = all.find((each) => each.name === alarm.stage);
      return { x: band.from + alarm.step, subject: alarm.kind === "no gradient" ? `gradient/${alarm.subject}` : alarm.subject, label: `${alarm.kind}, stage ${alarm.stage}, step ${alarm.step}: ${alarm.subject}` };
    });
    const seen = {};
    const shownCurves = curves.map((curve) => {
      const number = (seen[`${curve.group} ${curve.owner}`] = (seen[`${curve.group} ${curve.owner}`] ?? -1) + 1);
      const source = fine && fine.stage === chosen && fine.parts.has(curve.key) ? fine.parts.get(curve.key) : curve.parts;
      return { ...curve, label: curve.group === "gradient" ? curve.owner : curve.key, colour: stageColour(curve.owner || "loss", heads), dash: DASHES[number % DASHES.length], faint: heads.includes(head) && heads.includes(curve.owner) && curve.owner !== head, parts: parts(source, places) };
    });
    const stepOf = one ? `step of stage ${one.name}` : "step of the run";
    scope.textContent = one ? `stage ${one.name} only` : "the whole run";
    for (const [group, chart] of Object.entries(charts)) {
      const mine = shownCurves.filter((curve) => curve.group === group && !hidden.has(curve.owner) && curve.parts.some((part) => part.from < domain[1] && part.to > domain[0]));
      const inside = mine.map((curve) => ({ ...curve, parts: curve.parts.filter((part) => part.from < domain[1] && part.to > domain[0]) }));
      if (group !== "loss") chart.element.hidden = !curves.some((curve) => curve.group === group);
      chart.draw({ curves: inside, bands: all, domain, log: isLog() && (group === "loss" || group === "gradient"), marks: group === "loss" || group === "gradient" ? marks : [], axis: stepOf, origin: one ? one.from : 0, say });
      if (group === "loss") key(inside);
    }
    element.dataset.points = shownCurves.reduce((sum, curve) => sum + curve.parts.reduce((count, part) => count + part.steps.length, 0), 0);
    element.dataset.fine = fine && fine.stage === chosen ? fine.name : "";
  });

  function key(found) {
    const now = found.map((curve) => `${curve.key}${curve.faint}`).join();
    if (now === drawn) return;
    drawn = now;
    legend.replaceChildren(...found.map((curve) => h("span", { class: curve.faint ? "tpo-sr-faint" : null }, stageSwatch(curve), curve.label)), h("span", { class: "tpo-soft" }, "thick: running median of 50; thin: every step's value"));
  }

  function buttons() {
    const owners = [...new Set(curves.filter((curve) => curve.group === "loss").map((curve) => curve.owner))];
    for (const owner of owners) {
      if ([...toggles.children].some((each) => each.dataset.owner === owner)) continue;
      const button = h("button", { "aria-pressed": "true", "data-owner": owner, "aria-label": `curves of ${owner}` }, h("i", { style: { background: stageColour(owner, heads) } }), owner);
      button.addEventListener("click", () => {
        if (hidden.has(owner)) hidden.delete(owner); else hidden.add(owner);
        button.setAttribute("aria-pressed", String(!hidden.has(owner)));
        redraw();
      });
      toggles.append(button);
    }
  }

  function tell() {
    const now = run.now;
    const left = (seconds) => seconds === null ? null : duration(seconds);
    const quiet = run.live && run.heard && now ? Date.now() / 1000 - run.heard : 0;
    const state = now && run.stages.find((each) => each.name === now.stage).state;
    const begin = !now ? (run.live ? "Waiting for the first step." : "No step yet.") : state === "training" ? `Training stage ${now.stage}` : state === "stopped" ? `Not finished: stage ${now.stage}` : run.finished ? `Finished with stage ${now.stage}` : `Done with stage ${now.stage}`;
    const going = state === "training";
    const pieces = !now ? [begin] : [
      `${begin}, step ${now.step.toLocaleString("en")}${now.total ? ` of ${now.total.toLocaleString("en")}` : ""}`, now.loss !== null ? `loss ${shown(now.loss, 4)}` : null,
      now.lr !== null ? `lr ${stageNumber(now.lr)}` : null, now.rows_per_sec !== null ? `${shown(now.rows_per_sec)} rows/s` : null,
      now.memory_mib !== null ? `${now.memory_mib.toLocaleString("en")} MiB` : null, now.cuda_mib !== null ? `${now.cuda_mib.toLocaleString("en")} MiB on the device` : null,
      going && now.stage_left_sec !== null ? `about ${left(now.stage_left_sec)} left in this stage${now.run_left_sec > now.stage_left_sec ? `, ${left(now.run_left_sec)} in all` : ""}` : null,
      going && quiet > Math.max(60, 20 * (now.sec_per_step ?? 0)) ? `no step for ${duration(quiet)}` : null];
    words.replaceChildren(h("strong", {}, run.name ? `${run.name} · ` : ""), pieces.filter(Boolean).join(" · "));
    notes.replaceChildren(...run.notes.map((note) => h("p", {}, note)));
  }

  /** One item for all alarms of a kind about the same thing in a stage; one that is new, or has happened again, is said aloud. */
  function ring() {
    const groups = new Map();
    for (const alarm of run.alarms) {
      const id = [alarm.kind, alarm.stage, alarm.subject].join("|");
      groups.set(id, [...(groups.get(id) ?? []), alarm]);
    }
    for (const item of [...list.children]) if (!groups.has(item.dataset.id)) item.remove();
    for (const [id, found] of groups) {
      const before = [...list.children].find((item) => item.dataset.id === id);
      const steps = found.map((alarm) => alarm.step).join();
      if (before && before.dataset.steps === steps) continue;
      const last = found[found.length - 1];
      const item = h("li", { "data-id": id, "data-steps": steps, role: first ? null : "alert" },
        h("div", { class: "tpo-row" }, h("strong", {}, `${last.kind}: ${last.subject}`), h("span", { class: "tpo-soft" }, `stage ${last.stage}, step`),
          found.map((alarm) => h("button", { "aria-label": `show stage ${alarm.stage}, step ${alarm.step} on the curves`, onclick: () => show(alarm) }, alarm.step.toLocaleString("en")))),
        h("div", {}, last.meaning), h("div", { class: "tpo-soft" }, last.advice));
      if (before) before.replaceWith(item); else list.append(item);
    }
    const more = run.alarms_in_all - run.alarms.length;
    list.dataset.more = more > 0 ? `and ${more} before these` : "";
  }

  function show(alarm) {
    choose(alarm.stage, true);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const band = bands().find((each) => each.name === alarm.stage);
      if (band) for (const chart of Object.values(charts)) chart.show(band.from + alarm.step, chart === charts.loss);
    }));
  }

  /** Asks for curves of more points: at once where the run stands still, now and then where it goes on and one stage is looked at. */
  function refine() {
    if (!run || !run.fine || (run.live && !chosen)) return;
    const place = run.stages.find((each) => each.name === chosen);
    if (chosen && !(place && place.step)) return;
    const name = run.fine + chosen;
    if (name === asked || (run.live && asked.endsWith(`/${chosen}`) && Date.now() - askedAt < FINE_PAUSE_MS)) return;
    asked = name;
    askedAt = Date.now();
    const stage = chosen;
    resources.get(name).then(({ about, bytes }) => {
      if (stage !== chosen) return;
      fine = { name, stage, parts: unpacked(about.parts, bytes) };
      redraw();
    }, () => {});
  }

  function update(document) {
    run = document.run;
    element.hidden = !run;
    if (!run) return;
    curves = run.curves.map(coarse);
    if (!run.live && fine && !fine.name.startsWith(run.fine)) fine = null;
    if (run.live && !chosen) fine = null;
    figures.hidden = !curves.length;
    tell();
    ring();
    buttons();
    refine();
    redraw();
    first = false;
  }

  const clock = setInterval(() => { if (run && run.live) tell(); }, 5000);
  const watch = new ResizeObserver(() => redraw());
  watch.observe(element);
  return {
    element, update,
    look(what) {
      if (what.stage !== chosen) fine = null;
      ({ stage: chosen, head } = what);
      refine();
      redraw();
    },
    close() { clearInterval(clock); watch.disconnect(); paint.cancel(); },
  };
}

/** A curve of the document: steps as differences, medians of every second point counted from the last. */
function coarse({ key, group, owner, parts }) {
  return { key, group, owner, parts: parts.map(([place, differences, values, medians]) => {
    let step = 0;
    const steps = differences.map((difference) => (step += difference));
    const all = medians ? values.map((_, at) => ((values.length - 1 - at) % 2 ? null : medians[medians.length - 1 - (values.length - 1 - at) / 2])) : null;
    return { place, steps, values, medians: all };
  }) };
}

function unpacked(parts, bytes) {
  const numbers = new Float32Array(bytes.buffer, 0, bytes.byteLength >> 2);
  const found = new Map();
  let from = 0;
  const take = (count) => Array.from(numbers.subarray(from, (from += count)));
  for (const [key, place, count, hasMedians] of parts) {
    const part = { place, steps: take(count), values: take(count), medians: hasMedians ? take(count) : null };
    found.set(key, [...(found.get(key) ?? []), part]);
  }
  return found;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Number((seconds / 3600).toPrecision(2))} h`;
}
