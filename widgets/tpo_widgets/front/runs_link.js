// The way from a view to the executed notebook of a run: a path beside the page, or in Jupyter Lab one below the server's root.

import { h } from "./dom.js";

/** Where a path leads from a folder, both with slashes; null where it leaves the root. */
function runsJoined(folder, path) {
  const found = [];
  for (const part of [...folder.split("/"), ...path.split("/")]) {
    if (part === "..") {
      if (!found.length) return null;
      found.pop();
    } else if (part && part !== ".") found.push(part);
  }
  return found.join("/");
}

/** In Jupyter Lab, its address and the folder of the notebook that shows the view; else null. */
function runsLab(model) {
  const config = document.getElementById("jupyter-config-data");
  const path = model.widget_manager?.context?.path;
  if (!config || typeof path !== "string") return null;
  return { address: JSON.parse(config.textContent).baseUrl ?? "/", folder: path.replace(/^[^/:]+:/, "").split("/").slice(0, -1).join("/") };
}

/** A link to a run's executed notebook; null where it has none. */
export function runsLink(runs, row, words, attributes = {}) {
  const found = row < 0 ? null : runs.data.links[row];
  if (!found) return null;
  const base = runs.get("base"), lab = runsLab(runs.model);
  const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");
  const beside = (path) => (!base || base === "." ? path : `${base}/${path}`);
  const opened = () => runs.model.send({ opened: runs.data.ids[row] });
  const about = { "aria-label": `Open the executed notebook of ${runs.data.label(row)}`, class: "tpo-runs-link", onclick: opened, ...attributes };
  if (!lab) return h("a", { ...about, href: encoded(beside(found[1] ?? found[0])), target: "_blank", rel: "noopener" }, words);
  const path = runsJoined(lab.folder, beside(found[0]));
  if (path === null) return h("span", { class: "tpo-soft", title: `${beside(found[0])} lies outside of what this server shows.` }, "outside");
  const command = { "data-commandlinker-command": "docmanager:open", "data-commandlinker-args": JSON.stringify({ path }) };
  return h("a", { ...about, ...command, href: `${lab.address}lab/tree/${encoded(path)}` }, words);
}
