"""Official metrics from official prediction files: no model is loaded, and no torch. `score` is the way in."""

from __future__ import annotations

from tpo_lab.scoring.registry import BENCHMARKS, Benchmark, score
from tpo_lab.scoring.report import Counts, Report, Request

__all__ = ["BENCHMARKS", "Benchmark", "Counts", "Report", "Request", "score"]
