// The row of tokens as chips: patches are one chip per frame, which opens into the frame's grid.

import { h } from "./dom.js";
import { tokenOf, tokenSentence, tokenText } from "./token_words.js";

const CHIP_SIGNS = { ROUTE: "➜", SLOT: "◆", PROMPT: "◎" };
const CHIP_OPTION = { role: "option", tabindex: -1, "aria-selected": "false" };

function rowChip([kind, index, text, learned, head], count) {
  if (kind === "VIDEO") {
    const frame = text, said = frame === null ? `${count} × video, no frame` : `▦ frame ${frame}: ${count === 1 ? "1 patch" : `${count} patches`}`;
    return h("span", { ...CHIP_OPTION, class: "tpo-chip tpo-chip-video", "data-token": index, "data-count": count, "data-frame": frame,
      "aria-expanded": frame === null ? null : "false" }, said);
  }
  const name = head ? `${kind.toLowerCase()} ${head}` : kind === "PROMPT" ? "pointed at" : tokenText(text);
  return h("span", { ...CHIP_OPTION, class: `tpo-chip tpo-chip-${kind.toLowerCase()}${learned ? " tpo-chip-learned" : ""}`, "data-token": index }, CHIP_SIGNS[kind] ? `${CHIP_SIGNS[kind]} ${name}` : name);
}

function wordChip(word) {
  return h("span", { ...CHIP_OPTION, class: `tpo-chip tpo-chip-learned tpo-chip-${word.head ? "route" : "text"}`, "data-word": word.number },
    word.head ? `➜ route ${word.head}` : tokenText(word.text));
}

/** How the model's own answer is seen in the frames, where the record does not say. */
function withoutMaps({ text, words }) {
  if (!text) return ["It wrote nothing."];
  if (words.length) return [`It wrote “${text}”, which could not be read again as a part of the conversation: no map of its words.`];
  return [`It wrote “${text}”. To see where in the frames each word is seen, measure again with `, h("code", {}, "tpo.probe(model, samples, words=True)"), "."];
}

/** The option that an arrow key leads to: along the line, or to the nearest of the next line. */
function chipAfter(from, key) {
  const all = [...from.parentElement.children], at = all.indexOf(from);
  const along = { ArrowRight: all[at + 1], ArrowLeft: all[at - 1], Home: all[0], End: all.at(-1) };
  if (key in along) return along[key];
  const rest = key === "ArrowDown" ? all.slice(at + 1) : all.slice(0, at).reverse();
  const next = rest.find((each) => Math.abs(each.offsetTop - from.offsetTop) > 4);
  const apart = (each) => Math.abs(each.offsetLeft + each.offsetWidth / 2 - from.offsetLeft - from.offsetWidth / 2);
  return rest.filter((each) => next && Math.abs(each.offsetTop - next.offsetTop) <= 4).sort((one, other) => apart(one) - apart(other))[0];
}

/** The row: `fill(detail)`, `update({ token, word, others })`. `picture(frame)` promises a frame's address; -1 selects nothing. */
export function tokenRow({ picture, onToken, onWord }) {
  const part = (label, look) => h("div", { class: look, role: "listbox", "aria-label": label });
  const line = h("p", { class: "tpo-soft tpo-tk-line", role: "status" });
  const row = part("Tokens of the sample, in reading order", "tpo-tk-row");
  const own = part("Words that the model wrote", "tpo-tk-row");
  const patches = part("Patches of the frame", "tpo-tk-patches");
  const gridTitle = h("b", {});
  const grid = h("div", { hidden: true }, h("div", { class: "tpo-row" }, gridTitle, h("button", { onclick: shut }, "Close the grid")), patches);
  const how = h("p", { class: "tpo-tk-how" });
  const element = h("div", {}, row, grid, line, h("h3", {}, "The model's own answer"), own, how);
  let detail = null, selected = -1, open = null;

  function say(index) {
    line.textContent = index >= 0 ? tokenSentence(detail, index) : "Point at a token to read about it; click to select it.";
  }

  function fill(given) {
    detail = given;
    shut();
    row.replaceChildren(...detail.runs.map((run) => rowChip(run, run[0] === "VIDEO" ? run[4] : 1)));
    // the first task token, and as many of the others as there is room for
    for (const at of [-1, 0]) reveal([...row.querySelectorAll(".tpo-chip-route, .tpo-chip-slot")].at(at));
    const words = detail.words.filter((word) => word.answer === "emitted");
    own.replaceChildren(...words.map(wordChip));
    own.hidden = !words.length;
    how.replaceChildren(...(words.length ? [] : withoutMaps(detail)));
  }

  /** Scrolls the row, and nothing else, so far that a chip is in it. */
  function reveal(chip) {
    if (!chip) return;
    const above = chip.offsetTop - row.scrollTop, below = above + chip.offsetHeight - row.clientHeight;
    if (above < 0) row.scrollTop += above - 8;
    else if (below > 0) row.scrollTop += below + 8;
  }

  function shut() {
    if (open) {
      open.setAttribute("aria-expanded", "false");
      if (grid.contains(document.activeElement)) open.focus();
    }
    open = null;
    grid.hidden = true;
    patches.replaceChildren();
  }

  async function unfold(chip) {
    const again = open === chip, frame = Number(chip.dataset.frame), first = Number(chip.dataset.token), of = detail;
    shut();
    if (again) return;
    open = chip;
    chip.setAttribute("aria-expanded", "true");
    gridTitle.textContent = `Frame ${frame}: ${of.grid} × ${of.grid} patches`;
    Object.assign(patches.style, { gridTemplateColumns: `repeat(${of.grid}, 1fr)`, aspectRatio: `${of.size[0]} / ${of.size[1]}`, backgroundImage: "none" });
    patches.replaceChildren(...Array.from({ length: Number(chip.dataset.count) }, (_, at) => {
      const { cell } = tokenOf(of, first + at), [line, column] = [Math.floor(cell / of.grid), cell % of.grid];
      return h("span", { ...CHIP_OPTION, "data-token": first + at, "aria-label": `Row ${line}, column ${column}`, style: { gridArea: `${1 + line} / ${1 + column}` } });
    }));
    grid.hidden = false;
    mark(patches);
    const address = await picture(frame).catch(() => "");
    if (open === chip && address) patches.style.backgroundImage = `url(${address})`;
  }

  function mark(listed, others = []) {
    const holds = ({ dataset }) => selected >= Number(dataset.token) && selected < Number(dataset.token) + Number(dataset.count ?? 1);
    const chosen = selected >= 0 ? [...listed.children].find(holds) : undefined;
    for (const each of listed.children) {
      each.setAttribute("aria-selected", String(each === chosen));
      each.tabIndex = each === (chosen ?? listed.firstElementChild) ? 0 : -1;
      each.classList.toggle("tpo-chip-other", each !== chosen && others.includes(Number(each.dataset.token)));
    }
    return chosen;
  }

  function update({ token, word, others }) {
    selected = token;
    reveal(mark(row, others));
    mark(patches);
    for (const each of own.children) {
      const here = Number(each.dataset.word) === word;
      each.setAttribute("aria-selected", String(here));
      each.tabIndex = here || (word < 0 && each === own.firstElementChild) ? 0 : -1;
    }
    say(token);
  }

  function act(chip, moved) {
    if (chip.dataset.word) onWord(Number(chip.dataset.word));
    else if (!chip.dataset.frame) onToken(Number(chip.dataset.token));
    else if (!moved) unfold(chip);
  }

  for (const listed of [row, own, patches]) {
    const under = (event) => event.target.closest("[role=option]");
    listed.addEventListener("click", (event) => { const chip = under(event); if (chip) { chip.focus(); act(chip); } });
    listed.addEventListener("keydown", (event) => {
      const chip = under(event), key = event.key;
      if (!chip || !/^(Enter| |Escape|Home|End|Arrow.*)$/.test(key)) return;
      event.preventDefault();
      if (key === "Escape") return listed === row ? onToken(-1) : listed === own ? onWord(-1) : shut();
      const next = key === "Enter" || key === " " ? chip : chipAfter(chip, key);
      if (!next) return;
      next.focus();
      act(next, next !== chip);
    });
    if (listed === own) continue;
    for (const name of ["pointerover", "focusin"]) listed.addEventListener(name, (event) => { const chip = under(event); if (chip) say(Number(chip.dataset.token)); });
    for (const name of ["pointerleave", "focusout"]) listed.addEventListener(name, () => say(selected));
  }
  return { element, fill, update };
}
