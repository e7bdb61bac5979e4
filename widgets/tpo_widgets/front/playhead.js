// The moment and the selection that views share: a model of its own, so that they move together with or without a kernel.

const MOMENT = ["time_sec", "sample", "head", "object", "token"];

/** The playhead of a view's model: `get(name)`, `set({ name: value })`, `on(listener)` which returns how to stop listening. */
export async function playheadOf(model) {
  const reference = String(model.get("playhead"));
  const shared = await model.widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  return {
    get: (name) => shared.get(name),
    set(values) {
      const changed = Object.entries(values).filter(([name, value]) => shared.get(name) !== value);
      for (const [name, value] of changed) shared.set(name, value);
      if (changed.length) shared.save_changes();
    },
    on(listener) {
      for (const name of MOMENT) shared.on(`change:${name}`, listener);
      return () => { for (const name of MOMENT) shared.off(`change:${name}`, listener); };
    },
  };
}
