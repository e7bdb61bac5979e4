// Runs views without Jupyter: models with the same methods, whose state and resources stand in the page.

/** A model as anywidget gives it to a view. `outbox`, where there is one, hears of every change and message. */
export function hostModel(state, { resources = {}, managed = {}, outbox = null } = {}) {
  const values = { ...state };
  const listeners = new Map();
  const unsaved = {};
  const emit = (event, ...details) => { for (const listener of [...(listeners.get(event) ?? [])]) listener(...details); };

  function assign(name, value) {
    if (values[name] === value) return;
    values[name] = value;
    emit(`change:${name}`, model, value);
    emit("change", model);
  }

  const model = {
    get: (name) => values[name],
    set(name, value) { unsaved[name] = value; assign(name, value); },
    save_changes() {
      const saved = { ...unsaved };
      for (const name of Object.keys(unsaved)) delete unsaved[name];
      if (outbox) outbox({ state: saved });
    },
    on(event, listener) { listeners.set(event, [...(listeners.get(event) ?? []), listener]); },
    off(event, listener) { listeners.set(event, (listeners.get(event) ?? []).filter((each) => each !== listener)); },
    send(message, _callbacks, buffers = []) {
      if (outbox) return outbox({ message, buffers });
      if (message.want) queueMicrotask(() => emit("msg:custom", ...answered(message.want, resources)));
    },
    receive(message, buffers) { emit("msg:custom", message, buffers); },
    accept(changes) { for (const [name, value] of Object.entries(changes)) assign(name, value); },
    widget_manager: { get_model: async (id) => managed[id] },
  };
  return model;
}

function answered(names, resources) {
  const found = [], failed = [], buffers = [];
  for (const name of names) {
    const resource = resources[name];
    if (!resource) failed.push([name, "This page does not hold it."]);
    else if (resource[2]) failed.push([name, resource[2]]);
    else {
      found.push([name, resource[0]]);
      buffers.push(Uint8Array.from(atob(resource[1]), (letter) => letter.charCodeAt(0)));
    }
  }
  return [{ found, failed }, buffers];
}

/** Draws the views that stand in the page's state; `entries` are their modules by name. */
export async function openPage(entries) {
  const { playheads, views } = JSON.parse(document.getElementById("state").textContent);
  const managed = playheads.map((state) => hostModel(state));
  globalThis.tpoPage = { playheads: managed, models: [] };
  for (const { front, state, resources } of views) {
    const el = document.createElement("div");
    document.getElementById("views").append(el);
    const model = hostModel({ ...state, playhead: `IPY_MODEL_${state.playhead}` }, { resources, managed });
    globalThis.tpoPage.models.push(model);
    await entries[front].render({ model, el });
  }
}
