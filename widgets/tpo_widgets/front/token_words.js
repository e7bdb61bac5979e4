// What a token is called, in the row and in sentences.

export const TOKEN_KINDS = {
  VIDEO: "video token of no frame", CONTEXT: "given text", PROMPT: "what the user points at", TEXT: "word of an answer", ROUTE: "route", SLOT: "slot",
};

/** What arrow keys do to [row, column]. */
export const TOKEN_ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Text of a token as it can be seen: blanks and line ends have signs. */
export function tokenText(text) {
  const seen = text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  return seen.trim() || "␣";
}

/** A run of the row, as tokens can be asked for by their place. */
export function tokenOf(detail, index) {
  for (const run of detail.runs) {
    if (run[0] !== "VIDEO") {
      if (run[1] === index) return { index, kind: run[0], text: run[2], learned: run[3], head: run[4] };
    } else if (index >= run[1] && index < run[1] + run[4]) {
      return { index, kind: "VIDEO", frame: run[2], cell: run[3] === null ? null : run[3] + index - run[1] };
    }
  }
  return null;
}

/** The place in the row of a patch; -1 where there is none. */
export function patchAt(detail, frame, cell) {
  const run = detail.runs.find((each) => each[0] === "VIDEO" && each[2] === frame && cell >= each[3] && cell < each[3] + each[4]);
  return run ? run[1] + cell - run[3] : -1;
}

/** Which frame a token is a patch of; -1 for none. */
export function frameOfToken(detail, index) {
  return tokenOf(detail, index)?.frame ?? -1;
}

/** A short name, such as "slot of region (token 57)". */
export function tokenName(detail, index) {
  const { kind, text, head, frame, cell } = tokenOf(detail, index) ?? {};
  const name = head ? `${TOKEN_KINDS[kind]} of ${head}` : text ? `“${tokenText(text)}”` : Number.isInteger(frame) ? `patch ${cell} of frame ${frame}` : TOKEN_KINDS[kind];
  return `${name} (token ${index})`;
}

/** All that the record says of a token, in one line. */
export function tokenSentence(detail, index) {
  const { kind, text, learned, head, frame, cell } = tokenOf(detail, index) ?? {};
  const said = [`Token ${index}`];
  if (kind === "VIDEO" && frame !== null) {
    said.push(`patch of frame ${frame} (${detail.times[frame].toFixed(2)} s)`, `row ${Math.floor(cell / detail.grid)}, column ${cell % detail.grid}`);
    return said.join(" · ");
  }
  said.push(...(text ? [`“${text.replace(/\n/g, "⏎")}”`] : []), `${TOKEN_KINDS[kind] ?? kind}${head ? ` of ${head}` : ""}`);
  if (kind !== "VIDEO") said.push(learned ? "the model learns to write it" : "not learned");
  const due = detail.places.find((place) => place.token === index), slot = detail.slots.find((each) => each.token === index);
  if (due) said.push(`probability ${probabilityText(due.probability.find(([name]) => name === due.expected)?.[1])}`);
  if (slot) said.push(`its head reads ${slot.reads === index ? "it" : tokenName(detail, slot.reads)}`);
  return said.join(" · ");
}

/** A probability with three decimals. */
export function probabilityText(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}
