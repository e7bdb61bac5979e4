"""Thirteen records of every benchmark on disk: a ground truth, and predictions of any of its ids, which are perfect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tpo_lab.scoring import Request

COUNT = 13
NUMBERS = range(COUNT)
SIZE = (8, 11)
MOMENTS = [[first, last] for first in range(6) for last in range(first, 6)]


@dataclass(frozen=True)
class Sample:
    """One benchmark.

    Attributes:
        truth: writes the ground truth of all numbers into a folder.
        predict: writes perfect predictions of these numbers, in this order; numbers from 13 on have no ground truth.
        gt: name of the ground truth in the folder.
        pred: name of the predictions in the folder.
        key: number to the id, as an error names it.
        others: further files of the request, by option.
    """

    truth: Callable[[Path], None]
    predict: Callable[[Path, Sequence[int]], None]
    gt: str = "gt.jsonl"
    pred: str = "pred.jsonl"
    key: Callable[[int], str] = str
    others: tuple[tuple[str, str], ...] = ()

    def request(self, root: Path, **options: object) -> Request:
        return Request(root / self.pred, root / self.gt, **{name: root / file for name, file in self.others}, **options)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def jsonl(path: Path, rows: Sequence[dict]) -> Path:
    return text(path, "".join(json.dumps(row) + "\n" for row in rows))


def png(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, dtype=np.uint8)).save(path)
    return path


def runs(mask: np.ndarray) -> dict:
    """COCO run lengths as a list: column by column, background first."""
    counts, last = [0], False
    for pixel in np.asarray(mask, dtype=bool).T.ravel().tolist():
        if pixel != last:
            counts.append(0)
        counts[-1] += 1
        last = pixel
    return {"size": list(mask.shape), "counts": counts}


def window(number: int) -> list[int]:
    return [2 * (number % 5), 2 * (number % 5) + 4 + 8 * (number % 5)]


def mask(number: int) -> np.ndarray:
    made = np.zeros(SIZE, dtype=np.uint8)
    made[1 + number % 3 : 5 + number % 3, 2 + number % 4 : 6 + number % 4] = 1
    return made


def box(number: int) -> list[int]:
    return [10 + number, 20, 7, 9]


def frames(folder: Path, number: int) -> None:
    for place in range(3):
        png(folder / f"{place:05d}.png", mask(number))


def _qvhighlights(root: Path) -> None:
    rows = []
    for number in NUMBERS:
        start, end = window(number)
        clips = list(range(start // 2, end // 2))
        levels = {"relevant_clip_ids": clips, "saliency_scores": [[4, 4, 4]] * len(clips)}
        rows.append({"qid": number, "vid": "v", "query": "q", "duration": 60, "relevant_windows": [window(number)], **levels})
    jsonl(root / "gt.jsonl", rows)


def _submit(root: Path, numbers: Sequence[int]) -> None:
    rows = []
    for number in numbers:
        start, end = window(number)
        scores = [float(start <= 2 * clip < end) for clip in range(30)]
        rows.append({"qid": number, "pred_relevant_windows": [[start, end, 0.5]], "pred_saliency_scores": scores})
    jsonl(root / "pred.jsonl", rows)


def _rank(root: Path, numbers: Sequence[int]) -> None:
    ranked = {number: sorted(MOMENTS, key=lambda moment, number=number: moment != MOMENTS[number % 21]) for number in numbers}
    jsonl(root / "pred.jsonl", [{"annotation_id": number, "segments": each} for number, each in ranked.items()])


def _corners(number: int) -> list[int]:
    x, y, w, h = box(number)
    return [x, y, x + w, y + h]


def _folders(name: str) -> Callable[[Path, Sequence[int]], None]:
    def write(root: Path, numbers: Sequence[int]) -> None:
        for number in numbers:
            frames(root / name / f"k{number:02d}", number)

    return write


def _expressions(root: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        frames(root / "pred" / f"k{number:02d}" / "0", number)


def _meta(root: Path, expression: Callable[[int], dict]) -> None:
    names = [f"{place:05d}" for place in range(3)]
    videos = {f"k{number:02d}": {"frames": names, "expressions": {"0": {"exp": "x", **expression(number)}}} for number in NUMBERS}
    text(root / "gt" / "meta_expressions.json", json.dumps({"videos": videos}))


def _mevis(root: Path) -> None:
    _meta(root, lambda number: {"anno_id": [number]})
    text(root / "gt" / "mask_dict.json", json.dumps({str(number): [runs(mask(number))] * 3 for number in NUMBERS}))


def _ref_youtube_vos(root: Path) -> None:
    _meta(root, lambda number: {"obj_id": "1"})
    _folders("gt/Annotations")(root, NUMBERS)


def _boxes(path: Path, number: int, frame_count: int = 4) -> None:
    text(path, f"{','.join(map(str, box(number)))}\n" * frame_count)


def _lasot(root: Path) -> None:
    for number in NUMBERS:
        _boxes(root / "gt" / f"k{number:02d}.txt", number), text(root / "gt" / "absent" / f"k{number:02d}.txt", "0\n" * 4)


def _tracks(root: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        _boxes(root / "pred" / f"k{number:02d}.txt", number)


def _got10k(root: Path) -> None:
    for number in NUMBERS:
        folder = root / "gt" / f"k{number:02d}"
        _boxes(folder / "groundtruth.txt", number), text(folder / "cover.label", "8\n" * 4)
        text(folder / "meta_info.ini", "[METAINFO]\nresolution: (640, 480)\n")


def _nextgqa(root: Path) -> None:
    text(root / "gt.json", json.dumps({"9": {"duration": 80, "location": {str(number): [window(number)] for number in NUMBERS}}}))
    rows = [f"9,why,yes,{number},CW,no,yes\n" for number in NUMBERS]
    text(root / "split.csv", "video_id,question,answer,qid,type,a0,a1\n" + "".join(rows))
    text(root / "qa.json", json.dumps({f"9_{number}": {"answer": 1, "prediction": 1} for number in NUMBERS}))


def _answers(root: Path, numbers: Sequence[int]) -> None:
    text(root / "pred.json", json.dumps({str(number): "ABCD"[number % 4] for number in numbers}))


def _questions(root: Path) -> None:
    rows = [{"question_id": number, "task_type": f"task {number % 3}", "answer": "ABCD"[number % 4]} for number in NUMBERS]
    text(root / "gt.json", json.dumps(rows))


def _rows(name: str, row: Callable[[int], dict]) -> Callable[..., None]:
    return lambda root, numbers=NUMBERS: jsonl(root / name, [row(number) for number in numbers]) and None


def _named(number: int) -> str:
    return f"k{number:02d}"


_MOMENTS = Sample(_rows("gt.jsonl", lambda n: {"qid": n, "relevant_windows": [window(n)]}), _submit)
_CHOICES = Sample(_questions, _answers, gt="gt.json", pred="pred.json")
SAMPLES = {
    "qvhighlights": Sample(_qvhighlights, _submit),
    **dict.fromkeys(("charades-sta", "activitynet", "tacos", "hirest", "nlq"), _MOMENTS),
    "didemo": Sample(_rows("gt.jsonl", lambda n: {"annotation_id": n, "times": [MOMENTS[n % 21]] * 4}), _rank),
    "refcoco": Sample(
        _rows("gt.jsonl", lambda n: {"id": n, "bbox": _corners(n)}), _rows("pred.jsonl", lambda n: {"id": n, "pred_bbox": _corners(n)})
    ),
    "refseg": Sample(
        _rows("gt.jsonl", lambda n: {"id": n, "mask": runs(mask(n))}), _rows("pred.jsonl", lambda n: {"id": n, "pred_mask": runs(mask(n))})
    ),
    **dict.fromkeys(("davis", "sav"), Sample(lambda root: _folders("gt")(root, NUMBERS), _folders("pred"), "gt", "pred", _named)),
    "mevis": Sample(_mevis, _expressions, "gt", "pred", lambda number: f"{_named(number)}/0"),
    "ref-youtube-vos": Sample(_ref_youtube_vos, _expressions, "gt", "pred", lambda number: f"{_named(number)}/0"),
    "lasot": Sample(_lasot, _tracks, "gt", "pred", _named),
    "got10k": Sample(_got10k, _tracks, "gt", "pred", _named),
    "nextgqa": Sample(
        _nextgqa,
        lambda root, numbers: text(root / "pred.json", json.dumps({f"9_{number}": window(number) for number in numbers})) and None,
        "gt.json",
        "pred.json",
        lambda number: f"9_{number}",
        (("pred_qa", "qa.json"), ("gt_qa", "split.csv")),
    ),
    **dict.fromkeys(("mvbench", "video-mme", "mlvu", "mmiu", "seed-bench-2"), _CHOICES),
}
