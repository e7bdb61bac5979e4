// What is too large for a view's state and is fetched by name when it is needed. Names asked for together travel in one message.

const KEPT_BYTES = 32 * 2 ** 20;
const AT_ONCE = 16;

/** Fetches by name: `get(name)` promises { about, bytes }; `has(name)`; `asked(name)`, whether it is here or on its way; `onSilence(f)` is called where nobody answers. */
export function resourcesOf(model, { patience = 5000 } = {}) {
  const kept = new Map();
  const waiting = new Map();
  let queue = [], planned = false, heard = false, silence = null, timer = null, bytes = 0;

  function keep(name, value) {
    kept.set(name, value);
    bytes += value.bytes.byteLength;
    for (const [oldest, found] of kept) {
      if (bytes <= KEPT_BYTES || oldest === name) break;
      kept.delete(oldest);
      bytes -= found.bytes.byteLength;
    }
  }

  function receive(message, buffers) {
    if (!message || !message.found) return;
    heard = true;
    clearTimeout(timer);
    message.found.forEach(([name, about], place) => {
      const data = buffers[place];
      // a window on the message, not a copy: what garbage there is of long videos is the browser's to keep
      const value = { about, bytes: new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength) };
      if (!kept.has(name)) keep(name, value);
      settle(name, (wait) => wait.resolve(value));
    });
    for (const [name, sentence] of message.failed) settle(name, (wait) => wait.reject(new Error(sentence)));
  }

  function settle(name, how) {
    const wait = waiting.get(name);
    waiting.delete(name);
    if (wait) how(wait);
  }

  function ask() {
    planned = false;
    while (queue.length) {
      const names = queue.splice(0, AT_ONCE);
      try {
        model.send({ want: names });
      } catch {
        return giveUp();
      }
    }
    if (!heard && timer === null) timer = setTimeout(() => { if (!heard) giveUp(); }, patience);
  }

  // a front end without a kernel: either it cannot send, or nobody answers
  function giveUp() {
    clearTimeout(timer);
    if (silence) silence();
    silence = null;
  }

  function get(name) {
    const found = kept.get(name);
    if (found) {
      kept.delete(name);
      kept.set(name, found);
      return Promise.resolve(found);
    }
    if (!waiting.has(name)) {
      let wait;
      const promise = new Promise((resolve, reject) => { wait = { resolve, reject }; });
      waiting.set(name, { ...wait, promise });
      queue.push(name);
      if (!planned) { planned = true; queueMicrotask(ask); }
    }
    return waiting.get(name).promise;
  }

  model.on("msg:custom", receive);
  return {
    get,
    has: (name) => kept.has(name),
    asked: (name) => kept.has(name) || waiting.has(name),
    onSilence(listener) { silence = listener; },
    forget() { kept.clear(); bytes = 0; },
    close() { clearTimeout(timer); model.off("msg:custom", receive); },
  };
}
