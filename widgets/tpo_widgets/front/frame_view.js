// The smallest view: the frames of a clip with one box, and a bar to scrub them. An example to start from, and what the tests of the base use.

import { h } from "./dom.js";
import { frameStage } from "./frame_stage.js";
import { mounted } from "./mount.js";
import { playheadOf } from "./playhead.js";

function buildFrames({ root, playhead, resources, document: shownClip }) {
  const { size, times, box } = shownClip;
  const stage = frameStage({ resources, size, name: (number) => `frame/${number}`, label: "Frame of the clip", draw: drawBox });
  const bar = h("input", {
    type: "range", min: 0, max: times.length - 1, "aria-label": "Frame", oninput: () => playhead.set({ time_sec: times[bar.value] }),
  });

  function drawBox(context, view) {
    const [x0, y0, x1, y1] = box;
    context.strokeStyle = getComputedStyle(root).getPropertyValue("--tpo-model");
    context.lineWidth = 2;
    context.strokeRect(view.x(x0) + 1, view.y(y0) + 1, (x1 - x0) * view.scale - 2, (y1 - y0) * view.scale - 2);
  }

  function follow() {
    const number = Math.max(times.findLastIndex((time) => time <= playhead.get("time_sec") + 1e-6), 0);
    bar.value = number;
    stage.show(number);
  }

  root.append(stage.element, bar);
  const stop = playhead.on(follow);
  follow();
  return () => { stop(); stage.close(); };
}

export default mounted(buildFrames, "Frames", playheadOf);
