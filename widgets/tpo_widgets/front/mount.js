// The frame around every view: its theme, the sentence in place of a view that cannot be drawn, what is shown where no kernel answers.

import { h } from "./dom.js";
import { resourcesOf } from "./resources.js";

/**
 * What a view's module exports by default; `playheadOf` for views that follow a moment, as `playhead.js` has it.
 *
 * `build({ model, root, playhead, resources, document })` fills `root` and may return how to tear it down, or
 * { update(document), close() } where it can take a new document without being built again.
 */
export function mounted(build, label, playheadOf = null) {
  async function render({ model, el }) {
    const root = h("div", { class: "tpo-view", role: "region", "aria-label": label });
    // JupyterLab takes keys such as the arrows for itself, unless the element that has the focus says not to.
    root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
    el.replaceChildren(root);
    const playhead = await playheadOf?.(model);
    const resources = resourcesOf(model);
    let view = null;

    function close() {
      const found = view;
      view = null;
      if (typeof found === "function") found();
      else if (found && found.close) found.close();
    }

    function draw() {
      const problem = model.get("problem");
      const given = model.get("document");
      if (view && view.update && !problem) return view.update(given);
      close();
      resources.forget();
      root.replaceChildren();
      if (problem) return void root.append(h("p", { class: "tpo-problem", role: "alert" }, problem));
      try {
        view = build({ model, root, playhead, resources, document: given }) ?? null;
      } catch (error) {
        root.replaceChildren(h("p", { class: "tpo-problem", role: "alert" }, `This view could not be drawn: ${error.message}`));
      }
    }

    function dress() {
      root.dataset.theme = model.get("theme");
    }

    resources.onSilence(() => {
      const poster = model.get("poster");
      root.prepend(
        h("div", { class: "tpo-note", role: "status" },
          h("p", {}, "No kernel answers, so this view stands still. Run its cell again to use it."),
          poster ? h("img", { src: poster, alt: `${label}, as it was` }) : null));
    });
    model.on("change:theme", dress);
    model.on("change:document", draw);
    model.on("change:problem", draw);
    dress();
    draw();
    return () => {
      close();
      resources.close();
      model.off("change:theme", dress);
      model.off("change:document", draw);
      model.off("change:problem", draw);
    };
  }
  return { render };
}
