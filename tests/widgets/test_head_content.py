"""HeadView's content: its numbers are those of the records and of the metrics, and what is wrong is one sentence. Without a browser."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.widgets import head_fixtures as made
from tpo_lab import records as of
from tpo_lab.errors import UsageError
from tpo_lab.metrics.masks import region_similarity
from tpo_lab.metrics.region import box_iou
from tpo_lab.metrics.temporal import window_iou
from tpo_lab.probes import Trace
from tpo_widgets.content import Moment
from tpo_widgets.heads.cases import MOST_SAMPLES, record_of
from tpo_widgets.heads.content import HeadContent, coarse_to_fine
from tpo_widgets.heads.overlays import RUN_OF_FRAMES
from tpo_widgets.heads.picture import chosen_frames
from tpo_widgets.heads.view import HeadView


def content(*given: Any, **options: Any) -> HeadContent:
    return HeadContent.of(*given, **{"frames": made.frames(), "times_sec": made.TIMES, **options})


def read(found: HeadContent, name: str) -> Any:
    return json.loads(found.resource(name).data)


@pytest.fixture(scope="module")
def traced(build_tiny: Any, say: Any) -> Trace:
    """Two samples of the world, probed with a tiny model."""
    import tpo_lab as tpo

    window = {"windows_sec": [[1.0, 2.5]]}
    samples = [
        say(1, "Where is it?", "<region>", region=[{"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]),
        say(2, "When?", "<temporal>", temporal=window),
    ]
    return tpo.probe(build_tiny().eval(), samples, gradients=False, attention=False)


class TestWhatIsShown:
    def test_a_trace_brings_its_records_losses_and_frames(self, traced: Trace):
        found = HeadContent.of(traced, how="forced")
        case, first = read(found, "case/0"), traced.samples[0]
        assert [name for name, _ in found.document["samples"]] == ["s1", "s2"] and found.document["case"] == case
        assert case["size"] == list(first.size_wh) and case["duration"] == pytest.approx(first.duration_sec)
        assert {name: value for name, value, _ in case["sides"][0]["losses"]} == pytest.approx(
            {name: term.value for name, term in first.losses.items()}, abs=1e-6
        )
        forced = case["sources"]["0.forced"]
        assert [item["box"] for item in forced["boxes"]] == [pytest.approx(box, abs=1e-3) for box in of.boxes(first.record, "forced")]
        match = first.heads["region"].matches["forced"][0]
        assert forced["boxes"][0]["iou"] == pytest.approx(match.iou, abs=1e-4)
        windows = read(found, "case/1")["sources"]["0.forced"]["windows"]
        assert [item["window"] for item in windows] == traced.samples[1].heads["temporal"].forced["windows_sec"]
        assert len(case["seen"]) == len(first.times_sec)

    def test_boxes_and_windows_have_the_overlap_of_their_pair(self):
        said = content(made.boxed(), made.boxed_answer()).document["case"]["sources"]
        box, window = said["0.routed"]["boxes"][0], said["0.routed"]["windows"]
        assert box["iou"] == pytest.approx(float(box_iou([made.MODEL_BOX], [made.TRUE_BOX])[0, 0]), abs=1e-4)
        # the frame on display at 3 s is the fifth
        assert (box["at"], box["object"], said["truth"]["boxes"][0]["at"]) == (4, 0, 4)
        assert window[0]["iou"] == pytest.approx(float(window_iou([made.MODEL_WINDOW], [made.TRUE_WINDOW])[0, 0]), abs=1e-4)
        assert [(each["object"], each["score"], each["iou"] is None) for each in window] == [(0, 0.75, False), (1, 0.25, True)]

    def test_a_box_without_a_true_one_is_about_the_last_frame(self):
        untold = made.sample("two", "It is not there.")
        boxes = content(untold, made.boxed_answer()).document["case"]["sources"]["0.routed"]["boxes"]
        assert [(box["at"], box["object"], box["iou"]) for box in boxes] == [(made.COUNT - 1, 0, None)]

    @pytest.mark.parametrize("form", ["answer", "whole", "structured", "record", "list"])
    def test_answers_in_every_form_are_the_same(self, form: str):
        from tpo_lab.answer import Answer

        sample, whole = made.boxed(), made.boxed_answer()
        answer = Answer(whole["text"], ("region", "temporal"), whole["structured"], route_probability=whole["route_probability"])
        forms = {"answer": answer, "whole": answer.to_dict(), "structured": whole["structured"], "record": record_of(sample, answer)}
        given = ([sample], [forms["record"]]) if form == "list" else (sample, forms[form])
        found = content(*given).document["case"]
        assert found["sources"] == content(sample, answer).document["case"]["sources"]
        assert found["sides"][0]["emitted"] == ["region", "temporal"] and found["sides"][0]["expected"] == ["region", "temporal"]

    def test_records_go_to_their_samples_by_id(self):
        samples = [made.boxed("a"), made.boxed("b")]
        records = [record_of(samples[1], made.boxed_answer())]
        found = HeadContent.of(samples, records)
        assert [case.records for case in found.cases] == [(None,), (records[0],)]
        with pytest.raises(UsageError, match="records of the samples, such as 'a'"):
            HeadContent.of(samples, [record_of(made.boxed("c"), made.boxed_answer())])

    def test_an_evaluation_is_as_good_as_its_records(self):
        from tpo_lab.evaluation import Evaluation

        samples = [made.boxed("a"), made.boxed("b")]
        records = [record_of(sample, made.boxed_answer()) for sample in samples]
        found = HeadContent.of(samples, Evaluation({}, records))
        assert [case.records for case in found.cases] == [(record,) for record in records]

    def test_samples_of_one_id_are_told_apart(self):
        found = HeadContent.of([made.boxed("a"), made.boxed("b"), made.boxed("a"), made.boxed("a")], first="a (2)")
        assert [name for name, _ in found.document["samples"]] == ["a", "b", "a (2)", "a (3)"]
        assert found.document["place"] == found.place_of("a (2)") == 2 and found.place_of("elsewhere") == 0

    def test_truth_alone_needs_no_answer(self):
        found = content(made.masked())
        assert found.document["names"] == [] and list(found.document["case"]["sources"]) == ["truth"]

    def test_two_checkpoints_stand_side_by_side(self):
        other = made.boxed_answer(made.TRUE_BOX)
        found = content(made.boxed(), made.boxed_answer(), compare=other, names=("stage 1", "stage 3"))
        said = found.document["case"]["sources"]
        assert found.document["names"] == ["stage 1", "stage 3"] and said["1.routed"]["boxes"][0]["iou"] == 1.0
        with pytest.raises(UsageError, match="names: expected two that differ"):
            content(made.boxed(), made.boxed_answer(), compare=other, names=("a", "a"))


class TestScores:
    def test_masks_frame_by_frame_are_those_of_the_metrics(self):
        sample = made.masked()
        found = content(sample, made.masked_answer())
        scores = read(found, "scores/0/0.routed")["frames"]["mask"]
        ells = [(made.ell(4 + 3 * number + 1, 6), made.ell(4 + 3 * number, 6)) for number in range(made.COUNT)]
        # true one hidden in frames 3 and 4, said to be hidden in frame 4
        wanted = [0.0 if number == 3 else 1.0 if number == 4 else region_similarity(*ells[number]) for number in range(made.COUNT)]
        assert scores["values"] == pytest.approx(wanted, abs=1e-4) and scores["frames"] == list(range(made.COUNT))
        assert scores["whole"] == pytest.approx(of.mask_qualities([found.cases[0].records[0]], "routed")[0, 0], abs=1e-4)

    def test_hidden_spans_by_hand(self):
        found = content(made.masked(), made.masked_answer(hidden=(0, 4, 6)))
        assert read(found, "scores/0/truth")["hidden"] == {"0": [[2.0, 4.0]]}
        assert read(found, "scores/0/0.routed")["hidden"] == {"0": [[0.0, 0.5], [3.0, 4.0], [4.5, 5.0]]}

    def test_tracks_leave_out_hidden_frames_and_the_first_counts_not_in_the_whole(self):
        found = content(made.tracked(), made.masked_answer())
        scores = read(found, "scores/0/0.routed")["frames"]["track"]
        ious = [box_iou([[5.0 + 3 * n, 6, 21.0 + 3 * n, 20]], [[4.0 + 3 * n, 6, 20.0 + 3 * n, 20]])[0, 0] for n in range(made.COUNT)]
        wanted = [None if n == 2 else 0.0 if n == 4 else pytest.approx(ious[n], abs=1e-4) for n in range(made.COUNT)]
        assert scores["values"] == wanted
        assert scores["whole"] == pytest.approx(of.track_ious(found.cases[0].records[0], "routed").mean(), abs=1e-4)

    def test_saliency_of_the_truth_is_steps_and_of_the_model_its_curve(self):
        found = content(made.boxed(), made.boxed_answer())
        truth, model = (read(found, f"scores/0/{name}")["saliency"] for name in ("truth", "0.routed"))
        assert truth["times"] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5] and truth["values"] == [0, 0, 4, 4, 3, 3, 1, 1, 0, 0]
        assert model == {"times": [0.5, 2.0, 4.0], "values": [0.1, 0.9, 0.3]}


class TestRuns:
    def test_a_frame_shows_what_is_nearest_and_says_of_which_frame(self):
        pixels = made.frames(64)
        answer = made.masked_answer(hidden=())
        mask = answer["structured"]["mask"]
        mask["times_sec"] = [0.0, 0.8, 1.6, 2.4, 3.2, 4.0, 4.8]
        found = HeadContent.of(made.masked(), answer, frames=pixels, times_sec=[number / 10 for number in range(64)])
        runs = [read(found, f"run/0/0.routed/{number}") for number in range(2)]
        rows = [run["table"][row[0]] if row[0] >= 0 else None for run in runs for row in run["frames"]]
        assert len(rows) == 64 and runs[0]["objects"] == [0] and len(runs[0]["frames"]) == RUN_OF_FRAMES
        assert [row and row["at"] for row in rows[:14]] == [0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 16]
        # 0.4 s is half of the step: nothing is said of what comes later than 5.2 s
        assert rows[52] is not None and rows[53:] == [None] * 11
        assert rows[8]["mask"] == mask["masks"][0][1] and rows[8]["box"] == mask["track_xyxy"][0][1] and rows[8]["score"] == 0.9

    def test_hidden_is_told_apart_from_unknown(self):
        run = read(content(made.masked(), made.masked_answer()), "run/0/truth/0")
        assert [run["table"][row[0]]["mask"] is None for row in run["frames"]] == [False, False, False, True, True, False, False]

    def test_a_long_clip_leaves_the_document_small(self):
        times = [number / 25 for number in range(2000)]
        masks = [made.encode_rle(made.ell(number % 40, 6)) for number in range(2000)]
        sample = made.sample("long", "<mask>", mask={"times_sec": [t / 16 for t in times], "rle": masks})
        answer = {"mask": {"times_sec": times, "masks": [masks], "track_xyxy": [], "scores": []}}
        found = HeadContent.of(sample, answer, frames=np.zeros((2000, made.HEIGHT, made.WIDTH, 3), np.uint8), times_sec=times)
        assert len(json.dumps(found.document)) < 3000
        assert len(found.resource("run/0/0.routed/31").data) < 20_000
        names = list(found.names())
        assert sum(name.startswith("frame/") for name in names) == 256 and len(set(names)) == len(names)


@pytest.mark.parametrize(("count", "most"), [(1, 9), (2, 9), (7, 100), (64, 64), (1000, 37)])
def test_any_beginning_of_coarse_to_fine_is_spread_evenly(count: int, most: int):
    found = coarse_to_fine(count, most)
    assert len(found) == min(count, most) == len(set(found)) and set(found) <= set(range(count)) and found[0] == 0
    gaps = np.diff(sorted([*found, count]))
    assert gaps.max() <= 4 * max(1, count / len(found))


BAD = {
    "frames of floats": (dict(frames=made.frames().astype(float)), "frames: expected"),
    "frames without colours": (dict(frames=made.frames()[..., 0]), "frames: expected"),
    "no frames": (dict(frames=made.frames()[:0]), "frames: expected"),
    "other times": (dict(times_sec=[0.0, 1.0]), "times_sec: expected"),
    "times without frames": (dict(frames=None), "times_sec: expected them together with frames"),
    "NaN box": (dict(answer={"region": {"boxes_xyxy": [[1.0, 2.0, float("nan"), 4.0]]}}), r"region boxes_xyxy\[0\]: expected finite"),
    "three numbers": (dict(answer={"region": {"boxes_xyxy": [[1.0, 2.0, 3.0]]}}), r"boxes_xyxy\[0\]"),
    "infinite window": (dict(answer={"temporal": {"windows_sec": [[0.0, float("inf")]]}}), r"windows_sec\[0\]"),
    "too few scores": (dict(answer={"temporal": {"windows_sec": [[0, 1], [1, 2]], "scores": [0.5]}}), "one for each of the 2 windows"),
    "51 boxes": (dict(answer={"region": {"boxes_xyxy": [[0, 0, 1, 1]] * 51}}), "at most 50 objects, got 51"),
    "mask of another size": (
        dict(answer={"mask": {"times_sec": [0.0], "masks": [[made.encode_rle(np.ones((57, 31)))]]}}),
        r"height and width, \[31, 57\], got \[57, 31\]",
    ),
    "masks without times": (dict(answer={"mask": {"masks": [[None]]}}), "one for each of the 0 times"),
    "NaN in a track": (dict(answer={"mask": {"times_sec": [0.0], "track_xyxy": [[[0, 0, 1, float("nan")]]]}}), r"boxes\[0\]"),
    "falling times": (dict(answer={"mask": {"times_sec": [1.0, 0.0], "masks": [[None, None]]}}), "rising times"),
    "an answer that is none": (dict(answer=7), "answer: expected an Answer"),
    "a head that says a number": (dict(answer={"region": 3}), "answer: expected what each head answers"),
    "another how": (dict(how="force"), "how: expected one of forced, routed, got 'force'. Did you mean 'forced'"),
    "opposite sample": (dict(sample="clip.mp4"), "shown: expected a trace"),
    "no samples": (dict(sample=[]), "samples: expected 1 to"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_shown_is_one_sentence_in_the_views_place(case: str):
    options, message = BAD[case]
    given = {"sample": made.boxed(), "answer": made.boxed_answer(), "frames": made.frames(), "times_sec": made.TIMES, **options}
    sample, answer = given.pop("sample"), given.pop("answer")
    view = HeadView(sample, answer, **given)
    with pytest.raises(UsageError, match=message):
        raise view.error
    assert view.problem.startswith("HeadView: ") and "\n" not in view.problem and view.document == {}
    assert view.to_png()[:4] == b"\x89PNG"


def test_nothing_true_and_nothing_said_is_still_a_clip():
    view = HeadView(made.sample("bare", "Nothing."), {"text": "", "structured": {}}, frames=made.frames(), times_sec=made.TIMES)
    assert view.problem == "" and view.document["case"]["heads"] == [] and view.to_png()[:4] == b"\x89PNG"


def test_a_clip_that_is_gone_is_a_panel_alone_and_a_sentence_among_others(world: Any):
    gone = made.boxed()
    assert "nowhere.mp4" in HeadView(gone).problem
    beside = HeadView([gone, world(0, "region")[0]])
    assert beside.problem == "" and beside.document["case"] is None
    with pytest.raises(UsageError, match=r"nowhere\.mp4"):
        beside.content.resource("case/0")
    assert read(beside.content, "case/1")["heads"] == ["region"]


def test_too_many_samples_and_answers_of_others_are_refused():
    with pytest.raises(UsageError, match=f"1 to {MOST_SAMPLES}"):
        HeadContent.of([made.boxed(str(number)) for number in range(MOST_SAMPLES + 1)])
    with pytest.raises(UsageError, match="one for each of the 2 samples"):
        HeadContent.of([made.boxed("a"), made.boxed("b")], made.boxed_answer())
    with pytest.raises(UsageError, match="frames: expected one sample"):
        HeadContent.of([made.boxed("a"), made.boxed("b")], frames=made.frames())


def test_a_trace_holds_its_own_answers_and_is_compared_by_id(traced: Trace):
    with pytest.raises(UsageError, match="answers: expected none"):
        HeadContent.of(traced, made.boxed_answer())
    assert HeadContent.of(traced, compare=traced).document["names"] == ["before", "after"]
    with pytest.raises(UsageError, match="compare: expected a trace of the same samples"):
        HeadContent.of([made.boxed("a")], made.boxed_answer(), compare=traced)


@pytest.mark.parametrize("name", ["", "case", "case/9", "frame/0/x", "frame/0/99", "run/0/truth/9", "run/0/2.routed/0", "scores/0", "x/0"])
def test_unknown_resources_are_refused(name: str):
    with pytest.raises(UsageError):
        content(made.boxed(), made.boxed_answer()).resource(name)


def test_a_saliency_of_nan_is_left_out_and_the_document_is_json():
    answer = made.boxed_answer()
    answer["structured"]["temporal"]["saliency"][1][1] = float("nan")
    answer["route_probability"]["region"] = float("nan")
    found = content(made.boxed(), answer)
    json.dumps(found.document, allow_nan=False)
    assert read(found, "scores/0/0.routed")["saliency"]["values"] == [0.1, 0.3]
    assert found.document["case"]["sides"][0]["probability"]["region"] is None


class TestPicture:
    def test_it_holds_truth_and_model_in_their_colours(self):
        for given in ((made.boxed(), made.boxed_answer()), (made.masked(), made.masked_answer())):
            pixels = np.asarray(content(*given).picture(Moment(), dark=False, width=700)).reshape(-1, 3)
            for colour in ((0, 158, 115), (213, 94, 0)):
                assert (pixels == colour).all(-1).sum() > 60, colour

    @pytest.mark.parametrize("width", [240, 480, 900, 1300])
    def test_any_width(self, width: int):
        found = content(made.masked(), made.masked_answer(), compare=made.masked_answer(3))
        light, dark = (found.picture(Moment(time_sec=2.0), dark=dark, width=width) for dark in (False, True))
        assert light.width == dark.width == width and light.size == dark.size
        assert np.asarray(light)[0, 0].min() > 200 > 60 > np.asarray(dark)[0, 0].max()

    def test_the_frame_on_display_and_those_asked_about_are_among_the_frames(self):
        found = content(made.boxed(), made.boxed_answer())
        chosen = chosen_frames(found.cases[0], found.film(0), Moment(time_sec=0.6), 3)
        assert {1, 4} <= set(chosen) and chosen == sorted(chosen) and len(chosen) == 3

    def test_the_view_draws_the_answers_that_are_chosen(self):
        sample = made.boxed()
        view = HeadView([sample], [made.forced_only(sample, made.boxed_answer())], frames=made.frames(), times_sec=made.TIMES)
        routed = view.to_png()
        view.how = "forced"
        assert view.to_png() != routed


def test_state_is_small_for_an_ordinary_input(traced: Trace):
    frames = np.random.default_rng(0).integers(0, 255, (64, 90, 160, 3)).astype(np.uint8)
    for view in (HeadView(traced), HeadView(made.sample("s", "No."), frames=frames)):
        assert len(str(view.get_state())) <= 100_000
        json.dumps(view.document, allow_nan=False)
