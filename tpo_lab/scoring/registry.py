"""Every benchmark that can be scored, one line each, and the function that scores one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.metrics.tracking import LASOT_VARIANTS
from tpo_lab.scoring.choices import scorer
from tpo_lab.scoring.davis import DAVIS_TASKS, score_davis
from tpo_lab.scoring.didemo import score_didemo
from tpo_lab.scoring.expressions import score_mevis, score_ref_youtube_vos
from tpo_lab.scoring.moments import score_hirest, score_moments
from tpo_lab.scoring.nextgqa import score_nextgqa
from tpo_lab.scoring.nlq import score_nlq
from tpo_lab.scoring.qvhighlights import score_qvhighlights
from tpo_lab.scoring.refcoco import score_refcoco
from tpo_lab.scoring.refseg import score_refseg
from tpo_lab.scoring.report import Report, Request, Scored
from tpo_lab.scoring.sav import score_sav
from tpo_lab.scoring.tracking import score_got10k, score_lasot


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is scored; the first of its variants is the default."""

    score: Callable[[Request], Scored]
    variants: tuple[str, ...] = ("official",)


BENCHMARKS = {
    "qvhighlights": Benchmark(score_qvhighlights),
    "charades-sta": Benchmark(score_moments),
    "activitynet": Benchmark(score_moments),
    "tacos": Benchmark(score_moments),
    "hirest": Benchmark(score_hirest),
    "nlq": Benchmark(score_nlq),
    "didemo": Benchmark(score_didemo),
    "refcoco": Benchmark(score_refcoco, ("official", "strict")),
    "refseg": Benchmark(score_refseg, ("official", "binary")),
    "davis": Benchmark(score_davis, DAVIS_TASKS),
    "sav": Benchmark(score_sav, ("official", "all-frames")),
    "mevis": Benchmark(score_mevis),
    "ref-youtube-vos": Benchmark(score_ref_youtube_vos),
    "nextgqa": Benchmark(score_nextgqa, ("official", "gaussian")),
    "mvbench": Benchmark(scorer("mvbench"), ("official", "strict")),
    "video-mme": Benchmark(scorer("video-mme"), ("official", "strict")),
    "mlvu": Benchmark(scorer("mlvu"), ("official", "strict")),
    "mmiu": Benchmark(scorer("mmiu"), ("official", "strict")),
    "seed-bench-2": Benchmark(scorer("seed-bench-2"), ("official", "strict")),
    "lasot": Benchmark(score_lasot, LASOT_VARIANTS),
    "got10k": Benchmark(score_got10k),
}


def score(benchmark: str, request: Request) -> Report:
    """Scores prediction files by the official rules of a benchmark.

    Args:
        benchmark: one of `BENCHMARKS`.
        request: files and options; an empty variant is the benchmark's first.

    Raises:
        UsageError: an unknown benchmark or variant, or a file with a problem; the message names file, line or key, field and value.
    """
    if benchmark not in BENCHMARKS:
        raise unknown_name("benchmark", benchmark, BENCHMARKS)
    known = BENCHMARKS[benchmark]
    variant = request.variant or known.variants[0]
    if variant not in known.variants:
        raise unknown_name("--variant", variant, known.variants)
    for name, path in (("--pred", request.pred), ("--gt", request.gt), ("--pred-qa", request.pred_qa), ("--gt-qa", request.gt_qa)):
        if path is not None and not path.exists():
            raise UsageError(name, expected="an existing file or folder", got=str(path))
    scored = known.score(replace(request, variant=variant))
    detail: dict[str, Any] = dict(scored.detail)
    if request.bootstrap:
        intervals = {name: each.interval(request.bootstrap) for name, each in scored.measures.items()}
        detail["intervals"] = {"level": 0.95, **{name: ends for name, ends in intervals.items() if ends is not None}}
    rules = dict(scored.rules)
    if request.allow_missing and not any(name.startswith("missing") for name in rules):
        rules["missing"] = "left out"
    options = {**rules, "allow_missing": request.allow_missing, "bootstrap": request.bootstrap, "workers": request.workers}
    metrics = {name: each.percent() for name, each in scored.measures.items()}
    return Report(benchmark, variant, options, scored.counts, metrics, detail)
