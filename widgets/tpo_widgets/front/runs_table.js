// The table of the runs: sorted by its heads, filtered below them, drawn only where it is looked at.

import { h, onNextFrame } from "./dom.js";
import { runsTest } from "./runs_data.js";
import { runsLink } from "./runs_link.js";
import { RUNS_OPENS, runsChecks, runsName } from "./runs_popover.js";

const RUNS_ROW = 27, RUNS_AROUND = 12, RUNS_LETTER = 7.2, RUNS_MOST_LETTERS = 34;
const RUNS_SIGNS = { done: "✓", failed: "✕", running: "▶", stale: "◌", waiting: "…", skipped: "–", stopped: "■" };

export function runsTableView(runs) {
  const head = h("thead"), body = h("tbody"), widths = h("colgroup"), prefix = runsName();
  const table = h("table", { role: "grid", tabindex: 0, "aria-multiselectable": "true", "aria-label": "Runs", onkeydown: keyed }, widths, head, body);
  const empty = h("p", { class: "tpo-soft tpo-runs-empty", role: "status" });
  const box = h("div", { class: "tpo-runs-box" }, table, empty);
  const about = h("div", { class: "tpo-runs-about", "aria-live": "polite" });
  const element = h("div", {}, box, about);
  let built = "", told = "", names = [], controls = new Map(), best = new Map(), active = "", anchor = "";

  const scrolled = onNextFrame(drawRows);
  box.addEventListener("scroll", scrolled);
  body.addEventListener("click", clicked);
  body.addEventListener("pointerover", (event) => runs.point(rowOf(event)));
  body.addEventListener("pointerleave", () => runs.point(-1));

  function rowOf(event) {
    const found = event.target.closest("tr[data-row]");
    return found ? Number(found.dataset.row) : -1;
  }

  // heads and filters stay the same elements as long as their column does, so that what is typed into them stays
  function drawHead() {
    const columns = names.map((name) => runs.column(name));
    const now = JSON.stringify([runs.data.length, columns.map((each) => [each.name, each.kind, each.role, each.lower, each.categories])]);
    if (now !== built) {
      built = now;
      for (const each of columns) {
        const key = `${each.kind} ${each.role} ${each.lower}`;
        if (controls.get(each.name)?.key !== key) controls.set(each.name, { key, ...headOf(each), ...filterOf(each) });
      }
      const focused = document.activeElement, made = columns.map((each) => controls.get(each.name));
      const letters = columns.map((each) => Math.min(RUNS_MOST_LETTERS, longest(each)));
      const pixels = [34, 94, ...letters.map((count) => Math.round(count * RUNS_LETTER + 22))];
      widths.replaceChildren(...pixels.map((width) => h("col", { style: { width: `${width}px` } })));
      table.style.minWidth = `${pixels.reduce((sum, width) => sum + width, 0)}px`;
      head.replaceChildren(h("tr", {}, h("th", { scope: "col", "aria-label": "selected" }), h("th", { scope: "col" }, "notebook"), ...made.map(({ th }) => th)),
        h("tr", { class: "tpo-runs-filters" }, h("td"), h("td"), ...made.map(({ td }) => td)));
      if (head.contains(focused)) focused.focus({ preventScroll: true });
    }
    const [sorted, direction] = runs.get("order");
    for (const name of names) {
      const { th, arrow } = controls.get(name);
      th.setAttribute("aria-sort", name === sorted ? direction : "none");
      arrow.textContent = name === sorted ? (direction === "ascending" ? "▲" : "▼") : "";
      controls.get(name).follow(runs.get("filters")[name]);
    }
  }

  function longest(column) {
    let most = Math.max(column.name.length + 2, 7);
    for (let row = 0; row < runs.data.length && most < RUNS_MOST_LETTERS; row++) {
      const extra = column.role === "status" ? 2 : column.role === "metric" ? 4 : 0;
      most = Math.max(most, runs.data.text(column.name, row).length + extra);
    }
    return most;
  }

  function headOf(column) {
    const arrow = h("span", { class: "tpo-runs-arrow", "aria-hidden": "true" });
    const told = column.role === "metric" && column.kind === "number" ? `; best is the ${column.lower ? "least" : "greatest"}` : "";
    const button = h("button", { type: "button", title: `${column.name}${told}`, onclick: () => sort(column.name) }, h("span", {}, column.name), arrow);
    const th = h("th", { scope: "col", class: column.kind === "number" ? "n" : null, "data-column": column.name }, button);
    return { th, arrow };
  }

  function sort(name) {
    const [sorted, direction] = runs.get("order");
    const next = sorted !== name ? "ascending" : direction === "ascending" ? "descending" : "";
    runs.set({ order: next ? [name, next] : [] });
  }

  function filterOf(column) {
    const { element: control, follow } = column.kind === "category" ? choiceOf(column) : wordsOf(column);
    return { follow, td: h("td", { class: column.kind === "number" ? "n" : null }, control) };
  }

  function wordsOf(column) {
    const isNumber = column.kind === "number";
    const input = h("input", { type: "text", "data-filter": column.name, placeholder: isNumber ? ">=0.5" : "contains", spellcheck: "false",
      "aria-label": `Filter ${column.name}${isNumber ? ", such as >=0.5 or 0.1..0.5" : ""}`,
      oninput() {
        const wrong = runsTest(column, input.value) === null;
        input.setAttribute("aria-invalid", String(wrong));
        input.title = wrong ? "Write >=0.5, <3, =4 or 0.1..0.5" : "";
        if (!wrong) runs.filter(column.name, input.value.trim() ? input.value : null);
      } });
    const follow = (given) => {
      const words = Array.isArray(given) ? `${given.length} values` : given ?? "";
      if (input.value.trim() === words.trim() || (document.activeElement === input && input.matches("[aria-invalid=true]"))) return;
      input.value = words;
      input.setAttribute("aria-invalid", "false");
    };
    return { element: input, follow };
  }

  function choiceOf(column) {
    const button = h("button", { type: "button", "data-filter": column.name, ...RUNS_OPENS, onclick() {
      const { categories, values: found } = runs.column(column.name), values = [...categories, ...(found.includes(null) ? [null] : [])];
      const given = runs.get("filters")[column.name];
      const passes = given === undefined ? () => true : runsTest(column, given);
      const options = values.map((value) => ({ value, words: value ?? "–", checked: passes(value) }));
      runs.popover.open(button, `Filter ${column.name}`, runsChecks(options, (chosen) => runs.filter(column.name, chosen.length === values.length ? null : chosen)));
    } });
    const follow = (given) => {
      const list = Array.isArray(given) ? given.map((each) => each ?? "none") : [given ?? "all"];
      button.textContent = `${list.length === 1 ? list[0] : `${list.length} of ${runs.column(column.name).categories.length}`} ▾`;
      button.setAttribute("aria-label", `Filter ${column.name}: ${list.join(", ") || "nothing"}`);
    };
    return { element: button, follow };
  }

  function drawRows() {
    const count = runs.visible.length, height = box.clientHeight || 400, chosen = new Set(runs.get("selected"));
    const first = Math.max(0, Math.floor(box.scrollTop / RUNS_ROW) - RUNS_AROUND);
    const last = Math.min(count, first + Math.ceil(height / RUNS_ROW) + 2 * RUNS_AROUND);
    const space = (rows) => (rows > 0 ? [h("tr", { class: "tpo-runs-space", "aria-hidden": "true", style: { height: `${rows * RUNS_ROW}px` } })] : []);
    const drawn = runs.visible.slice(first, last).map((row, number) => rowElement(row, first + number, chosen));
    body.replaceChildren(...space(first), ...drawn, ...space(count - last));
    table.setAttribute("aria-rowcount", count + 2);
    const found = runs.row(active);
    table.setAttribute("aria-activedescendant", drawn.some((each) => Number(each.dataset.row) === found) ? `${prefix}-${found}` : "");
  }

  function rowElement(row, place, chosen) {
    const id = runs.data.ids[row], isChosen = chosen.has(id);
    const cells = names.map((name) => cellOf(runs.column(name), row));
    const classes = `${id === active ? "active" : ""} ${row === runs.pointed ? "pointed" : ""}`;
    return h("tr", { id: `${prefix}-${row}`, "data-row": row, "data-id": id, class: classes, "aria-selected": String(isChosen), "aria-rowindex": place + 3 },
      h("td", { class: "tpo-runs-check" }, h("span", { "aria-hidden": "true" }, isChosen ? "✓" : "")),
      h("td", {}, runsLink(runs, row, "open", { tabindex: -1 })), ...cells);
  }

  function cellOf(column, row) {
    const value = column.values[row], words = runs.data.text(column.name, row);
    if (column.kind === "number") {
      const isBest = value !== null && value === best.get(column.name);
      return h("td", { class: isBest ? "n best" : "n", title: value ?? "no value" },
        isBest ? h("span", { "aria-label": "best" }, "★ ") : null, words);
    }
    const sign = column.role === "status" ? h("span", { class: "tpo-runs-sign", "aria-hidden": "true" }, RUNS_SIGNS[value] ?? "") : null;
    return h("td", { class: column.role === "status" ? `tpo-runs-${value}` : null, title: value ?? "no value" }, sign, words);
  }

  function drawAbout() {
    const row = runs.row(active), fact = (name) => runs.column(name)?.values[row] ?? null;
    const now = JSON.stringify([active, runs.get("base"), row, runs.data.links[row], fact("note"), fact("state")]);
    if (now === told) return;
    told = now;
    if (row === undefined) return void about.replaceChildren(h("p", { class: "tpo-soft" }, "Click or Space selects, with Shift or Ctrl several; Enter opens the notebook."));
    about.replaceChildren(h("p", {}, h("strong", {}, fact("run") ?? runs.data.label(row)), h("span", { class: "tpo-soft" }, ` ${active} ${fact("state") ?? ""} `),
      runsLink(runs, row, "Open the notebook") ?? h("span", { class: "tpo-soft" }, "No notebook was executed yet.")), h("p", { class: "tpo-runs-note" }, fact("note") ?? ""));
  }

  function clicked(event) {
    const row = rowOf(event);
    if (row < 0 || event.target.closest("a")) return;
    const id = runs.data.ids[row], before = runs.get("selected");
    active = id;
    if (event.shiftKey) return select(upTo(id));
    anchor = id;
    if (event.ctrlKey || event.metaKey || event.target.closest(".tpo-runs-check")) return toggle(id);
    select(before.length === 1 && before[0] === id ? [] : [id]);
  }

  function upTo(id) {
    const ids = runs.visible.map((row) => runs.data.ids[row]), from = Math.max(0, ids.indexOf(anchor)), to = ids.indexOf(id);
    return ids.slice(Math.min(from, to), Math.max(from, to) + 1);
  }

  function toggle(id) {
    const before = runs.get("selected");
    select(before.includes(id) ? before.filter((each) => each !== id) : [...before, id]);
  }

  function select(ids) {
    runs.set({ selected: ids });
    draw();
  }

  function keyed(event) {
    if (event.target !== table) return;
    const ids = runs.visible.map((row) => runs.data.ids[row]), at = ids.indexOf(active), page = Math.max(1, Math.floor(box.clientHeight / RUNS_ROW) - 3);
    const moves = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), PageDown: at + page, PageUp: at - page, Home: 0, End: ids.length - 1 };
    if (event.key in moves && ids.length) {
      if (!event.shiftKey) anchor = "";
      else if (!anchor) anchor = active || ids[0];
      active = ids[Math.min(Math.max(moves[event.key], 0), ids.length - 1)];
      reveal(active);
      if (event.shiftKey) select(upTo(active));
      else draw();
      runs.point(runs.row(active));
    } else if (event.key === " " && active) { anchor = active; toggle(active); }
    else if (event.key === "Enter" && active) runsLink(runs, runs.row(active) ?? -1, "")?.click();
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) select(ids);
    else if (event.key === "Escape" && runs.get("selected").length) select([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Scrolls so that a run can be seen. */
  function reveal(id) {
    const place = runs.visible.indexOf(runs.row(id)), covered = head.offsetHeight;
    if (place < 0) return;
    const top = place * RUNS_ROW, room = box.clientHeight - covered - 2;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + RUNS_ROW > box.scrollTop + room) box.scrollTop = top + RUNS_ROW - room;
  }

  function draw() {
    names = runs.columns();
    best = new Map(names.map((name) => runs.column(name)).filter((each) => each.role === "metric" && each.kind === "number")
      .map((each) => [each.name, runs.data.best(each, runs.visible)]));
    drawHead();
    // as high as all runs need: what stands below must not move while a range is brushed
    box.style.height = `${Math.min(416, (Math.max(runs.data.length, 1) + 3) * RUNS_ROW)}px`;
    drawRows();
    drawAbout();
    empty.textContent = runs.data.length ? (runs.visible.length ? "" : "No run passes the filters.") : "No runs yet.";
  }

  function point(row) {
    body.querySelector("tr.pointed")?.classList.remove("pointed");
    body.querySelector(`tr[data-row="${row}"]`)?.classList.add("pointed");
  }

  return { element, draw, point, reveal, close: () => scrolled.cancel() };
}
