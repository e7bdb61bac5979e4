"""Metrics as pure NumPy functions: per module one function per sample (for confidence intervals) and one to a flat dict of floats.

Every share and mean is a fraction in [0, 1]; a sample without a prediction stays in every denominator; no samples at all is an error.
"""

from __future__ import annotations

from tpo_lab.metrics.intervals import Interval, bootstrap, over_seeds, paired_difference
from tpo_lab.metrics.qa import majority_baseline, normalise, qa_correct, qa_scores
from tpo_lab.metrics.region import box_iou, box_set_counts, box_set_scores, rec_ious, rec_scores
from tpo_lab.metrics.routing import RoutingScores, route_correct, routing_scores
from tpo_lab.metrics.temporal import moment_ious, moment_scores, window_iou

__all__ = [
    "Interval",
    "RoutingScores",
    "bootstrap",
    "box_iou",
    "box_set_counts",
    "box_set_scores",
    "majority_baseline",
    "moment_ious",
    "moment_scores",
    "normalise",
    "over_seeds",
    "paired_difference",
    "qa_correct",
    "qa_scores",
    "rec_ious",
    "rec_scores",
    "route_correct",
    "routing_scores",
    "window_iou",
]
