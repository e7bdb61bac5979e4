"""The answers that need no video: for every question of a kind the same one, the best that the training samples allow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.errors import UsageError
from tpo_lab.metrics.temporal import window_iou
from tpo_lab.records import Record
from tpo_lab.sample import Sample

Floats = NDArray[np.float64]
PARTS = 32
"""Of a clip: a constant window begins and ends at multiples of 1 / PARTS of it, and the constant saliency has one value for each."""
HIT_IOU = 0.5
"""The constant window is the one that is right most often at this IoU."""


def constant_records(records: Sequence[Record], tested: Sequence[Sample], training: Sequence[Sample]) -> list[Record]:
    """Records of a model that never looks: the routes are right, and the answers depend on the kind of the question alone.

    Windows and saliency are constant in shares of the clip, boxes in pixels (so the frames must be of one size). For each kind of
    question: the window that meets most training windows at IoU 0.5, the mean saliency, the median box, and the commonest answer
    text. A model whose figures do not exceed these has learned how annotations are distributed, not to see. A kind without training
    samples takes what fits all samples.

    Args:
        records: of an evaluation of `tested`.
        tested: the samples of the records, in any order.
        training: samples from which the constants are taken, never those that are tested.

    Raises:
        UsageError: a record without its sample, or a clip whose length no sample says.
    """
    samples = {sample.id: sample for sample in tested}
    windows: dict[str, list[Floats]] = defaultdict(list)
    curves: dict[str, list[Floats]] = defaultdict(list)
    boxes: dict[str, list[Floats]] = defaultdict(list)
    texts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in training:
        for kind in (_kind(sample), ""):
            if sample.targets.temporal is not None and sample.targets.temporal.windows_sec:
                windows[kind].append(np.asarray(sample.targets.temporal.windows_sec) / _duration(sample))
            if sample.targets.temporal is not None and sample.targets.temporal.saliency is not None:
                curves[kind].append(_curve(sample))
            boxes[kind] += [np.asarray(item.xyxy) for item in (sample.targets.region or ())[:1]]
            if sample.conversation[-1].role == "assistant":
                texts[kind][sample.conversation[-1].text] += 1
    constants: dict[str, dict[str, Any]] = {}
    found = []
    for record in records:
        if record.id not in samples:
            raise UsageError("tested", expected=f"the sample {record.id} of a record", got=f"{len(samples)} others")
        kind = record.kind if record.kind in texts else ""
        if kind not in constants:
            constants[kind] = {
                "window": _best_window(windows[kind] or windows[""]),
                "curve": np.mean(curves[kind] or curves[""] or [np.zeros(PARTS)], axis=0),
                "box": np.median(boxes[kind] or boxes[""] or [np.zeros(4)], axis=0).tolist(),
                "text": texts[kind].most_common(1)[0][0] if texts[kind] else "",
            }
        found.append(_answered(record, samples[record.id], constants[kind]))
    return found


def _answered(record: Record, sample: Sample, constant: dict[str, Any]) -> Record:
    answer: dict[str, Any] = {}
    if "temporal" in record.target:
        duration_sec = _duration(sample)
        window = [edge * duration_sec for edge in constant["window"]]
        times = (np.arange(PARTS) + 0.5) / PARTS * duration_sec
        curve = np.stack([times, constant["curve"]], axis=1).tolist()
        answer["temporal"] = {"windows_sec": [window], "scores": [1.0], "saliency": curve}
    if record.target.get("region"):
        answer["region"] = {"boxes_xyxy": [constant["box"]] * len(record.target["region"])}
    return replace(record, text=constant["text"], emitted=record.expected, routed=answer, forced=answer)


def _kind(sample: Sample) -> str:
    return str(sample.meta.get("kind", ""))


def _duration(sample: Sample) -> float:
    if sample.media.duration_sec is None:
        raise UsageError(
            f"sample {sample.id}: media.end_sec", expected="the clip's end, since windows are compared as shares of it", got=None
        )
    return sample.media.duration_sec


def _curve(sample: Sample) -> Floats:
    """The annotated saliency at the middles of the parts of the clip [part]."""
    assert sample.targets.temporal is not None and sample.targets.temporal.saliency is not None
    saliency = sample.targets.temporal.saliency
    places = ((np.arange(PARTS) + 0.5) / PARTS * _duration(sample) / saliency.step_sec).astype(int)
    curve: Floats = np.asarray(saliency.scores, dtype=float)[places.clip(max=len(saliency.scores) - 1)]
    return curve


def _best_window(windows: Sequence[Floats]) -> list[float]:
    """The window (start, end), in shares of the clip, that is right most often; the nearer one where several are."""
    if not windows:
        return [0.0, 1.0]
    edges = np.array([(start, end) for start in range(PARTS) for end in range(start + 1, PARTS + 1)]) / PARTS
    counts = np.array([len(each) for each in windows])
    ious = np.maximum.reduceat(window_iou(edges, np.concatenate(windows)), np.cumsum(counts) - counts, axis=1)
    best: list[float] = edges[np.lexsort((ious.mean(1), (ious >= HIT_IOU).mean(1)))[-1]].tolist()
    return best
