// Numbers as bars: the probability of each route where one is decided, and what the heads read.

import { h } from "./dom.js";
import { probabilityText, tokenName } from "./token_words.js";

/** Cards of bars: `fill(detail)`, `update(token)`. */
export function tokenRoutes({ onToken }) {
  const cards = h("div", { class: "tpo-tk-cards" }), element = h("section", { "aria-label": "Routes" }, h("h3", {}, "Which route is written"), cards);

  function bar(name, value, place) {
    const marks = [["expected", "● expected", "tpo-tk-true"], ["written", "▲ written", "tpo-tk-model"]].filter(([key]) => place[key] === name);
    return h("tr", { "data-route": name },
      h("th", { scope: "row" }, name),
      h("td", { class: "tpo-tk-bar" }, h("div", { style: { width: `${100 * (value ?? 0)}%` } })),
      h("td", { class: "n" }, probabilityText(value)),
      h("td", { class: "tpo-tk-marks" }, ...marks.map(([, text, look]) => h("span", { class: look }, text))));
  }

  function card(place) {
    const own = place.token === null;
    const title = own ? "The model's own answer begins" : h("button", { onclick: () => onToken(place.token), "data-place": place.token }, `Route due at token ${place.token}`);
    return h("table", { class: "tpo-tk-card", "data-place": own ? "start" : place.token },
      h("caption", {}, title), h("tbody", {}, ...place.probability.map(([name, value]) => bar(name, value, place))));
  }

  return {
    element,
    fill(detail) { cards.replaceChildren(...detail.places.map(card)); },
    update(token) {
      for (const each of cards.querySelectorAll("button")) each.setAttribute("aria-pressed", String(Number(each.dataset.place) === token));
    },
  };
}

/** A table of task tokens and what their heads read: `fill(detail)`. */
export function tokenSlots({ onToken, least }) {
  const body = h("div", {}), element = h("section", { "aria-label": "Slots" }, h("h3", {}, "What each head reads"), body);

  function line(slot, detail) {
    const own = slot.reads === slot.token && slot.cosine !== null && slot.cosine >= least;
    const choose = (index, text) => h("button", { onclick: () => onToken(index) }, text);
    return h("tr", { "data-slot": slot.token, class: own ? null : "tpo-tk-wrong" },
      h("td", {}, slot.head), h("td", {}, choose(slot.token, `token ${slot.token}`)),
      h("td", {}, own ? "✓ its own slot" : h("strong", { class: "tpo-tk-alarm" }, slot.reads === slot.token ? "⚠ its own slot, changed" : "⚠ not its own, but "),
        slot.reads === slot.token ? null : choose(slot.reads, tokenName(detail, slot.reads))),
      h("td", { class: "n" }, slot.cosine === null ? "–" : slot.cosine.toFixed(4)));
  }

  function fill(detail) {
    if (!detail.slots.length) return body.replaceChildren(h("p", { class: "tpo-soft" }, "The true answers of this sample have no slot."));
    body.replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, ...["head", "slot", "reads", "cosine"].map((text) => h("th", { scope: "col", class: text === "cosine" ? "n" : null }, text)))),
      h("tbody", {}, ...detail.slots.map((slot) => line(slot, detail)))));
  }
  return { element, fill };
}
