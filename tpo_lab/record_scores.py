"""Scores of records: the measures of every task, with intervals, and by kind of question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tpo_lab import records as of
from tpo_lab.metrics.auroc import auroc
from tpo_lab.metrics.highlights import highlight_scores
from tpo_lab.metrics.intervals import bootstrap, two_samples
from tpo_lab.metrics.moment_retrieval import ranked_scores
from tpo_lab.metrics.qa import qa_scores
from tpo_lab.metrics.region import box_set_scores, rec_scores
from tpo_lab.metrics.routing import routing_scores
from tpo_lab.metrics.temporal import moment_scores
from tpo_lab.metrics.tracking import got10k_scores
from tpo_lab.records import GIVEN, ROUTED, Record

HOW = {"routed": ROUTED, "teacher_forced": GIVEN}


def score(records: Sequence[Record], heads: Iterable[str]) -> dict[str, Any]:
    """Scores of records; pure, so that stored records can be scored again."""
    scores: dict[str, Any] = {}
    for head, score_one in (("region", region_scores), ("temporal", temporal_scores)):
        asked = [record for record in records if record.target.get(head)]
        if asked:
            scores[head] = {name: score_one(asked, how) for name, how in HOW.items()}
    for name, has, score_outlines in (("mask", of.has_mask, mask_scores), ("track", of.has_track, track_scores)):
        asked = [record for record in records if has(record)]
        if asked:
            scores[name] = {way: score_outlines(asked, how) for way, how in HOW.items()}
    pointed = [record for record in records if of.has_track(record) and record.direct]
    if pointed:
        scores["track"]["direct"] = track_scores(pointed, of.DIRECT)
    absent = [record for record in records if of.is_absent(record)]
    conversation = [record for record in records if of.is_plain(record)]
    scores |= {name: plain_scores(some) for name, some in (("qa", conversation), ("absent", absent)) if some}
    if absent:
        scores["absent"] |= found_scores(records)
    pairs = [of.routes(record) for record in records]
    scores["routing"] = routing_scores([pair[0] for pair in pairs], [pair[1] for pair in pairs], tasks=tuple(heads)).as_dict()
    return scores


def plain_scores(records: Sequence[Record]) -> dict[str, Any]:
    """Of records to which no route is right."""
    predicted, expected, kinds = [r.text for r in records], [r.expected_text for r in records], [r.kind for r in records]
    found: dict[str, Any] = qa_scores(predicted, expected, kinds) | _interval("accuracy", of.answered(records))
    return found | {"false_route_rate": sum(bool(record.emitted) for record in records) / len(records)}


def found_scores(records: Sequence[Record], head: str = "temporal") -> dict[str, Any]:
    """AUROC of "what is asked for is there" among the questions put to a head, and its 95% bootstrap interval.

    A question's score is the probability of the head's route as the first token of the answer (`Answer.route_probability`). Positive are
    questions whose true answer asks the head, negative those about what is not there ("It does not happen."). The score is the
    model's before it decides, so the figure does not depend on where the decision is cut, as the accuracy and the false-route rate do.
    The score of the head's best window takes no part: a head is read only behind its route, so an answer without one has none.

    Nothing where one of the two groups is empty or a record holds no probability.
    """
    there = [record for record in records if head in record.expected]
    absent = [record for record in records if of.is_absent(record) and record.task == head]
    if not there or not absent or any(head not in record.route_probability for record in (*there, *absent)):
        return {}
    positive, negative = ([record.route_probability[head] for record in group] for group in (there, absent))
    found: dict[str, Any] = {"auroc": auroc(positive, negative)}
    if min(len(positive), len(negative)) > 1:
        interval = two_samples(positive, negative, auroc)
        found["auroc/interval"] = [interval.low, interval.high]
    return found | {"auroc_there_count": float(len(positive)), "auroc_absent_count": float(len(negative))}


def region_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """Of records with true boxes: one box is scored by IoU, several under "several" as a set.

    Args:
        how: `ROUTED` or `GIVEN`. Where the region head gave no box, the record is a miss.
    """
    single = [record for record in records if of.has_box(record)]
    found: dict[str, Any] = {}
    if single:
        found = _rec_scores(single, how) | _interval("acc@0.5", of.box_ious(single, how) >= 0.5)
        for kind in sorted({record.kind for record in single}):
            found[f"acc@0.5/{kind}"] = _rec_scores([record for record in single if record.kind == kind], how)["acc@0.5"]
    several = [record for record in records if not of.has_box(record)]
    if several:
        truth = [[item["xyxy"] for item in record.target["region"]] for record in several]
        found["several"] = box_set_scores([of.boxes(record, how) for record in several], truth)
    return found


def _rec_scores(records: Sequence[Record], how: str) -> dict[str, float]:
    return rec_scores([of.first_box(record, how) for record in records], [record.target["region"][0]["xyxy"] for record in records])


def mask_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """J, F and their mean as DAVIS has them, means over records; by kind of question; and of records whose object is hidden for a while,
    or comes later, under "hidden".

    Args:
        how: `ROUTED` or `GIVEN`. Where the mask head gave no mask, a frame with the object counts 0.
    """
    found = _mask_scores(records, how) | _interval("j&f", of.mask_qualities(records, how).mean(1))
    for kind in sorted({record.kind for record in records}):
        found[f"j&f/{kind}"] = _mask_scores([record for record in records if record.kind == kind], how)["j&f"]
    hidden = [record for record in records if any(rle is None for rle in record.target["mask"]["rle"])]
    if hidden:
        found["hidden"] = _mask_scores(hidden, how) | {"count": float(len(hidden))}
    return found


def _mask_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    region, contour = of.mask_qualities(records, how).mean(0)
    return {"j": float(region), "f": float(contour), "j&f": float(region + contour) / 2}


def track_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """GOT-10k's AO, SR@0.5 and SR@0.75 over all frames of all records, and "found", the share of hidden frames that are said to be hidden.

    Args:
        how: `ROUTED`, `GIVEN` or `DIRECT`. Where the mask head gave no box, the IoU is 0.
    """
    ious = [of.track_ious(record, how) for record in records]
    found: dict[str, Any] = {name.lower(): value for name, value in got10k_scores(np.concatenate(ious)).items()}
    kinds = sorted({record.kind for record, each in zip(records, ious, strict=True) if len(each)})
    for kind in kinds:
        mine = np.concatenate([each for record, each in zip(records, ious, strict=True) if record.kind == kind])
        found[f"ao/{kind}"] = float(mine.mean())
    found |= _interval("ao", np.asarray([each.mean() for each in ious if len(each)]))
    hidden = [frame.predicted is None for record in records for frame in of.outlines(record, how, "track") if frame.true is None]
    return found | ({"hidden_told": sum(hidden) / len(hidden), "hidden_count": float(len(hidden))} if hidden else {})


def temporal_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """Of records with true windows `moments_scores`, and of those with annotated saliency `saliency_scores`."""
    found: dict[str, Any] = {}
    for has, score_one in ((of.has_moment, moments_scores), (of.has_saliency, saliency_scores)):
        some = [record for record in records if has(record)]
        if some:
            found |= score_one(some, how)
    return found


def moments_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """R1 and mean IoU of the first window, and average precision of all, of records that have true windows.

    Args:
        how: `ROUTED` or `GIVEN`. Where the temporal head gave none, no window is found.
    """
    found: dict[str, Any] = _moment_scores(records, how) | _interval("r1@0.5", of.window_ious(records, how) >= 0.5)
    for kind in sorted({record.kind for record in records}):
        found[f"r1@0.5/{kind}"] = _moment_scores([record for record in records if record.kind == kind], how)["r1@0.5"]
    found |= _ranked_scores(records, how) | _interval("map", of.window_precisions(records, how))
    several = [record for record in records if len(record.target["temporal"]["windows_sec"]) > 1]
    if several:
        found["several"] = _ranked_scores(several, how) | {"count": float(len(several))}
    return found


def _moment_scores(records: Sequence[Record], how: str) -> dict[str, float]:
    return moment_scores([of.windows(record, how) for record in records], of.true_windows(records))


def _ranked_scores(records: Sequence[Record], how: str) -> dict[str, float]:
    return ranked_scores([of.ranked_windows(record, how) for record in records], of.true_windows(records))


def saliency_scores(records: Sequence[Record], how: str) -> dict[str, Any]:
    """HIT@1 and mean average precision of the saliency of records whose saliency is annotated: QVHighlights' HL at "VeryGood".

    A head that gives all clips the same score hits where the first clip is positive, and its average precision is the share of positive
    clips. Where all grades are alike the model can change nothing: both are 1 where every clip is positive, and 0 where none is, which
    "hl_no_positive_rate" counts.

    Args:
        how: `ROUTED` or `GIVEN`. Where the temporal head gave no saliency, both are 0.
    """
    scores: dict[str, Any] = highlight_scores(*of.clip_saliency(records, how))
    return scores | _interval("hl_hit@1", of.saliency_hits(records, how)) | _interval("hl_map", of.saliency_precisions(records, how))


def _interval(name: str, values: Any) -> dict[str, Any]:
    """The 95% bootstrap interval of a mean; a single sample has none."""
    if len(values) < 2:
        return {}
    interval = bootstrap(values.astype(float))
    return {f"{name}/interval": [interval.low, interval.high]}
