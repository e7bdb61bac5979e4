// StageView: a recipe as a table, and the run that follows it.

import { h } from "./dom.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";
import { stageRun } from "./stage_run.js";
import { stageTable } from "./stage_table.js";

function buildStages({ model, root, playhead, resources, document }) {
  const title = h("h3"), about = h("p", { class: "tpo-soft" }), notes = h("div", { class: "tpo-soft" }), place = h("div");
  let table = null, told = "", given = document;
  const heads = [];
  const run = stageRun({ resources, heads, choose });
  root.append(title, about, notes, place, run.element);

  /** Looks at a stage, or at all where it is the one already (unless `stay`). */
  function choose(name, stay = false) {
    model.set("stage", model.get("stage") === name && !stay ? "" : name);
    model.save_changes();
  }

  function point(head) {
    playhead.set({ head: playhead.get("head") === head ? "" : head });
  }

  function look() {
    const what = { stage: model.get("stage"), head: playhead.get("head") };
    if (table) table.update({ ...what, run: given.run });
    run.look(what);
  }

  function describe({ recipe, notes: sentences, stages, rows }) {
    title.textContent = recipe.name ? `Recipe ${recipe.name}` : "A run without a recipe";
    about.textContent = recipe.name ? [recipe.description.replace(/\.$/, ""), `${recipe.frames} frames of ${recipe.resolution} px`, `LoRA ${recipe.lora}`, recipe.source && `source: ${recipe.source}`].filter(Boolean).join(" · ") : "";
    notes.replaceChildren(...sentences.map((sentence) => h("p", { class: "tpo-sv-note" }, sentence)));
    table = stages.length ? stageTable(given, { choose, point }) : null;
    place.replaceChildren(...(table ? [table.element] : []));
    const owners = given.run ? given.run.curves.map((curve) => curve.owner).filter((owner) => owner && !["loss", "mlm", "assign"].includes(owner)) : [];
    heads.splice(0, heads.length, ...new Set([...rows.filter((row) => row.key.startsWith("heads.")).map((row) => row.key.slice(6)), ...owners]));
  }

  function update(what) {
    given = what;
    const { run: _, ...recipe } = what;
    const now = JSON.stringify(recipe);
    if (now !== told || (!what.stages.length && what.run)) { told = now; describe(what); }
    run.update(what);
    look();
  }

  update(document);
  const unlisten = playhead.on(look);
  model.on("change:stage", look);
  return {
    update,
    close() {
      unlisten();
      model.off("change:stage", look);
      run.close();
    },
  };
}

export default mounted(buildStages, "Stages of training", playheadOf);
