// The prompts as a list: their names, which a click puts into the question, their frames, and their numbers, which can be typed.

import { h } from "./dom.js";
import { PAD_NUMBERS, padTyped, padWritten } from "./pad_shapes.js";

/**
 * `pad` has `size`, `timeSec`, `isHere(prompt)`, and hears of `mention(place)`, `select(place)`, `go(timeSec)`, `put(prompt, place)`,
 * `remove(place)` and `complain(sentence)`. Gives `element` and `show(prompts, selected)`.
 */
export function padList(pad) {
  const rows = [];
  const list = h("ol", { class: "tpo-pad-list", "aria-label": "Prompts" });
  const empty = h("p", { class: "tpo-soft" }, "Nothing is drawn yet. Drag on the frame, or type numbers below.");
  const kind = h("select", { "aria-label": "Kind of the prompt to add" }, ...Object.keys(PAD_NUMBERS).map((type) => h("option", { value: type }, type)));
  const typed = h("input", { type: "text", spellcheck: "false", "aria-label": "Numbers of the prompt to add" });
  const button = h("button", { type: "button", title: "Add it on the frame shown", onclick: add }, "Add");
  const adding = h("div", { class: "tpo-row tpo-pad-adding", role: "group", "aria-label": "Add a prompt" }, kind, typed, button);
  typed.addEventListener("keydown", (event) => { if (event.key === "Enter") add(); });
  kind.addEventListener("change", hint);
  hint();

  function hint() { typed.placeholder = PAD_NUMBERS[kind.value]; }

  function add() {
    if (attempt(() => pad.put(padTyped(kind.value, typed.value, pad.timeSec, pad.size), -1))) typed.value = "";
  }

  function attempt(act) {
    try {
      act();
      return true;
    } catch (error) {
      pad.complain(error.message);
      return false;
    }
  }

  function row(place) {
    let prompt = null;
    const name = `<prompt:${place}>`;
    const mention = h("button", { type: "button", class: "tpo-pad-name", title: "Put it into the question", onclick: () => pad.mention(place) }, name);
    const choose = h("button", { type: "button", class: "tpo-pad-chosen", onclick: () => { pad.go(prompt.time_sec); pad.select(place); } });
    const numbers = h("input", { type: "text", spellcheck: "false", "aria-label": `Numbers of ${name}`, onchange: change, onfocus: () => pad.select(place) });
    const here = h("button", { type: "button", title: "Move it to the frame shown", "aria-label": `Move ${name} to the frame shown`, onclick: () => pad.put({ ...prompt, time_sec: pad.timeSec }, place) }, "to here");
    const remove = h("button", { type: "button", "aria-label": `Delete ${name}`, onclick: () => pad.remove(place) }, "×");
    numbers.addEventListener("keydown", (event) => { if (event.key === "Escape") { numbers.value = padWritten(prompt); event.stopPropagation(); } });

    function change() {
      if (numbers.value === padWritten(prompt)) return;
      if (!attempt(() => pad.put(padTyped(prompt.type, numbers.value, prompt.time_sec, pad.size), place))) numbers.value = padWritten(prompt);
    }

    return {
      element: h("li", {}, mention, choose, numbers, here, remove),
      show(given, selected) {
        const written = padWritten(given);
        if (prompt === null || written !== padWritten(prompt)) numbers.value = written;
        prompt = given;
        choose.textContent = `${given.type}, ${given.time_sec.toFixed(2)} s`;
        choose.setAttribute("aria-label", `Select ${name}, a ${given.type} at ${given.time_sec.toFixed(2)} s`);
        choose.setAttribute("aria-pressed", String(selected));
        numbers.title = PAD_NUMBERS[given.type];
        here.hidden = pad.isHere(given);
      },
    };
  }

  return {
    element: h("section", { class: "tpo-pad-prompts" }, h("h3", {}, "Prompts"), empty, list, adding),
    show(prompts, selected) {
      while (rows.length < prompts.length) {
        rows.push(row(rows.length));
        list.append(rows.at(-1).element);
      }
      while (rows.length > prompts.length) rows.pop().element.remove();
      rows.forEach((each, place) => each.show(prompts[place], place === selected));
      empty.hidden = prompts.length > 0;
    },
  };
}
