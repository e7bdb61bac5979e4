"""Scores of masks from files, against slow oracles that dilate images and walk over frames: DAVIS, SA-V, MeViS, Ref-YouTube-VOS, RefSeg."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.samples import jsonl, png, runs, text
from tpo_lab.scoring import Report, Request, score

SIZE = (76, 101)
RADIUS = 2  # 0.008 of a diagonal of 126.4, rounded up
seeds = st.integers(0, 10**6)


def blobs(generator: np.random.Generator, count: int, *, void: bool = False) -> np.ndarray:
    """Labels with up to `count` rectangles, some of them missing, over each other or cut by the border."""
    labels = np.zeros(SIZE, dtype=np.uint8)
    for each in range(1, count + 1):
        if generator.random() < 0.8:
            top, left = generator.integers(-6, SIZE[0] - 10), generator.integers(-6, SIZE[1] - 10)
            height, width = generator.integers(1, 40, 2)
            labels[max(top, 0) : top + height, max(left, 0) : left + width] = each
    if void and generator.random() < 0.6:
        labels[generator.integers(60) :, 40:55] = 255
    return labels


def shaken(generator: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """The labels moved by some pixels, as a tracker finds them; sometimes an object is lost."""
    moved = np.roll(labels, generator.integers(-3, 4, 2), axis=(0, 1))
    return np.where(moved == generator.integers(1, 9), 0, moved).astype(np.uint8)


def slow_j(pred: np.ndarray, true: np.ndarray) -> float:
    return (pred & true).sum() / (pred | true).sum() if (pred | true).any() else 1.0


def edge(mask: np.ndarray) -> np.ndarray:
    """Where a mask differs from itself one pixel on, to the right, below, or both; beyond the frame it goes on as it ends."""
    right, below = np.pad(mask, ((0, 0), (0, 1)), "edge")[:, 1:], np.pad(mask, ((0, 1), (0, 0)), "edge")[1:]
    both = np.pad(mask, ((0, 1), (0, 1)), "edge")[1:, 1:]
    return (mask != right) | (mask != below) | (mask != both)


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    padded, grown = np.pad(mask, radius), np.zeros_like(mask)
    for down, right in itertools.product(range(-radius, radius + 1), repeat=2):
        if down**2 + right**2 <= radius**2:
            top, left = radius + down, radius + right
            grown |= padded[top : top + mask.shape[0], left : left + mask.shape[1]]
    return grown


def slow_f(pred: np.ndarray, true: np.ndarray, radius: int) -> float:
    ours, theirs = edge(pred), edge(true)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision, recall = (ours & dilated(theirs, radius)).sum() / ours.sum(), (theirs & dilated(ours, radius)).sum() / theirs.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_jf(pred: np.ndarray, true: np.ndarray, radius: int = RADIUS) -> tuple[float, float]:
    return slow_j(pred, true), slow_f(pred, true, radius)


def in_percent(tracks: list[list[tuple[float, float]]]) -> dict[str, float]:
    """Of (J, F) per frame and track: the mean over tracks of the mean over frames."""
    j, f = (100 * np.mean([np.mean([frame[kind] for frame in track]) for track in tracks]) for kind in (0, 1))
    return {"J&F": (j + f) / 2, "J": j, "F": f}


def statistics(values: list[float]) -> tuple[float, float]:
    """Recall, and decay between the first and the last quarter, which share the frames where they meet others."""
    ends = [math.floor(1 + (len(values) - 1) * quarter / 4 + 0.5) - 1 for quarter in range(5)]
    first, last = values[: ends[1] + 1], values[ends[3] :]
    return sum(each > 0.5 for each in values) / len(values), sum(first) / len(first) - sum(last) / len(last)


def in_folder(benchmark: str, build, **options) -> tuple[Report, list]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tracks = build(root)
        return score(benchmark, Request(root / "pred", root / "gt", **options)), tracks


def draw_video(root: Path, name: str, seed: int, *, count: int, void: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Writes a video of up to seven frames; predicted and true labels of each."""
    generator, found = np.random.default_rng(seed), []
    for place in range(int(generator.integers(3, 8))):
        true = blobs(generator, count, void=void)
        pred = shaken(generator, np.where(true == 255, 0, true))
        for side, labels in (("gt", true), ("pred", pred)):
            png(root / side / name / f"{place:05d}.png", labels)
        found.append((pred, true))
    return found


@given(found=st.lists(seeds, min_size=1, max_size=3, unique=True))
@settings(max_examples=15)
def test_davis_equals_plain_loops(found: list[int]):
    def build(root: Path) -> list:
        tracks = []
        for seed in found:
            frames = draw_video(root, str(seed), seed, count=2, void=True)
            # the first frame says which objects there are: 1 to the largest, void is none
            first = np.zeros(SIZE, dtype=np.uint8)
            first[3:9, 3:9], first[20:30, 20:30], first[40:, 60:] = 1, 2, 255
            png(root / "gt" / str(seed) / "00000.png", first)
            tracks += [[slow_jf(pred == each, true == each) for pred, true in frames[1:-1]] for each in (1, 2)]
        return tracks

    report, tracks = in_folder("davis", build)
    expected = in_percent(tracks)
    for kind, letter in enumerate("JF"):
        recall, decay = np.mean([statistics([frame[kind] for frame in track]) for track in tracks], axis=0)
        expected |= {f"{letter}-Recall": 100 * recall, f"{letter}-Decay": 100 * decay}
    assert report.metrics == pytest.approx(expected, abs=1e-9)


@given(seed=seeds, proposals=st.integers(1, 3))
@settings(max_examples=12)
def test_davis_unsupervised_takes_the_best_of_all_assignments(seed: int, proposals: int):
    def build(root: Path) -> list:
        frames = draw_video(root, "a", seed, count=2, void=True)
        first = frames[0][1].copy()
        first[0, 0], first[0, 1] = 1, 2  # both objects are there from the start
        png(root / "gt" / "a" / "00000.png", first)
        frames[0] = (frames[0][0], first)
        generator = np.random.default_rng(seed + 1)
        names = generator.permutation(4)[:proposals] + 1
        frames = [(np.select([pred == n + 1 for n in range(proposals)], list(names), 0).astype(np.uint8), true) for pred, true in frames]
        for place, (pred, _) in enumerate(frames):
            png(root / "pred" / "a" / f"{place:05d}.png", pred)
        pairs = {}
        for proposal, each in itertools.product(range(1, 5), (1, 2)):
            kept = [(pred == proposal, true == each, true != 255) for pred, true in frames]
            pairs[proposal, each] = [slow_jf(one & counts, other & counts) for one, other, counts in kept]
        return [max(in_percent([pairs[one, 1], pairs[other, 2]])["J&F"] for one, other in itertools.permutations(range(1, 5), 2))]

    report, (best,) = in_folder("davis", build, variant="unsupervised")
    assert report.metrics["J&F"] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("variant", ["official", "all-frames"])
@given(found=st.lists(seeds, min_size=1, max_size=2, unique=True))
@settings(max_examples=12)
def test_sav_counts_objects_from_the_frame_that_first_shows_them(variant: str, found: list[int]):
    def build(root: Path) -> list:
        tracks = []
        for seed in found:
            frames = draw_video(root, str(seed), seed, count=3, void=False)
            # object 1 is in every true frame, so that none is without an object
            for place, (pred, true) in enumerate(frames):
                true[0:9, 50:60] = 1
                png(root / "gt" / str(seed) / f"{place:05d}.png", true)
                frames[place] = (pred, true)
            counted = frames if variant == "all-frames" else frames[1:-1]
            for each in (1, 2, 3):
                shown = [bool((pred == each).any() or (true == each).any()) for pred, true in counted]
                if any((true == each).any() for _, true in counted):
                    tracks.append([slow_jf(pred == each, true == each) for pred, true in counted[shown.index(True) :]])
        return tracks

    report, tracks = in_folder("sav", build, variant=variant)
    assert report.metrics == pytest.approx(in_percent(tracks), abs=1e-9)


@given(seed=seeds)
@settings(max_examples=12)
def test_sav_folders_of_objects_may_overlap(seed: int):
    def build(root: Path) -> list:
        generator, tracks = np.random.default_rng(seed), []
        for name in ("000", "001"):
            frames = []
            for place in range(5):
                true = blobs(generator, 1) | (place == 0)
                pred = shaken(generator, true)
                png(root / "gt" / "Annotations_6fps" / "v" / name / f"{4 * place:05d}.png", 255 * true)
                for step in range(4):  # predictions of frames without a true one are not looked at
                    png(root / "pred" / "v" / name / f"{4 * place + step:05d}.png", 255 * (true if step else pred))
                frames.append((pred > 0, true > 0))
            counted = frames[1:-1]
            shown = [bool(pred.any() or true.any()) for pred, true in counted]
            if any(true.any() for _, true in counted):
                tracks.append([slow_jf(*each) for each in counted[shown.index(True) :]])
        return tracks

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tracks = build(root)
        if tracks:
            report = score("sav", Request(root / "pred", root / "gt"))
            assert report.metrics == pytest.approx(in_percent(tracks), abs=1e-9)


def names(count: int) -> list[str]:
    return [f"{5 * place:05d}" for place in range(count)]


@given(seed=seeds)
@settings(max_examples=12)
def test_mevis_joins_objects_and_counts_missing_videos_as_zero(seed: int):
    def build(root: Path) -> list:
        generator, tracks, videos, masks = np.random.default_rng(seed), [], {}, {}
        for video in ("a", "b", "gone"):
            frames = int(generator.integers(1, 4))
            objects = {str(len(masks) + n): [blobs(generator, 1) > 0 for _ in range(frames)] for n in range(3)}
            masks |= {key: [runs(mask) if mask.any() else None for mask in each] for key, each in objects.items()}
            expressions = {}
            for place in range(2):
                meant = [str(key) for key in generator.permutation(list(objects))[: generator.integers(1, 4)]]
                expressions[str(place)] = {"exp": "x", "anno_id": [int(key) for key in meant]}
                track = []
                for frame, name in enumerate(names(frames)):
                    true = sum(objects[key][frame].astype(int) for key in meant) > 0
                    pred = shaken(generator, true.astype(np.uint8))
                    if video != "gone":
                        png(root / "pred" / video / str(place) / f"{name}.png", pred * int(generator.integers(1, 256)))
                    track.append((0.0, 0.0) if video == "gone" else slow_jf(pred > 0, true))
                tracks.append(track)
            videos[video] = {"frames": names(frames), "expressions": expressions}
        text(root / "gt" / "meta_expressions.json", json.dumps({"videos": videos}))
        text(root / "gt" / "mask_dict.json", json.dumps(masks))
        return tracks

    report, tracks = in_folder("mevis", build, allow_missing=True)
    assert report.metrics == pytest.approx(in_percent(tracks), abs=1e-9)
    assert (report.counts.predictions, report.counts.ground_truth, report.counts.missing) == (4, 6, 2)


@given(seed=seeds)
@settings(max_examples=12)
def test_ref_youtube_vos_equals_plain_loops(seed: int):
    def build(root: Path) -> list:
        generator, tracks, videos = np.random.default_rng(seed), [], {}
        for video in ("a", "b"):
            frames = int(generator.integers(1, 4))
            true = [blobs(generator, 3) for _ in range(frames)]
            expressions = {str(place): {"exp": "x", "obj_id": str(place % 3 + 1)} for place in range(4)}
            videos[video] = {"frames": names(frames), "expressions": expressions}
            for labels, name in zip(true, names(frames), strict=True):
                png(root / "gt" / "Annotations" / video / f"{name}.png", labels)
            for place, each in expressions.items():
                pred = [shaken(generator, (labels == int(each["obj_id"])).astype(np.uint8)) for labels in true]
                for labels, name in zip(pred, names(frames), strict=True):
                    png(root / "pred" / video / place / f"{name}.png", 255 * labels)
                tracks.append([slow_jf(one > 0, labels == int(each["obj_id"])) for one, labels in zip(pred, true, strict=True)])
        text(root / "gt" / "meta_expressions.json", json.dumps({"videos": videos}))
        return tracks

    report, tracks = in_folder("ref-youtube-vos", build)
    assert report.metrics == pytest.approx(in_percent(tracks), abs=1e-9)


@given(found=st.lists(seeds, min_size=1, max_size=6))
@settings(max_examples=15)
def test_refseg_equals_counting_pixels(found: list[int]):
    truth, made, ious, both, either = [], [], [], 0, 0
    for place, seed in enumerate(found):
        generator = np.random.default_rng(seed)
        true = blobs(generator, 1) > 0
        pred = shaken(generator, true.astype(np.uint8)) > 0
        void = blobs(generator, 1) > 0
        counted = ~void if place % 2 else np.ones(SIZE, dtype=bool)
        truth.append({"id": place, "mask": runs(true) if true.any() else None, **({"ignore": runs(void)} if place % 2 else {})})
        made.append({"id": place, "pred_mask": runs(pred) if pred.any() else None})
        shared, joined = int((pred & true & counted).sum()), int(((pred | true) & counted).sum())
        ious.append(shared / (joined + 1e-5) if joined else 1.0)
        both, either = both + shared, either + joined
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        report = score("refseg", Request(jsonl(root / "p.jsonl", made[::-1]), jsonl(root / "g.jsonl", truth)))
    assert report.metrics == pytest.approx({"gIoU": 100 * np.mean(ious), "cIoU": 100 * both / (either + 1e-10)}, abs=1e-9)
    assert report.counts.unparsable == sum(row["pred_mask"] is None for row in made)
