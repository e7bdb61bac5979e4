// A matrix of shaded numbers that is used with the arrow keys: one cell at a time can be reached by Tab.

import { h } from "./dom.js";

const PAGE = 10, CELL = 66;

/**
 * A grid. `act({ row, column })` is called on a click, Enter or Space, with null for a heading's missing half.
 *
 * `draw({ columns, rows, cell, selected })`: columns [{ key, lines, title, sort, marked, swatch }], rows [{ key, name, title, open, inside, marked }] where
 * `open` is null but for rows that open and close; `cell(row, column)` of their keys gives { text, kind, shade, words }.
 */
export function gradientGrid({ label, act }) {
  const head = h("thead"), body = h("tbody");
  const table = h("table", { class: "tpo-g-grid", role: "grid", "aria-label": label }, head, body);
  const element = h("div", { class: "tpo-g-scroll" }, table);
  let cells = [], keys = [], drawn = [], built = "", at = [1, 1];

  function build(columns, rows) {
    const had = table.contains(table.getRootNode().activeElement);
    const before = keys[at[0]]?.[at[1]];
    const heading = (column) => h("th", { role: "columnheader", scope: "col" },
      column.swatch ? h("i", { class: `tpo-g-swatch ${column.swatch}` }) : null, column.lines.map((line) => h("span", {}, line)));
    const top = [h("th", { role: "columnheader", scope: "col" }, "module"), ...columns.map(heading)];
    const lines = rows.map((row) => [
      h("th", { role: "rowheader", scope: "row", class: row.inside ? "tpo-g-inside" : null, title: row.title },
        row.open === null ? null : h("i", { class: "tpo-g-fold" }), row.name),
      ...columns.map(() => h("td", { role: "gridcell" })),
    ]);
    cells = [top, ...lines];
    drawn = lines.map(() => []);
    // columns of known width spare the browser from measuring every number at every step
    const first = Math.max(...rows.map(({ name, inside, open }) => 6.7 * name.length + (inside ? 30 : open === null ? 14 : 30)), 70);
    top[0].style.width = `${first}px`;
    table.style.width = `${first + CELL * columns.length}px`;
    keys = [[null, ...columns.map(({ key }) => [null, key])], ...rows.map(({ key }) => [[key, null], ...columns.map((column) => [key, column.key])])];
    cells.forEach((line, row) => line.forEach((cell, column) => { cell.tabIndex = -1; cell.dataset.place = `${row},${column}`; }));
    head.replaceChildren(h("tr", { role: "row" }, top));
    body.replaceChildren(...lines.map((line, number) => h("tr", {
      role: "row", "aria-expanded": rows[number].open === null ? null : String(rows[number].open), "data-key": rows[number].key }, line)));
    const same = before && keys.flatMap((line, row) => line.map((key, column) => [key, [row, column]])).find(([key]) => String(key) === String(before));
    at = same ? same[1] : [Math.min(at[0], cells.length - 1), Math.min(at[1], top.length - 1)];
    go(at, had);
  }

  function go([row, column], focus = true) {
    const old = cells[at[0]]?.[at[1]];
    if (old) old.tabIndex = -1;
    at = [Math.min(Math.max(row, 0), cells.length - 1), Math.min(Math.max(column, 0), cells[0].length - 1)];
    const cell = cells[at[0]][at[1]];
    cell.tabIndex = 0;
    if (focus) cell.focus({ preventScroll: false });
  }

  function draw({ columns, rows, cell, selected = () => false }) {
    const wanted = JSON.stringify([columns.map(({ key, lines }) => [key, lines]), rows.map(({ key, name, open, inside }) => [key, name, open, inside])]);
    if (wanted !== built) build(columns, rows);
    built = wanted;
    columns.forEach((column, place) => {
      const heading = cells[0][place + 1];
      heading.setAttribute("aria-sort", column.sort ?? "none");
      heading.setAttribute("aria-selected", String(Boolean(column.marked)));
      heading.title = column.title ?? "";
    });
    rows.forEach((row, number) => {
      cells[number + 1][0].setAttribute("aria-selected", String(Boolean(row.marked)));
      columns.forEach((column, place) => {
        const { text, kind, shade = 0, words } = cell(row.key, column.key), chosen = Boolean(selected(row.key, column.key));
        const target = cells[number + 1][place + 1], now = `${words}|${kind}|${shade.toFixed(1)}|${chosen}`;
        if (drawn[number][place] === now) return;
        drawn[number][place] = now;
        if (target.textContent !== text) target.textContent = text;
        target.className = `tpo-g-${kind}`;
        target.style.setProperty("--shade", `${shade.toFixed(1)}%`);
        target.title = words;
        target.setAttribute("aria-label", `${row.name}, ${column.lines.join(" and ")}: ${words}`);
        target.setAttribute("aria-selected", String(chosen));
      });
    });
  }

  function placeOf(event) {
    const cell = event.target.closest("[data-place]");
    return cell ? cell.dataset.place.split(",").map(Number) : null;
  }

  function call([row, column]) {
    const key = keys[row][column];
    if (key) act({ row: key[0], column: key[1] });
  }

  table.addEventListener("click", (event) => {
    const place = placeOf(event);
    if (!place) return;
    go(place);
    call(place);
  });
  table.addEventListener("keydown", (event) => {
    const [row, column] = at, far = event.ctrlKey || event.metaKey;
    const moves = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [row - PAGE, column], PageDown: [row + PAGE, column], Home: [far ? 0 : row, 0], End: [far ? 1e6 : row, 1e6],
    };
    if (event.key === "Enter" || event.key === " ") call(at);
    else if (event.key in moves) go(moves[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** Scrolls a row into the grid's own window; the page stays where it is. */
  function reveal(key) {
    const line = [...body.children].find((each) => each.dataset.key === String(key));
    if (!line) return;
    const top = line.offsetTop - head.offsetHeight, bottom = line.offsetTop + line.offsetHeight;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (bottom > element.scrollTop + element.clientHeight) element.scrollTop = bottom - element.clientHeight;
  }

  return { element, draw, reveal };
}
