"""What holds for every benchmark: perfect is 100, order does not matter, ids that do not fit are named, and worse is never better."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scoring.samples import COUNT, NUMBERS, SAMPLES, Sample, frames, jsonl
from tpo_lab.errors import UsageError
from tpo_lab.scoring import BENCHMARKS, score

VARIANTS = [(benchmark, variant) for benchmark, known in BENCHMARKS.items() for variant in known.variants]
NAMES = {
    **{name: ["R1@0.3", "R1@0.5", "R1@0.7", "mIoU"] for name in ("charades-sta", "activitynet", "tacos", "hirest")},
    "nlq": ["R1@0.3", "R5@0.3", "R1@0.5", "R5@0.5", "mIoU"],
    "didemo": ["rank@1", "rank@5", "mIoU"],
    "refcoco": ["Acc@0.5", "mIoU"],
    "refseg": ["gIoU", "cIoU"],
    "davis": ["J&F", "J", "F", "J-Recall", "J-Decay", "F-Recall", "F-Decay"],
    **{name: ["J&F", "J", "F"] for name in ("sav", "mevis", "ref-youtube-vos")},
    "lasot": ["Success", "P", "P_norm", "SR@0.5", "SR@0.75"],
    "got10k": ["AO", "SR@0.5", "SR@0.75"],
    "nextgqa": ["Acc@QA", "Acc@GQA", "mIoP", "IoP@0.3", "IoP@0.5", "mIoU", "IoU@0.3", "IoU@0.5"],
    **{name: ["Avg", "task 0", "task 1", "task 2"] for name in ("mvbench", "video-mme", "mlvu", "mmiu", "seed-bench-2")},
}
MR = ["R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP", "mAP@0.5", "mAP@0.75"]
NAMES["qvhighlights"] = [
    *(f"MR-full-{name}" for name in MR),
    *(f"MR-{part}-mAP" for part in ("long", "middle", "short")),
    *(f"HL-min-{level}-{name}" for level in ("Fair", "Good", "VeryGood") for name in ("mAP", "Hit1")),
]


def test_every_benchmark_has_a_sample_and_the_agreed_names():
    assert SAMPLES.keys() == BENCHMARKS.keys() == NAMES.keys()


def written(benchmark: str, root: Path, numbers=NUMBERS) -> Sample:
    sample = SAMPLES[benchmark]
    sample.truth(root), sample.predict(root, numbers)
    return sample


def perfect(name: str) -> float:
    # at IoU > 1 not even the true box is a hit, so 20 of 21 thresholds are met
    return {"J-Decay": 0.0, "F-Decay": 0.0, "Success": 100 * 20 / 21}.get(name, 100.0)


@pytest.mark.parametrize(("benchmark", "variant"), VARIANTS)
def test_perfect_predictions_score_100_under_the_agreed_names(tmp_path: Path, benchmark: str, variant: str):
    sample = written(benchmark, tmp_path)
    if variant == "gaussian":
        shares = {key: [end / 80 for end in span] for key, span in json.loads((tmp_path / "pred.json").read_text()).items()}
        (tmp_path / "pred.json").write_text(json.dumps(shares))
    document = score(benchmark, sample.request(tmp_path, variant=variant)).to_dict()
    assert sorted(document["metrics"]) == sorted(NAMES[benchmark])
    expected = {name: perfect(name) for name in NAMES[benchmark]}
    # IoU of masks in refseg is divided by a union that 1e-5 is added to, that of HiREST by one with 1e-8
    assert document["metrics"] == pytest.approx(expected, abs=1e-4 if benchmark == "refseg" else 1e-6)
    assert document["counts"] == {"predictions": COUNT, "ground_truth": COUNT, "missing": 0, "extra": 0, "unparsable": 0}
    assert list(document) == ["benchmark", "variant", "options", "counts", "metrics", "detail"]
    assert (document["benchmark"], document["variant"]) == (benchmark, variant)
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_the_order_of_records_does_not_matter(tmp_path: Path, benchmark: str):
    sample = written(benchmark, tmp_path)
    if (tmp_path / sample.pred).is_file():
        spoil(tmp_path / sample.pred, 4)
        expected = score(benchmark, sample.request(tmp_path)).to_dict()
        shuffle(tmp_path / sample.pred)
        # the truth of a split in another order too
        shuffle(tmp_path / sample.gt)
    else:
        expected = score(benchmark, sample.request(tmp_path)).to_dict()
        (tmp_path / "again").mkdir()
        sample.truth(tmp_path / "again"), sample.predict(tmp_path / "again", NUMBERS[::-1])
        tmp_path = tmp_path / "again"
    found = score(benchmark, sample.request(tmp_path)).to_dict()
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-9) and found["counts"] == expected["counts"]


def shuffle(path: Path) -> None:
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines()
        random.Random(3).shuffle(lines)
        path.write_text("\n".join(lines))
        return
    document = json.loads(path.read_text())
    entries = list(document.items() if isinstance(document, dict) else document)
    random.Random(3).shuffle(entries)
    path.write_text(json.dumps(dict(entries) if isinstance(document, dict) else entries))


def spoil(path: Path, count: int) -> None:
    """The first predictions become wrong."""
    wrong = {
        "pred_relevant_windows": [[58, 60, 0.5]],
        "pred_saliency_scores": [0.0] * 29 + [1.0],
        "segments": [[first, last] for first in range(5, -1, -1) for last in range(5, first - 1, -1)],
        "pred_bbox": [600, 600, 601, 601],
        "pred_mask": None,
    }
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        jsonl(path, [{name: wrong.get(name, each) if n < count else each for name, each in row.items()} for n, row in enumerate(rows)])
        return
    document = json.loads(path.read_text())
    spoilt = {key: ([79, 80] if isinstance(each, list) else "E") if n < count else each for n, (key, each) in enumerate(document.items())}
    path.write_text(json.dumps(spoilt))


@pytest.mark.parametrize("benchmark", [name for name, sample in SAMPLES.items() if sample.pred != "pred"])
def test_more_wrong_predictions_never_score_better(tmp_path: Path, benchmark: str):
    last = None
    for count in (0, 1, 5, COUNT):
        sample = written(benchmark, tmp_path)
        spoil(tmp_path / sample.pred, count)
        found = score(benchmark, sample.request(tmp_path)).metrics
        assert last is None or all(value <= last[name] + 1e-9 for name, value in found.items())
        last = found
    assert last is not None and min(last.values()) < 50


@pytest.mark.parametrize("benchmark", [name for name, sample in SAMPLES.items() if sample.pred == "pred"])
def test_predictions_of_one_record_for_another_never_score_better(tmp_path: Path, benchmark: str):
    sample = written(benchmark, tmp_path)
    best = score(benchmark, sample.request(tmp_path)).metrics
    first, second = ((tmp_path / "pred" / f"k00{end}", tmp_path / "pred" / f"k01{end}") for end in ("", ".txt"))
    for one, other in (first, second):
        if one.exists():
            one.rename(tmp_path / "held"), other.rename(one), (tmp_path / "held").rename(other)
    found = score(benchmark, sample.request(tmp_path)).metrics
    assert all(found[name] <= best[name] for name in found if "Decay" not in name) and found != best


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_missing_and_extra_ids_are_named_ten_of_them_and_counted(tmp_path: Path, benchmark: str):
    sample = SAMPLES[benchmark]
    (tmp_path / "few").mkdir(), (tmp_path / "many").mkdir()
    few, many = written(benchmark, tmp_path / "few", [5]), written(benchmark, tmp_path / "many", range(25))
    absent = [sample.key(number) for number in NUMBERS if number != 5]
    with pytest.raises(UsageError) as error:
        score(benchmark, few.request(tmp_path / "few"))
    assert f"got 12 missing: {', '.join(absent[:10])} and 2 more" in str(error.value) and "--allow-missing" in str(error.value)
    with pytest.raises(UsageError) as error:
        score(benchmark, many.request(tmp_path / "many"))
    assert f"got 12 extra: {', '.join(sample.key(number) for number in range(13, 23))} and 2 more" in str(error.value)


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_missing_and_extra_ids_are_scored_if_allowed_and_it_is_said(tmp_path: Path, benchmark: str):
    sample = written(benchmark, tmp_path, [5, 6, 7, 13])
    document = score(benchmark, sample.request(tmp_path, allow_missing=True)).to_dict()
    assert {name: document["counts"][name] for name in ("predictions", "ground_truth", "missing", "extra")} == {
        "predictions": 4,
        "ground_truth": COUNT,
        "missing": 10,
        "extra": 1,
    }
    assert document["options"]["allow_missing"] is True
    assert any(name.startswith("missing") for name in document["options"])
    share = 3 / 13 if benchmark in ("mevis", "ref-youtube-vos") else 1.0
    expected = {name: share * perfect(name) for name in document["metrics"]} | ({"Acc@QA": 100.0} if benchmark == "nextgqa" else {})
    assert document["metrics"] == pytest.approx(expected, abs=1e-4)


def test_answers_of_nextgqa_that_are_missing_are_named_ten_of_them(tmp_path: Path):
    sample = written("nextgqa", tmp_path)
    (tmp_path / "qa.json").write_text(json.dumps({"9_5": {"answer": 1, "prediction": 1}}))
    with pytest.raises(UsageError, match=r"qa.json: .*split.csv, got 12 missing: 9_0, 9_1, 9_2, 9_3, 9_4, 9_6, .* 9_10 and 2 more"):
        score("nextgqa", sample.request(tmp_path))
    found = score("nextgqa", sample.request(tmp_path, allow_missing=True)).metrics
    assert (found["Acc@QA"], found["Acc@GQA"]) == pytest.approx((100 / 13, 100 / 13))
    written("nextgqa", tmp_path)
    lines = (tmp_path / "split.csv").read_text().splitlines()
    (tmp_path / "split.csv").write_text("\n".join(lines[:3]))
    with pytest.raises(UsageError, match=r"split.csv: expected a row for every question of gt.json, got 11 missing: 9_2"):
        score("nextgqa", sample.request(tmp_path, allow_missing=True))


@pytest.mark.parametrize("benchmark", ["davis", "lasot", "got10k"])
def test_workers_change_nothing(tmp_path: Path, benchmark: str):
    sample = written(benchmark, tmp_path)
    heard: list[tuple[int, int]] = []
    one = score(benchmark, sample.request(tmp_path)).metrics
    two = score(benchmark, sample.request(tmp_path, workers=2, progress=lambda done, total: heard.append((done, total)))).metrics
    assert two == one and heard[-1] == (COUNT, COUNT)


@pytest.mark.parametrize("benchmark", ["davis", "sav"])
def test_intervals_of_objects_draw_videos(tmp_path: Path, benchmark: str):
    # one video: there is nothing to draw, however many objects it has
    for side in ("gt", "pred"):
        frames(tmp_path / side / "a", 0)
    sample = SAMPLES[benchmark]
    assert score(benchmark, sample.request(tmp_path, bootstrap=5)).to_dict()["detail"]["intervals"] == {"level": 0.95}
    for side in ("gt", "pred"):
        frames(tmp_path / side / "b", 1)
    found = score(benchmark, sample.request(tmp_path, bootstrap=5)).to_dict()["detail"]["intervals"]
    assert found["J&F"] == [100.0, 100.0]


def test_no_benchmark_loads_torch_or_a_model(tmp_path: Path):
    for benchmark in SAMPLES:
        written(benchmark, tmp_path / benchmark)
    code = """
import sys
from pathlib import Path
from tests.scoring.samples import SAMPLES
from tpo_lab.scoring import score
for benchmark, sample in SAMPLES.items():
    score(benchmark, sample.request(Path(sys.argv[1]) / benchmark))
print(sorted({"torch", "transformers", "scipy", "pandas"} & sys.modules.keys()))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
