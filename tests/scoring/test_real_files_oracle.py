"""The prediction files in the folder of real samples, scored by the library and by the slow oracles of the other tests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scoring.samples import png
from tests.scoring.test_boxes_oracle import over_videos, slow_curves
from tests.scoring.test_masks_oracle import in_percent, slow_jf, statistics
from tests.scoring.test_windows_oracle import iou
from tpo_lab.errors import UsageError
from tpo_lab.metrics.tracking import LASOT_VARIANTS
from tpo_lab.scoring import Request, score


def labels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def radius(mask: np.ndarray) -> int:
    return math.ceil(0.008 * math.hypot(*mask.shape))


def table(path: Path) -> list[list[float]]:
    return [[float(word) for word in line.replace(",", " ").split()] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("variant", LASOT_VARIANTS)
def test_lasot(real: Path, variant: str):
    """Among the sequences are the three with a visible frame whose true box has no size."""
    root = real / "evaluation" / "lasot"
    curves = []
    for path in sorted((root / "pred").glob("*.txt")):
        absent = [int(row[0]) for row in table(root / "annos" / "absent" / path.name)]
        curves.append(slow_curves(table(path), table(root / "annos" / path.name), absent, variant))
    success, precision, norm = (over_videos([each[kind] for each in curves], variant) for kind in range(3))
    metrics = score("lasot", Request(root / "pred", root / "annos", variant=variant)).metrics
    p_norm = sum(norm) / 51 if variant == "got10k" else norm[20]
    expected = {"Success": sum(success) / 21, "P": precision[20], "P_norm": p_norm, "SR@0.5": success[10], "SR@0.75": success[15]}
    assert metrics == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-9)


def test_davis(real: Path):
    root = real / "evaluation" / "davis_jf"
    tracks = []
    for video in sorted((root / "gt").iterdir()):
        paths = sorted(video.glob("*.png"))
        first = labels(paths[0])
        for each in range(1, int(first[first != 255].max()) + 1):
            pairs = [(labels(root / "pred" / video.name / path.name) == each, labels(path) == each) for path in paths[1:-1]]
            tracks.append([slow_jf(*pair, radius(first)) for pair in pairs])
    expected = in_percent(tracks)
    for kind, letter in enumerate("JF"):
        recall, decay = np.mean([statistics([frame[kind] for frame in track]) for track in tracks], axis=0)
        expected |= {f"{letter}-Recall": 100 * recall, f"{letter}-Decay": 100 * decay}
    assert score("davis", Request(root / "pred", root / "gt")).metrics == pytest.approx(expected, abs=1e-9)


def test_mevis_with_a_video_without_predictions(real: Path, tmp_path: Path):
    """The expressions name the objects of the DAVIS masks in brackets; predictions are made of those."""
    root, masks = real / "evaluation" / "mevis", real / "evaluation" / "davis_jf"
    tracks = []
    for name, video in json.loads((root / "meta_expressions.json").read_text())["videos"].items():
        for key, expression in video["expressions"].items():
            if not (masks / "pred" / name).is_dir():
                tracks.append([(0.0, 0.0)])
                continue
            ids, track = json.loads(expression["exp"][expression["exp"].index("[") :]), []
            for frame in video["frames"]:
                pred, true = (np.isin(labels(masks / side / name / f"{frame}.png"), ids) for side in ("pred", "gt"))
                png(tmp_path / name / key / f"{frame}.png", 255 * pred)
                track.append(slow_jf(pred, true, radius(true)))
            tracks.append(track)
    assert score("mevis", Request(tmp_path, root, allow_missing=True)).metrics == pytest.approx(in_percent(tracks), abs=1e-9)
    with pytest.raises(UsageError, match="got 1 missing: ghost/0"):
        score("mevis", Request(tmp_path, root))


def test_charades_sta_in_timechats_form(real: Path):
    root = real / "evaluation" / "charades_sta"
    rows = json.loads((root / "timechat_tvg_example_gt.json").read_text())["annotations"]
    true = {str(row["id"]): row["timestamp"] for row in rows}
    made = json.loads((root / "timechat_tvg_example_pred.json").read_text())
    ious = [iou(row["timestamp"][0], true[key]) if row["timestamp"] else 0 for key, row in made.items()]
    request = Request(root / "timechat_tvg_example_pred.json", root / "timechat_tvg_example_gt.json", allow_missing=True)
    report = score("charades-sta", request)
    expected = {f"R1@{t}": 100 * np.mean([float(each) >= t for each in ious]) for t in (0.3, 0.5, 0.7)}
    assert report.metrics == pytest.approx({**expected, "mIoU": 100 * float(sum(ious) / len(ious))}, abs=1e-9)
    assert report.options["missing"] == "left out"


@pytest.mark.parametrize("name", ["cgdetr_best_hl", "momentdetr_ckpt"])
def test_qvhighlights_recall(real: Path, name: str):
    truth = [json.loads(line) for line in (real / "qvhighlights" / "highlight_val_release.jsonl").read_text().splitlines()]
    pred = real / "evaluation" / "qvhighlights" / f"{name}_val_preds.jsonl"
    made = {row["qid"]: row["pred_relevant_windows"] for row in map(json.loads, pred.read_text().splitlines())}
    ious = [max(float(iou(made[row["qid"]][0][:2], window)) for window in row["relevant_windows"]) for row in truth]
    metrics = score("qvhighlights", Request(pred, real / "qvhighlights" / "highlight_val_release.jsonl")).metrics
    expected = {f"MR-full-R1@{t}": 100 * np.mean([each >= t for each in ious]) for t in (0.3, 0.5, 0.7)}
    found = {key: metrics[key] for key in [*expected, "MR-full-mIoU"]}
    assert found == pytest.approx({**expected, "MR-full-mIoU": 100 * np.mean(ious)}, abs=0.00501)
