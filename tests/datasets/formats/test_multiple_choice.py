"""The benchmarks of questions with options: values by hand, what is dropped and why, truth -> submission -> score, and broken records."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tpo_lab.datasets.formats import format_named
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample, TemporalTarget
from tpo_lab.scoring import Request, score

PLACES = {
    "mvbench": "mvbench",
    "mlvu": "mlvu",
    "video-mme": "video-mme/template.json",
    "mmiu": "mmiu/all.json",
    "seed-bench-2": "seed-bench-2/SEED-Bench_made.json",
}


def texts(sample: Sample) -> list[str]:
    return [turn.text for turn in sample.conversation]


def says(sample: Sample, text: str | None) -> Sample:
    """The sample as a model answers it; None for no answer."""
    question, turn = sample.conversation[0], sample.conversation[1]
    said = (question,) if text is None else (question, turn.model_copy(update={"text": text}))
    return sample.model_copy(update={"conversation": said})


def write(form: str, samples: list[Sample], path: Path) -> Path:
    assert format_named(form).write(samples, path) == len(samples)
    return path


def test_mvbench_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("mvbench", tiny / "mvbench", split="test")
    first, second, third, antonym, frames = samples
    assert [sample.id for sample in samples] == [
        "mvbench-action_sequence-0",
        "mvbench-action_sequence-1",
        "mvbench-action_sequence-2",
        "mvbench-action_antonym-0",
        "mvbench-episodic_reasoning-0",
    ]
    assert texts(first) == [
        "What happened after the person opened the bag?\n(A) Closed the door.\n(B) Ate the apple.\n(C) Threw the towel.",
        "(B) Ate the apple.",
    ]
    assert (first.media.path, first.media.start_sec, first.media.end_sec) == ("video/star/Charades_v1_480/AB12C.mp4", 1.5, 9.0)
    assert (antonym.media.path, antonym.media.end_sec, antonym.media.fps) == ("video/ssv2_video/166583.webm", None, None)
    assert frames.media.path == "video/tvqa/frames_fps3_hq/made_s01e01_clip_02/*.jpg"
    assert (frames.media.fps, frames.media.start_sec, frames.media.end_sec) == (3.0, 4.0, 11.5)
    assert second.meta["question_id"] == first.meta["question_id"] + " #2" and third.meta["letter"] == "A"
    assert first.split == "test" and not dropped
    same_from_file(samples)


def test_one_file_of_mvbench_is_a_task(take, tiny):
    path = tiny / "mvbench" / "json" / "action_antonym.json"
    assert [sample.id for sample in take("mvbench", path)[0]] == ["mvbench-action_antonym-0"]


def test_mvbench_has_twenty_tasks():
    from tpo_lab.datasets.formats.mvbench import TASKS

    assert len(TASKS) == 20
    assert {name for name, task in TASKS.items() if task.bound} == {
        "action_sequence",
        "action_prediction",
        "object_interaction",
        "action_localization",
        "episodic_reasoning",
    }


def test_mlvu_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("mlvu", tiny / "mlvu")
    first = samples[0]
    assert (first.id, first.media.path, first.meta["duration_sec"]) == ("mlvu-1_plotQA-0", "video/1_plotQA/film_1.mp4", 480.5)
    assert texts(first) == ["Which colour is the coat?\n(A) Red\n(B) Blue\n(C) Grey\n(D) Black", "(C) Grey"]
    assert len(samples) == 3 and not dropped
    same_from_file(samples)


def test_video_mme_with_trailing_commas_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("video-mme", tiny / "video-mme" / "template.json")
    assert [(sample.id, sample.media.path) for sample in samples] == [
        ("video-mme-001-1", "001.mp4"),
        ("video-mme-001-2", "001.mp4"),
        ("video-mme-002-1", "002.mp4"),
    ]
    assert texts(samples[0]) == ["How many boats pass?\n(A) One.\n(B) Two.\n(C) Three.\n(D) Four.", "(C) Three."]
    assert texts(samples[1])[0].startswith("What is said, [a, b,] or c?\n"), "a comma inside a text stays"
    assert samples[2].meta["raw"]["duration"] == "long" and "questions" not in samples[2].meta["raw"]
    assert not dropped
    same_from_file(samples)


def test_mmiu_by_hand(take, tiny, same_from_file):
    samples, dropped, reading = take("mmiu", tiny / "mmiu" / "all.json")
    order, other, pair = samples
    assert [sample.id for sample in samples] == ["mmiu-all-0", "mmiu-all-2", "mmiu-all-3"]
    assert (order.media.path, other.media.path, pair.media.path) == (
        "made/ordering_7_[0-2].jpg",
        "made/ordering_9_[0-1].jpg",
        "made/pairs_0.png",
    )
    assert texts(order) == ["In which order were these taken?\n(A) [0, 1, 2]\n(B) [2, 1, 0]", "(B) [2, 1, 0]"]
    assert texts(pair) == [
        "You judge photographs.\nWhich is real?\n(A) the first\n(B) the second\n(C) none, which is seldom",
        "(C) none, which is seldom",
    ]
    assert [(each.where[-3:], each.field, each.rule) for each in dropped] == [("[1]", "input_image_path", "several_images")]
    assert reading.counts["dropped_by_rule"] == {"several_images": 1}
    assert other.meta["question_id"].endswith("#3"), "the dropped question is counted, so that no other is taken for it"
    same_from_file(samples)


def test_mmiu_of_a_folder_of_tasks(take, tiny, tmp_path: Path):
    place = tmp_path / "ordering_made" / "metadata_info.json"
    place.parent.mkdir()
    place.write_text((tiny / "mmiu" / "all.json").read_text())
    assert [sample.id for sample in take("mmiu", tmp_path)[0]] == ["mmiu-ordering_made-0", "mmiu-ordering_made-2", "mmiu-ordering_made-3"]


def test_seed_bench_2_by_hand(take, tiny, same_from_file):
    samples, dropped, _ = take("seed-bench-2", tiny / "seed-bench-2" / "SEED-Bench_made.json")
    assert [(sample.id, sample.media.path) for sample in samples] == [
        ("seed-bench-2-5_0", "cc3m-image/111_222"),
        ("seed-bench-2-19_0", "SEED-Bench-2-image/task19/made/X/[1-3].png"),
        ("seed-bench-2-23_0", "SEED-Bench-2-image/task23/made/[1-2].jpg"),
    ]
    assert texts(samples[0]) == ["How many hats are there?\n(A) One\n(B) Two\n(C) Three\n(D) Four", "(B) Two"]
    assert texts(samples[2])[0].startswith("[img]: A car. [img]:\n")
    assert [(each.field, each.rule) for each in dropped] == [("data_type", "generation")]
    same_from_file(samples)


def test_nextgqa_asks_with_options(take, tiny, same_from_file):
    samples, dropped, _ = take("nextgqa", tiny / "nextgqa" / "test.csv", split="test")
    first = samples[0]
    assert [sample.id for sample in samples] == ["nextgqa-5001-0", "nextgqa-5001-3", "nextgqa-5002-1"]
    assert (first.media.path, first.meta["duration_sec"], first.meta["size"]) == ("0101/5001.mp4", 20.0, [320, 240])
    assert texts(first) == [
        "why does the man stop at the gate\n(A) to wave\n(B) to tie his shoe\n(C) to eat\n(D) to sit, and rest\n(E) to call",
        "(B) to tie his shoe",
    ]
    assert not first.targets.names and first.meta["task"] == "conversation" and first.meta["raw"]["location"] == [[2.5, 6.0]]
    assert not dropped
    same_from_file(samples)


def test_nextgqa_asks_when(take, tiny, same_from_file):
    samples, dropped, _ = take("nextgqa", tiny / "nextgqa" / "test.csv", variant="grounding")
    assert [sample.targets.temporal.windows_sec for sample in samples] == [((2.5, 6.0),), ((6.0, 8.5), (11.0, 12.0)), ((0.0, 29.9),)]
    assert texts(samples[1]) == ['When can one see what answers the question "what does the dog do after the man stops"?', "<temporal>"]
    assert samples[0].meta["task"] == "temporal" and not dropped
    same_from_file(samples)


def nextgqa_csv(folder: Path, *rows: str) -> Path:
    path = folder / "val.csv"
    path.write_text("\n".join(["video_id,width,height,question,answer,qid,type,a0,a1,a2,a3,a4", *rows]) + "\n")
    return path


def test_nextgqa_without_side_files_and_with_answers_as_numbers(take, tmp_path: Path):
    path = nextgqa_csv(tmp_path, "7,9,8,how many,1,0,CH,2,3,1,4,5")
    assert texts(take("nextgqa", path)[0][0])[1] == "(C) 1"
    (sample,), _, _ = take("nextgqa", path, variant="indexed")
    assert texts(sample)[1] == "(B) 3" and sample.media.path == "7.mp4" and "duration_sec" not in sample.meta
    with pytest.raises(UsageError, match=r"expected beside it gsub_val\.json, got 'no such file'\. Name it with --with gsub=PATH"):
        take("nextgqa", path, variant="grounding")


@pytest.mark.parametrize(
    ("row", "about", "variant", "field", "rule"),
    [
        ("7,9,8,why,none,1,CW,a,b,c,d,e", {}, "choices", "answer", "answer_in_options"),
        ("7,9,8,why,5,1,CW,a,b,c,d,e", {}, "indexed", "answer", "answer_in_options"),
        ("7,9,8,why,a,1,CW,a, ,c,d,e", {}, "choices", "a0", "options"),
        ("7,9,8,,a,1,CW,a,b,c,d,e", {}, "choices", "question", "words"),
        ("7,9,8,why,a,1,CW,a,b,c,d", {}, "choices", "", "columns"),
        ("8,9,8,why,a,1,CW,a,b,c,d,e", {}, "choices", "video_id", "video_known"),
        ("7,9,8,why,a,1,CW,a,b,c,d,e", {"duration": 0}, "choices", "duration", "positive"),
        ("7,9,8,why,a,1,CW,a,b,c,d,e", {"location": {}}, "grounding", "", "missing"),
        ("7,9,8,why,a,1,CW,a,b,c,d,e", {"location": {"1": [[-0.1, 3]]}}, "grounding", "location", "window_in_video"),
        ("7,9,8,why,a,1,CW,a,b,c,d,e", {"location": {"1": [[3, 3]]}}, "grounding", "location[0]", "window_order"),
        ("7,9,8,why,a,0,CW,a,b,c,d,e", {}, "choices", "id", "id_unique"),
    ],
)
def test_a_bad_question_of_nextgqa_is_named(take, tmp_path: Path, row, about, variant, field, rule):
    good = ("7,9,8,why,{},0,CW,a,b,c,d,e", "6,9,8,why,{},1,CW,a,b,c,d,e")
    answer = "0" if variant == "indexed" else "a"
    path = nextgqa_csv(tmp_path, good[0].format(answer), row, good[1].format(answer))
    spans = {"duration": 9, "location": {"0": [[1, 2]], "1": [[1, 2]]}}
    changed = {**spans, **about, "location": {"0": [[1, 2]], **about.get("location", spans["location"])}}
    (tmp_path / "gsub_val.json").write_text(json.dumps({"6": spans, "7": changed}))
    (tmp_path / "map_vid_vidorID.json").write_text(json.dumps({"6": "0/6", "7": "0/7"}))
    samples, dropped, _ = take("nextgqa", path, variant=variant)
    broken_video = "duration" in about
    assert [sample.id for sample in samples] == ([] if broken_video else ["nextgqa-7-0"]) + ["nextgqa-6-1"]
    assert {(each.field, each.rule) for each in dropped} == {(field, rule)} and f"{path}, line 3" in {each.where for each in dropped}


MVBENCH = {"video": "a.mp4", "question": "What?", "candidates": ["a cat", "a dog"], "answer": "a dog", "start": 1, "end": 4}
MLVU = {
    "video": "a.mp4",
    "duration": 60,
    "question": "What?",
    "candidates": ["a cat", "a dog"],
    "answer": "a dog",
    "question_type": "count",
}
SEED = {
    "answer": "B",
    "choice_a": "one",
    "choice_b": "two",
    "choice_c": "three",
    "choice_d": "four",
    "data_id": ["x/1.png", "x/2.png"],
    "data_source": "SEED-Bench v2",
    "data_type": "Video",
    "question": "How many?",
    "question_id": "19_7",
}
MMIU = {
    "task": "made",
    "question": "Which?",
    "options": "A: one\nB: two",
    "context": "",
    "input_image_path": ["./x/1_0.png", "./x/1_1.png"],
    "output": "B",
}


@pytest.mark.parametrize(
    ("form", "changed", "field", "rule"),
    [
        ("mvbench", {"answer": "a bird"}, "answer", "answer_in_options"),
        ("mvbench", {"candidates": ["a cat"]}, "candidates", "options"),
        ("mvbench", {"candidates": ["a cat", ""]}, "candidates", "options"),
        ("mvbench", {"candidates": ["a cat", None]}, "candidates", "options"),
        ("mvbench", {"candidates": "a cat"}, "candidates", "list"),
        ("mvbench", {"question": ""}, "question", "words"),
        ("mvbench", {"video": 3}, "video", "words"),
        ("mvbench", {"end": 1}, "end[0]", "window_order"),
        ("mvbench", {"start": None}, "start", "number"),
        ("mlvu", {"duration": -1}, "duration", "positive"),
        ("mlvu", {"answer": ["a dog"]}, "answer", "text"),
        ("seed-bench-2", {"answer": "E"}, "answer", "answer_in_options"),
        ("seed-bench-2", {"choice_c": " "}, "choice_a", "options"),
        ("seed-bench-2", {"data_id": []}, "data_id", "media"),
        ("seed-bench-2", {"data_id": ["x/1.png", "y/2.png"]}, "data_id", "several_images"),
        ("seed-bench-2", {"data_source": "elsewhere"}, "data_source", "data_source_known"),
        ("seed-bench-2", {"data_type": "Image & Text Generation"}, "data_type", "generation"),
        ("mmiu", {"options": "one\ntwo"}, "options", "options"),
        ("mmiu", {"options": "A: one"}, "options", "options"),
        ("mmiu", {"output": "C"}, "output", "answer_in_options"),
        ("mmiu", {"input_image_path": ["x/1_0.png", "x/1_2.png"]}, "input_image_path", "several_images"),
        ("mmiu", {"input_image_path": None}, "input_image_path", "media"),
    ],
)
def test_a_bad_question_is_named_and_the_others_go_on(take, tmp_path: Path, form, changed, field, rule):
    row = {"mvbench": MVBENCH, "mlvu": MLVU, "seed-bench-2": SEED, "mmiu": MMIU}[form]
    rows = [row, {**row, **changed, "question_id": "bad"}, {**row, "question_id": "last"}]
    path = tmp_path / "action_sequence.json"
    path.write_text(json.dumps({"questions": rows} if form == "seed-bench-2" else rows))
    samples, dropped, _ = take(form, path)
    assert len(samples) == 2
    where = f"{path}, questions, [1]" if form == "seed-bench-2" else f"{path}, [1]"
    assert [(each.where, each.field, each.rule) for each in dropped] == [(where, field, rule)]


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        ({"options": ["A. a", "B. "]}, "options", "options"),
        ({"answer": "D"}, "answer", "answer_in_options"),
        ({"answer": "the first"}, "answer", "answer_in_options"),
        ({"question": None}, "question", "words"),
    ],
)
def test_a_bad_question_of_video_mme_is_named(take, tmp_path: Path, changed, field, rule):
    row = {"question_id": "1-1", "question": "Who?", "options": ["A. a", "B. b", "C. c"], "answer": "B"}
    video = {"video_id": "1", "duration": "short", "questions": [row, {**row, **changed, "question_id": "1-2"}, 3]}
    path = tmp_path / "videos.json"
    path.write_text(json.dumps([video, {"video_id": "2"}, 5, {"videoID": "zz", "questions": [{**row, "question_id": "4-1"}]}]))
    samples, dropped, _ = take("video-mme", path)
    assert [(sample.id, sample.media.path) for sample in samples] == [("video-mme-1-1", "1.mp4"), ("video-mme-4-1", "zz.mp4")]
    assert [(each.where.removeprefix(f"{path}, "), each.field, each.rule) for each in dropped] == [
        ("[0], questions[1]", field, rule),
        ("[0], questions[2]", "", "object"),
        ("[1]", "", "missing"),
        ("[2]", "", "object"),
    ]


def test_a_file_that_is_no_task_of_mvbench_is_named(take, tmp_path: Path):
    (tmp_path / "made_up.json").write_text(json.dumps([MVBENCH]))
    assert [(each.field, each.rule) for each in take("mvbench", tmp_path / "made_up.json")[1]] == [("", "task_known")]
    (tmp_path / "made_up.json").unlink()
    with pytest.raises(UsageError, match=r"expected files <task>\.json, in it or in its folder json, got 'none'"):
        take("mvbench", tmp_path)
    with pytest.raises(UsageError, match=r"expected a folder with \.json files, got 'none'"):
        take("mmiu", tmp_path)


def test_questions_of_mlvu_that_ask_for_free_text_are_dropped(take, tmp_path: Path):
    path = tmp_path / "9_summary.json"
    path.write_text(json.dumps([{"video": "a.mp4", "duration": 60, "question": "Sum up.", "answer": "Much.", "question_type": "summary"}]))
    assert [(each.field, each.rule) for each in take("mlvu", path)[1]] == [("candidates", "generation")]


def test_questions_without_answers_have_no_assistant_turn(take, tmp_path: Path):
    path = tmp_path / "4_count.json"
    path.write_text(json.dumps([{key: value for key, value in MLVU.items() if key != "answer"}]))
    (sample,), _, _ = take("mlvu", path)
    assert texts(sample) == ["What?\n(A) a cat\n(B) a dog"] and "letter" not in sample.meta


def test_of_equal_options_the_first_is_the_answer_as_the_scorer_has_it(take, tmp_path: Path):
    path = tmp_path / "4_count.json"
    path.write_text(json.dumps([{**MLVU, "candidates": ["a cat", "a dog", "a dog"]}]))
    samples, _, _ = take("mlvu", path)
    assert texts(samples[0])[1] == "(B) a dog"
    assert score("mlvu", Request(write("mlvu", samples, tmp_path / "pred.json"), path)).metrics["Avg"] == 100


def test_only_bound_tasks_of_mvbench_are_about_a_part(take, tmp_path: Path):
    path = tmp_path / "action_count.json"
    path.write_text(json.dumps([MVBENCH]))
    (sample,), _, _ = take("mvbench", path)
    assert (sample.media.path, sample.media.start_sec, sample.media.end_sec) == ("video/perception/videos/a.mp4", 0, None)


def test_a_context_that_repeats_the_question_is_asked_once(take, tmp_path: Path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps([{**MMIU, "context": "Which?\nSelect from the following choices.\nA: one"}]))
    assert texts(take("mmiu", path)[0][0])[0] == "Which?\n(A) one\n(B) two"


# --- submissions ---------------------------------------------------------------------------------------------------------------------


def gt_of(form: str, tiny: Path, folder: Path) -> Path:
    """The truth without what the format drops, where the scorer asks for every question."""
    path = tiny / PLACES[form]
    if form == "seed-bench-2":
        (folder / "truth.json").write_text(json.dumps({"questions": json.loads(path.read_text())["questions"][:3]}))
        return folder / "truth.json"
    return path / "json" if path.is_dir() else path


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("form", sorted(PLACES))
def test_the_truth_as_a_submission_scores_100_and_a_wrong_answer_less(take, tiny, tmp_path: Path, form: str, suffix: str):
    samples, gt = take(form, tiny / PLACES[form])[0], gt_of(form, tiny, tmp_path)
    few = form == "mmiu"  # the question that is dropped has no prediction
    pred = write(form, samples, tmp_path / f"pred{suffix}")
    right = score(form, Request(pred, gt, allow_missing=few))
    assert right.metrics["Avg"] == 100 and (right.counts.predictions, right.counts.unparsable) == (len(samples), 0)
    wrong = says(samples[-1], "(A) no" if samples[-1].meta["letter"] != "A" else "(B) no")
    pred = write(form, [*samples[:-1], wrong], tmp_path / f"wrong{suffix}")
    assert score(form, Request(pred, gt, allow_missing=few)).metrics["Avg"] < 100


@pytest.mark.parametrize("form", sorted(PLACES))
def test_answers_go_to_their_own_questions(take, tiny, tmp_path: Path, form: str):
    """Equal questions about one video, and questions that are dropped, shift no answer."""
    samples, gt = take(form, tiny / PLACES[form])[0], gt_of(form, tiny, tmp_path)
    for place in range(len(samples)):
        wrong = says(samples[place], "(A) no" if samples[place].meta["letter"] != "A" else "(B) no")
        answered = [*samples[:place], wrong, *samples[place + 1 :]][::-1]
        report = score(form, Request(write(form, answered, tmp_path / "pred.json"), gt, allow_missing=form == "mmiu"))
        counts = report.detail["counts"]
        hits = sum(report.metrics[task] * count / 100 for task, count in counts.items())
        assert hits == pytest.approx(len(samples) - 1)


@pytest.mark.parametrize("form", sorted(PLACES))
def test_no_answer_is_not_right(take, tiny, tmp_path: Path, form: str):
    samples, gt = take(form, tiny / PLACES[form])[0], gt_of(form, tiny, tmp_path)
    pred = write(form, [says(each, None) for each in samples], tmp_path / "pred.json")
    assert score(form, Request(pred, gt, allow_missing=form == "mmiu")).metrics["Avg"] == 0


def test_a_question_that_two_tasks_of_mvbench_ask_of_one_video(take, tmp_path: Path):
    (tmp_path / "action_antonym.json").write_text(json.dumps([MVBENCH]))
    (tmp_path / "action_sequence.json").write_text(json.dumps([{**MVBENCH, "answer": "a cat"}]))
    samples, _, _ = take("mvbench", tmp_path)
    assert score("mvbench", Request(write("mvbench", samples, tmp_path.parent / "pred.json"), tmp_path)).metrics["Avg"] == 100


def test_answers_in_words_are_letters_where_the_rule_wants_letters(take, tiny, tmp_path: Path):
    first, second, _ = take("mlvu", tiny / "mlvu")[0]
    said = ["grey.", "A cat", "(B) Bo", "D", "I do not know", "Z"]
    rows = json.loads(write("mlvu", [says(second if text == "A cat" else first, text) for text in said], tmp_path / "p.json").read_text())
    assert [row["pred"] for row in rows] == ["C", "C", "B", "D", "I do not know", "Z"]
    assert rows[0] | {"pred": ""} == {
        "question_id": "film_1.mp4: Which colour is the coat?",
        "video": "film_1.mp4",
        "question": "Which colour is the coat?",
        "question_type": "plotQA",
        "pred": "",
    }


def test_the_files_have_the_official_form(take, tiny, tmp_path: Path):
    rows = json.loads(write("mvbench", take("mvbench", tiny / "mvbench")[0], tmp_path / "m.json").read_text())
    assert list(rows) == ["res_list"] and rows["res_list"][3]["pred"] == "(B) Closing something"
    videos = json.loads(write("video-mme", take("video-mme", tiny / "video-mme" / "template.json")[0], tmp_path / "v.json").read_text())
    assert [(video["video_id"], [each["response"] for each in video["questions"]]) for video in videos] == [
        ("001", ["(C) Three.", "(D) No word."]),
        ("002", ["(A) 1."]),
    ]
    assert set(videos[0]["questions"][0]) == {"question_id", "task_type", "question", "options", "answer", "response"}


def nextgqa_score(take, folder: Path, tmp_path: Path, change: Any = lambda sample: sample, name: str = "test") -> dict[str, float]:
    files = {}
    for variant in ("choices", "grounding"):
        samples, _, _ = take("nextgqa", folder / f"{name}.csv", variant=variant)
        files[variant] = write("nextgqa", [change(each) for each in samples], tmp_path / f"{variant}.json")
    request = Request(files["grounding"], folder / f"gsub_{name}.json", pred_qa=files["choices"], gt_qa=folder / f"{name}.csv")
    return dict(score("nextgqa", request).metrics)


def test_the_truth_of_nextgqa_as_two_files_scores_100(take, tiny, tmp_path: Path):
    metrics = nextgqa_score(take, tiny / "nextgqa", tmp_path)
    assert metrics == {name: 100.0 for name in ("Acc@QA", "Acc@GQA", "mIoP", "IoP@0.3", "IoP@0.5", "mIoU", "IoU@0.3", "IoU@0.5")}


def test_wrong_answers_and_wrong_spans_of_nextgqa_score_less(take, tiny, tmp_path: Path):
    def change(sample: Sample) -> Sample:
        if sample.id != "nextgqa-5001-0":
            return sample
        if sample.meta["task"] == "conversation":
            return says(sample, "to eat")
        targets = sample.targets.model_copy(update={"temporal": TemporalTarget(windows_sec=((10.0, 12.0), (2.5, 6.0)))})
        return sample.model_copy(update={"targets": targets})

    metrics = nextgqa_score(take, tiny / "nextgqa", tmp_path, change)
    assert metrics["Acc@QA"] == metrics["Acc@GQA"] == metrics["mIoU"] == pytest.approx(200 / 3), "the first span counts"


def test_nextgqa_questions_without_an_answer_stay_in_the_denominator(take, tiny, tmp_path: Path):
    def silent(sample: Sample) -> Sample:
        if sample.id != "nextgqa-5002-1":
            return sample
        return says(sample.model_copy(update={"targets": sample.targets.model_copy(update={"temporal": None})}), None)

    metrics = nextgqa_score(take, tiny / "nextgqa", tmp_path, silent)
    assert metrics["Acc@QA"] == metrics["mIoP"] == metrics["IoP@0.5"] == pytest.approx(200 / 3)


def test_nextgqa_spans_and_answers_are_two_files(take, tiny, tmp_path: Path):
    path = tiny / "nextgqa" / "test.csv"
    both = [*take("nextgqa", path)[0], *take("nextgqa", path, variant="grounding")[0]]
    with pytest.raises(UsageError, match=r"sample nextgqa-5001-0, meta\.task: expected conversation, as before: .* got 'temporal'"):
        format_named("nextgqa").write(both, tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize("form", [*sorted(PLACES), "nextgqa"])
def test_a_sample_that_was_not_converted_cannot_be_submitted(say, tmp_path: Path, form: str):
    with pytest.raises(UsageError, match=r"sample s0, meta\.(raw|task|options|question_id): expected"):
        format_named(form).write([say(0, "Who?")], tmp_path / "p.json")


# --- real files and broken ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant", "count", "lost"), [
    ("test", "choices", 5553, 0), ("test", "grounding", 5517, 36), ("val.head400", "choices", 399, 0), ("val.head400", "grounding", 399, 0),
])  # fmt: skip
def test_the_real_questions_of_nextgqa(real, take, same_from_file, name, variant, count, lost):
    """36 spans of test start at -0.1 s or -0.2 s."""
    samples, _, reading = take("nextgqa", real / "nextgqa" / f"{name}.csv", variant=variant)
    assert (len(samples), reading.counts["dropped_by_rule"]) == (count, {"window_in_video": lost} if lost else {})
    same_from_file(samples[::7])


def test_a_map_that_lacks_a_video_drops_its_questions(real, take):
    """The sample of the map holds 300 other videos."""
    folder = real / "nextgqa"
    samples, _, reading = take("nextgqa", folder / "val.head400.csv", side={"map": folder / "map_vid_vidorID.head300.json"})
    assert (len(samples), reading.counts["dropped_by_rule"]) == (0, {"video_known": 399})


def test_the_real_truth_of_nextgqa_scores_100(real, take, tmp_path: Path):
    path = real / "nextgqa" / "test.csv"
    answers = write("nextgqa", take("nextgqa", path)[0], tmp_path / "qa.json")
    spans = write("nextgqa", take("nextgqa", path, variant="grounding")[0], tmp_path / "spans.json")
    request = Request(spans, real / "nextgqa" / "gsub_test.json", pred_qa=answers, gt_qa=path, allow_missing=True)
    metrics = score("nextgqa", request).metrics
    assert metrics["Acc@QA"] == metrics["Acc@GQA"] == metrics["mIoP"] == metrics["mIoU"] == 100


@pytest.mark.parametrize(("form", "row"), [("mvbench", MVBENCH), ("mlvu", MLVU), ("mmiu", MMIU)])
def test_a_thousand_broken_questions(withstands, tmp_path: Path, form: str, row: dict[str, Any]):
    def put(raw: bytes) -> Path:
        path = tmp_path / "action_sequence.json"
        good = json.dumps({**row, "question": "Good?"}).encode()
        path.write_bytes(b"[" + good + b"," + raw + b"]")
        return path

    withstands(form, put, row, good=[f"{form}-action_sequence-0"])


def test_a_thousand_broken_questions_of_seed_bench_2(withstands, tmp_path: Path):
    def put(raw: bytes) -> Path:
        good = json.dumps({**SEED, "question_id": "good"}).encode()
        (tmp_path / "s.json").write_bytes(b'{"questions": [' + good + b"," + raw + b"]}")
        return tmp_path / "s.json"

    withstands("seed-bench-2", put, SEED, good=["seed-bench-2-good"])


def test_a_thousand_broken_videos_of_video_mme(withstands, tmp_path: Path):
    row = {"question_id": "1-1", "question": "Who?", "options": ["A. a", "B. b", "C. c"], "answer": "B"}
    video = {"video_id": "1", "duration": "short", "questions": [row, {**row, "question_id": "1-2"}]}

    def put(raw: bytes) -> Path:
        good = json.dumps({**video, "questions": [{**row, "question_id": "good"}]}).encode()
        (tmp_path / "v.json").write_bytes(b"[" + good + b"," + raw + b",]")
        return tmp_path / "v.json"

    withstands("video-mme", put, video, good=["video-mme-good"])


@pytest.mark.parametrize("variant", ["choices", "grounding"])
def test_a_thousand_broken_side_files_of_nextgqa(withstands, tmp_path: Path, variant: str):
    path = nextgqa_csv(tmp_path, "6,9,8,why,a,0,CW,a,b,c,d,e", "7,9,8,why,a,1,CW,a,b,c,d,e")
    about = {"duration": 9, "location": {"1": [[1, 2], [3, 4]]}, "fps": 30.0}

    def put(raw: bytes) -> Path:
        good = json.dumps({**about, "location": {"0": [[1, 2]]}}).encode()
        (tmp_path / "gsub_val.json").write_bytes(b'{"6": ' + good + b', "7": ' + raw + b"}")
        return path

    withstands("nextgqa", put, about, good=["nextgqa-6-0"], variant=variant)


def test_a_thousand_broken_tables_of_nextgqa(take, tmp_path: Path):
    """Rows with cells that no column expects; the first and the last stay as they are."""
    cells = ["", " ", "7", "-1", "1e999", "a", "<prompt:0>", '"x\ny"', '"', "a,b", "\ud800", "\x00", "\u00e9" * 40]
    rng = random.Random(0)
    middle, good = "7 9 8 why a 1 CW a b c d e", ["6,9,8,why,a,0,CW,a,b,c,d,e", "8,9,8,why,b,0,CW,a,b,c,d,e"]
    path = nextgqa_csv(tmp_path, *good)
    first, last = take("nextgqa", path)[0]
    read_anyway = 0
    for _ in range(1000):
        row = [rng.choice(cells) if rng.random() < 0.3 else cell for cell in middle.split()]
        if rng.random() < 0.1:
            row = row[: rng.randrange(len(row))]
        text = nextgqa_csv(tmp_path, good[0], "{}", good[1]).read_text().replace("{}", ",".join(row))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            samples, dropped, _ = take("nextgqa", path)
        except UsageError as error:
            assert str(error)
            continue
        read_anyway += 1
        assert samples[0] == first and all(each.rule and each.where for each in dropped)
        assert last in samples or '"' in text, "only an open quotation mark swallows what follows"
    assert read_anyway > 500


@pytest.mark.parametrize("form", [*sorted(PLACES), "nextgqa", "videochat2-it", "sharegpt4v", "llava-hound"])
@pytest.mark.parametrize("text", ["", "3", "null", "[" * 2000, '[{"question_id": ' + "9" * 5000 + "}]", "\x00", '{"questions": 3}'])
def test_files_of_another_kind_are_refused_in_one_sentence(take, tmp_path: Path, form: str, text: str):
    path = tmp_path / "action_sequence.json"
    path.write_text(text)
    try:
        samples, dropped, _ = take(form, path)
    except UsageError as error:
        assert "expected" in str(error) and "\n" not in str(error)
    else:
        assert not samples and dropped
