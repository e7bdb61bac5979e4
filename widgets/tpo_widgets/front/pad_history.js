// What was drawn before, to go back and forth.

const PAD_STEPS = 100;

/** Steps between states; a state is { drawn, question }. `record(before, after)`, `undo(now)` and `redo(now)` give the state to show, or null. */
export function padHistory() {
  const past = [], future = [];

  function back(from, to, now, forward) {
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    const [left, right] = forward ? [step.before, step.after] : [step.after, step.before];
    // words that were written since then stay
    return { drawn: right.drawn, question: now.question === left.question ? right.question : now.question };
  }

  return {
    record(before, after) {
      past.push({ before, after });
      if (past.length > PAD_STEPS) past.shift();
      future.length = 0;
    },
    undo: (now) => back(past, future, now, false),
    redo: (now) => back(future, past, now, true),
    get undoable() { return past.length > 0; },
    get redoable() { return future.length > 0; },
  };
}
