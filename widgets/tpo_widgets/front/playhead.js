// The moment and the selection that views share: a model of its own, so that they move together with or without a kernel.

const MOMENT = ["time_sec", "sample", "head", "object", "token"];
const SAVED_MS = 100;
const MOVING = Symbol.for("tpo-playhead");

/** The playhead of a view's model: `get(name)`, `set({ name: value })`, `on(listener)` which returns how to stop listening. */
export async function playheadOf(model) {
  const reference = String(model.get("playhead"));
  const shared = await model.widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  // on the model itself, since each view brings a module of its own
  shared[MOVING] ??= moving(shared);
  return shared[MOVING];
}

/**
 * A playhead that all views of a page follow at once. The model, and Python with it, hears of a first change at once, of those that come
 * soon after it together: a message at every step of a scrubber would keep a kernel and its notebook busy with nothing else.
 */
function moving(shared) {
  const ahead = new Map(), listeners = new Set();
  let saved = -Infinity, timer = null, saving = false;
  const get = (name) => (ahead.has(name) ? ahead.get(name) : shared.get(name));
  const tell = () => { for (const listener of [...listeners]) listener(); };

  function save() {
    timer = null;
    saved = performance.now();
    const changes = [...ahead];
    if (!changes.length) return;
    ahead.clear();
    saving = true;
    try {
      for (const [name, value] of changes) shared.set(name, value);
    } finally {
      saving = false;
    }
    shared.save_changes();
  }

  // while a step waits to be saved, what comes from elsewhere is older than the hand: a late echo of the step before it, as a rule
  for (const name of MOMENT) shared.on(`change:${name}`, () => { if (!saving && !ahead.has(name)) tell(); });
  return {
    get,
    set(values) {
      const changed = Object.entries(values).filter(([name, value]) => get(name) !== value);
      if (!changed.length) return;
      for (const [name, value] of changed) ahead.set(name, value);
      const soon = saved + SAVED_MS - performance.now();
      if (soon <= 0) save(); else timer ??= setTimeout(save, soon);
      tell();
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
