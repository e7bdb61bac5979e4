// The question, the button that asks it, what goes on meanwhile, and the answer in words.

import { h, shown } from "./dom.js";

const PAD_PATIENCE = 8000;
const PAD_STILL = "This page has no Python behind it, so nothing can be asked. Open the pad in a notebook.";

/** `go(timeSec)` moves to a moment. Gives `element`, `mention(place)`, `complain(sentence)`, `show()` and `close()`. */
export function padAsk(model, go) {
  const still = Boolean(globalThis.tpoPage);
  const field = h("input", { type: "text", class: "tpo-pad-question", "aria-label": "Question", placeholder: "Where is it?", spellcheck: "false" });
  const button = h("button", { type: "button", class: "tpo-pad-ask", onclick: ask }, "Ask");
  const reason = h("p", { class: "tpo-pad-reason tpo-soft" });
  const status = h("p", { class: "tpo-pad-status", role: "status", "aria-live": "polite" });
  const answer = h("div", { class: "tpo-pad-answer" });
  // no form: notebooks do not let them be submitted
  const form = h("div", { class: "tpo-row tpo-pad-form" }, field, button);
  let waiting = false, late = false, timer = null, complaint = "";

  field.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) ask(); });
  field.addEventListener("input", () => {
    model.set("question", field.value);
    model.save_changes();
    complaint = "";
    show();
  });

  function hindered() {
    if (still) return PAD_STILL;
    return model.get("hindrance") || (field.value.trim() ? "" : "Write a question to ask it.");
  }

  function ask() {
    if (hindered() || waiting || model.get("status") === "asking") return;
    complaint = "";
    waiting = true;
    timer = setTimeout(() => { late = true; show(); }, PAD_PATIENCE);
    // a notebook holds changes back while the kernel is busy, and messages overtake them
    model.send({ ask: true, question: field.value, drawn: model.get("drawn") });
    show();
  }

  function arrived() {
    clearTimeout(timer);
    waiting = late = false;
    show();
  }

  function said() {
    const state = model.get("status");
    if (complaint) return [complaint, true];
    if (waiting) return [late ? "Python has not answered yet: it is busy with another cell, or its kernel is gone." : "Asking …", false];
    if (state === "asking") return [model.get("said") ? "The model writes …" : `${model.get("sentence")} …`.replace(". …", " …"), false];
    if (state === "failed") return [model.get("sentence"), true];
    return [state === "answered" ? "Answered." : "", false];
  }

  function show() {
    if (field.value !== model.get("question")) field.value = model.get("question");
    const busy = waiting || model.get("status") === "asking";
    const why = hindered();
    button.disabled = Boolean(why) || busy;
    button.textContent = busy ? "Asking" : "Ask";
    reason.textContent = why || model.get("remark");
    const [words, wrong] = said();
    // a text that stays the same is not read aloud again
    if (status.textContent !== words) status.textContent = words;
    status.classList.toggle("tpo-problem", wrong);
    answer.replaceChildren(...(busy ? writing() : answered(model.get("found"))));
  }

  function writing() {
    return model.get("said") ? [h("p", { class: "tpo-pad-said" }, model.get("said"))] : [];
  }

  function answered(found) {
    if (!found || !("text" in found)) return [];
    return [
      h("p", { class: "tpo-soft" }, `To: ${found.question}`),
      h("p", { class: "tpo-pad-said" }, found.text || "(no words)", found.truncated ? h("span", { class: "tpo-soft" }, " (cut at the token limit)") : null),
      h("p", {}, found.routes.length ? `The model asked its ${found.routes.join(" and ")} head${found.routes.length > 1 ? "s" : ""}.` : "The model asked no head."),
      h("ul", { class: "tpo-pad-results" }, ...found.boxes.map(boxed), ...found.windows.map((window, rank) => windowed(window, found.scores[rank]))),
      ...notes(found).map((note) => h("p", { class: "tpo-soft" }, note)),
    ];
  }

  function boxed(box, place) {
    return h("li", {}, `answer ${place + 1}: box ${box.map((edge) => Number(edge.toFixed(1))).join(" ")}`);
  }

  function windowed([start, end], score) {
    const span = `${start.toFixed(2)} s to ${end.toFixed(2)} s`;
    return h("li", {}, h("button", { type: "button", "aria-label": `Go to ${span}`, onclick: () => go(start) }, span), score === undefined ? null : ` score ${shown(score)}`);
  }

  function notes(found) {
    const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
    return [
      found.boxes.length ? "A box in the answer has no time of its own: it is drawn on every frame." : "",
      found.objects ? `Masks of ${many(found.objects, "object")} on ${many(found.times.length, "frame")}; each is drawn on the frames nearest to its own.` : "",
      found.undrawn.length ? `What the ${found.undrawn.join(" and ")} head gave is in pad.answer.structured.` : "",
    ].filter(Boolean);
  }

  const events = ["change:hindrance", "change:remark", "change:said", "change:found", "change:sentence", "change:question"];
  for (const event of events) model.on(event, show);
  model.on("change:status", arrived);
  return {
    element: h("section", { class: "tpo-pad-asking" }, h("h3", {}, "Question"), form, reason, status, answer),
    show,
    complain(sentence) { complaint = sentence; show(); },
    mention(place) {
      const name = `<prompt:${place}>`;
      const [start, end] = [field.selectionStart ?? field.value.length, field.selectionEnd ?? field.value.length];
      const before = start > 0 && !/\s/.test(field.value[start - 1]) ? " " : "";
      const after = end < field.value.length && /[\w<]/.test(field.value[end]) ? " " : "";
      field.setRangeText(before + name + after, start, end, "end");
      field.focus();
      field.dispatchEvent(new Event("input"));
    },
    close() {
      clearTimeout(timer);
      for (const event of events) model.off(event, show);
      model.off("change:status", arrived);
    },
  };
}
