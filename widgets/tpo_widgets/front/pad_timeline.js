// A time axis below the frame: where prompts lie, which windows the model gave, and the moment that is shown.

import { s } from "./dom.js";

/** `go(timeSec)` hears of clicks. Gives `element` and `show({ now, prompts, windows })`, all in seconds; windows best first. */
export function padTimeline(durationSec, go) {
  const chart = s("svg", { class: "tpo-pad-timeline", role: "img", width: "100%", height: 42 });
  const percent = (time) => `${(100 * Math.min(Math.max(time / durationSec, 0), 1)).toFixed(3)}%`;
  chart.addEventListener("pointerdown", (event) => {
    const place = chart.getBoundingClientRect();
    go(Math.min(Math.max((event.clientX - place.left) / place.width, 0), 1) * durationSec);
  });

  function bars(windows) {
    return windows.map(([start, end], rank) => {
      const wide = 100 * (Math.min(end, durationSec) - Math.max(start, 0)) / durationSec;
      return s("rect", { class: rank ? "tpo-pad-window other" : "tpo-pad-window", x: percent(start), width: `${Math.max(wide, 0).toFixed(3)}%`, y: 4, height: 14 });
    }).reverse();
  }

  function described(prompts, windows) {
    const seconds = (times) => times.map((time) => `${time.toFixed(2)} s`).join(", ");
    const spans = windows.map(([start, end]) => `${start.toFixed(2)} s to ${end.toFixed(2)} s`).join(", ");
    return `${prompts.length ? `Prompts at ${seconds(prompts)}.` : "No prompts."} ${windows.length ? `The model's windows, best first: ${spans}.` : ""}`;
  }

  return {
    element: chart,
    show({ now, prompts, windows }) {
      chart.replaceChildren(
        s("title", {}, described(prompts, windows)),
        s("rect", { class: "tpo-pad-ground", x: 0, y: 4, width: "100%", height: 14 }),
        ...bars(windows),
        ...prompts.map((time) => s("circle", { class: "tpo-pad-mark", cx: percent(time), cy: 11, r: 5 })),
        s("line", { class: "tpo-pad-now", x1: percent(now), x2: percent(now), y1: 0, y2: 22 }),
        s("text", { x: 0, y: 36 }, "0 s"),
        s("text", { x: "100%", y: 36, "text-anchor": "end" }, `${Number(durationSec.toFixed(2))} s`));
    },
  };
}
