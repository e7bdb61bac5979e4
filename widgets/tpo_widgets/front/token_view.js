// A step record's tokens: the row, its routes and slots, where a task token looks, how alike task tokens are.

import { h } from "./dom.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";
import { tokenRoutes, tokenSlots } from "./token_bars.js";
import { tokenHeat } from "./token_heat.js";
import { tokenPairs } from "./token_pairs.js";
import { tokenRow } from "./token_row.js";
import { frameOfToken, tokenName, tokenOf, tokenText } from "./token_words.js";

const TOKEN_TRAITS = ["layer", "depth", "opacity", "word", "pair"];
const TOKEN_HOW = "tpo.probe(model, samples, words=True)";

/** What is shown over the frames: the selected word's map, or the selected token's attention or map; without a selection, the first slot's. */
function heatSource(detail, { token, word, head }) {
  const written = word < 0 ? null : detail.words.find((each) => each.answer === "emitted" && each.number === word);
  const order = (look) => 2 * (look.head !== head) + (look.kind !== "SLOT");
  const seen = written ?? detail.words.find((each) => token >= 0 && each.token === token) ?? (token < 0 && !detail.looks.length ? detail.words[0] : null);
  const look = token < 0 ? [...detail.looks].sort((one, other) => order(one) - order(other))[0]
    : detail.looks.find((each) => each.shows === token) ?? (seen ? null : detail.looks.find((each) => each.token === token));
  if (look && !written) {
    const who = look.kind === "SLOT" ? `The slot of ${look.head} (token ${look.token})` : `Token ${look.token}, from which the route of ${look.head} is predicted,`;
    return { name: look.name, title: `${who} looks here.`, attention: true, hidden: look.hidden };
  }
  if (seen) return { name: seen.name, title: `The word “${tokenText(seen.text)}” of the ${seen.answer === "emitted" ? "model's own" : "true"} answer is seen here.` };
  const { kind, learned } = tokenOf(detail, token) ?? { kind: detail.slots.length ? "SLOT" : "" };
  if (!kind) return { why: "This sample has no slot and no route. The words of its answers have maps after", how: TOKEN_HOW };
  if (kind === "SLOT" || kind === "ROUTE") return { why: "The record keeps no attention of task tokens. It does after", how: "tpo.probe(model, samples, attention=True)" };
  if (learned && !detail.words.length) return { why: "No word of this sample has a map. To get them, measure again with", how: TOKEN_HOW };
  return { why: `No map: ${tokenName(detail, token)}. Attention is kept of slots and routes; the words of the last answer have maps.` };
}

function buildTokens({ model, root, playhead, resources, document: record }) {
  let place = -1, wanted = 0, detail = null, source = null, closed = false, asked = 0, seen = playhead.get("token");
  const ids = record.samples.map(([id]) => id);

  const keep = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const choose = (token) => {
    if (model.get("word") >= 0) keep({ word: -1 });
    const frame = frameOfToken(detail, token);
    playhead.set({ sample: ids[place], token, ...(frame < 0 ? {} : { time_sec: detail.times[frame] }) });
  };
  const chooseWord = (word) => {
    playhead.set({ sample: ids[place], token: -1 });
    keep({ word });
  };
  const choosePair = ([one, other]) => {
    keep({ pair: [one, other] });
    if (model.get("word") >= 0) keep({ word: -1 });
    const [sample, , token] = record.slots[record.slots[one][0] === place || record.slots[other][0] !== place ? one : other];
    go(sample, token);
  };

  // addresses of frames for pictures that the browser itself scales; they end with the sample
  let addresses = new Map();
  const forget = () => { for (const each of addresses.values()) each.then(URL.revokeObjectURL, () => {}); addresses = new Map(); };
  const picture = (frame) => {
    const name = `frame/${place}/${frame}`;
    if (!addresses.has(name)) addresses.set(name, resources.get(name).then(({ bytes }) => URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }))));
    return addresses.get(name);
  };

  // samples may share an id: the one that was chosen here stays for as long as the playhead says its id
  const named = (at, short = false) => {
    const [sample, head, token] = record.slots[at], alike = record.slots.filter((each) => each[0] === sample && each[1] === head).length;
    return [head, ...(ids.length > 1 ? [`sample ${sample}`] : []), ...(short && ids.length > 1 && alike === 1 ? [] : [`token ${token}`])].join(", ");
  };

  const chooser = h("select", { class: "tpo-tk-pick", "aria-label": "Sample", onchange: () => go(Number(chooser.value), -1) },
    ...record.samples.map(([id, question], at) => h("option", { value: at }, `${at}: ${id} – ${question}`)));
  const go = (to, token) => {
    wanted = to;
    playhead.set({ sample: ids[to], token });
    follow();
  };
  const placeNow = () => (ids[wanted] === playhead.get("sample") ? wanted : Math.max(ids.indexOf(playhead.get("sample")), 0));
  const asking = h("dl", { class: "tpo-tk-asked" });
  const row = tokenRow({ picture, onToken: choose, onWord: chooseWord });
  const routes = tokenRoutes({ onToken: choose });
  const slots = tokenSlots({ onToken: choose, least: record.limits.cosine });
  const heat = tokenHeat({
    resources, picture, colours: record.colours, most: record.limits.hidden, onTime: (time) => playhead.set({ time_sec: time }), onPatch: choose,
    onLayer: (layer) => keep({ layer }), onOpacity: (opacity) => keep({ opacity }),
  });
  const pairs = tokenPairs({
    model, root, resources, slots: record.slots, depths: record.depths, onPair: choosePair, onDepth: (depth) => keep({ depth }),
    named,
  });
  root.append(
    h("div", { class: "tpo-row" }, h("h3", { class: "tpo-tk-head" }, "Tokens"), ids.length > 1 ? chooser : h("span", { class: "tpo-soft" }, ids[0])),
    asking, row.element, h("div", { class: "tpo-tk-two tpo-tk-wide" }, routes.element, slots.element), heat.element, pairs.element);

  async function follow() {
    const token = playhead.get("token"), next = placeNow();
    const moved = place >= 0 && next !== place, other = token >= 0 && token !== seen;
    seen = token;
    if ((moved || other) && model.get("word") >= 0) keep({ word: -1 });
    if (next === place) return update();
    place = next;
    detail = source = null;
    wanted = place;
    chooser.value = place;
    const mine = (asked += 1);
    let found;
    try {
      found = record.details[place] ?? JSON.parse(new TextDecoder().decode((await resources.get(`sample/${place}`)).bytes));
    } catch (error) {
      if (!closed && mine === asked) asking.textContent = error.message;
      return;
    }
    if (closed || mine !== asked) return;
    forget();
    detail = found;
    const said = [["Question", detail.question], ["True answer", detail.answer || "none"], ["The model writes", detail.text || "nothing"]];
    asking.replaceChildren(...said.flatMap(([name, text]) => [h("dt", {}, name), h("dd", { title: text }, text)]));
    row.fill(detail);
    routes.fill(detail);
    slots.fill(detail);
    heat.fill(detail, place);
    update();
  }

  function update() {
    if (!detail) return;
    const given = playhead.get("token"), token = tokenOf(detail, given) ? given : -1;
    const word = model.get("word"), pair = model.get("pair").filter((each) => each >= 0 && each < record.slots.length);
    const frame = Math.max(detail.times.findLastIndex((time) => time <= playhead.get("time_sec") + 1e-6), 0);
    const others = pair.map((each) => record.slots[each]).filter(([sample]) => sample === place).map(([, , index]) => index);
    const depth = model.get("depth");
    row.update({ token, word, others });
    routes.update(token);
    // a patch has no map of its own: what was shown stays, to be read at the patch
    const patch = frameOfToken(detail, token) >= 0;
    if (!source || !patch || word >= 0) source = heatSource(detail, { token: patch ? -1 : token, word, head: playhead.get("head") });
    heat.update({ source, layer: model.get("layer"), opacity: model.get("opacity"), frame, token });
    pairs.update({
      depth: depth < 0 || depth >= record.depths ? record.depths - 1 : depth, pair,
      chosen: record.slots.findIndex(([sample, , index]) => sample === place && index === token),
    });
    root.dataset.selected = token;
    root.dataset.sample = ids[place];
  }

  const stop = playhead.on(follow);
  for (const name of TOKEN_TRAITS) model.on(`change:${name}`, update);
  follow();
  return () => {
    closed = true;
    stop();
    for (const name of TOKEN_TRAITS) model.off(`change:${name}`, update);
    for (const part of [heat, pairs]) part.close();
    forget();
  };
}

export default mounted(buildTokens, "Tokens of a step record", playheadOf);
