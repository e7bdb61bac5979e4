"""Official annotation formats as samples, and predictions in the forms that official evaluations take. One line here adds a format."""

from __future__ import annotations

from tpo_lab.datasets.formats.activitynet import ACTIVITYNET
from tpo_lab.datasets.formats.as_v2 import AS_V2
from tpo_lab.datasets.formats.charades import CHARADES
from tpo_lab.datasets.formats.davis import DAVIS
from tpo_lab.datasets.formats.didemo import DIDEMO
from tpo_lab.datasets.formats.format import Dropped, Format, Reading, Source
from tpo_lab.datasets.formats.got10k import GOT10K
from tpo_lab.datasets.formats.hirest import HIREST
from tpo_lab.datasets.formats.lasot import LASOT
from tpo_lab.datasets.formats.llava import LLAVA_HOUND, SHAREGPT4V, SHAREGPT_4O
from tpo_lab.datasets.formats.mevis import MEVIS
from tpo_lab.datasets.formats.mlvu import MLVU
from tpo_lab.datasets.formats.mmiu import MMIU
from tpo_lab.datasets.formats.mvbench import MVBENCH
from tpo_lab.datasets.formats.nextgqa import NEXTGQA
from tpo_lab.datasets.formats.nlq import NLQ
from tpo_lab.datasets.formats.queryd import QUERYD
from tpo_lab.datasets.formats.qvhighlights import QVHIGHLIGHTS
from tpo_lab.datasets.formats.ref_youtube_vos import REF_YOUTUBE_VOS
from tpo_lab.datasets.formats.refcoco import REFCOCO
from tpo_lab.datasets.formats.refcoco_mdetr import REFCOCO_MDETR
from tpo_lab.datasets.formats.sav import SAV
from tpo_lab.datasets.formats.seed_bench_2 import SEED_BENCH_2
from tpo_lab.datasets.formats.tacos import TACOS
from tpo_lab.datasets.formats.timeit import TIMEIT
from tpo_lab.datasets.formats.video_mme import VIDEO_MME
from tpo_lab.datasets.formats.videochat2_it import VIDEOCHAT2_IT
from tpo_lab.datasets.formats.visual_genome import VISUAL_GENOME
from tpo_lab.datasets.formats.youcook2 import YOUCOOK2
from tpo_lab.errors import unknown_name

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        QVHIGHLIGHTS,
        CHARADES,
        ACTIVITYNET,
        TACOS,
        DIDEMO,
        QUERYD,
        HIREST,
        NLQ,
        YOUCOOK2,
        TIMEIT,
        DAVIS,
        GOT10K,
        LASOT,
        MEVIS,
        REF_YOUTUBE_VOS,
        SAV,
        AS_V2,
        REFCOCO,
        REFCOCO_MDETR,
        VISUAL_GENOME,
        VIDEOCHAT2_IT,
        SHAREGPT4V,
        SHAREGPT_4O,
        LLAVA_HOUND,
        NEXTGQA,
        MVBENCH,
        VIDEO_MME,
        MLVU,
        MMIU,
        SEED_BENCH_2,
    )
}


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none; the closest names are in the hint.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    return FORMATS[name]


__all__ = ["FORMATS", "Dropped", "Format", "Reading", "Source", "format_named"]
