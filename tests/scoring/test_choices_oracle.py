"""Multiple choice from files, against rules written letter by letter; and every case that the official rules are known for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring.samples import text
from tpo_lab.errors import UsageError
from tpo_lab.scoring import Report, Request, score

LETTERS = "ABCD"
PHRASES = [
    "",
    "(",
    "Best option:(",
    "The best answer is ",
    "The answer is ",
    "The answer: ",
    "Best answer:",
    "The best option is ",
    "I think that the red one beside the tall tree is meant, ",
]
answer = st.one_of(
    st.builds(lambda phrase, letter, tail: phrase + letter + tail, st.sampled_from(PHRASES), st.sampled_from("ABCDEabn"),
              st.sampled_from(["", ".", ")", ") a cat", ". a cat", ":", " cat", "at", ")(B)", "\n", " )"])),
    st.text("ABCabN().: x\n", max_size=9),
)  # fmt: skip
questions = st.lists(
    st.tuples(st.sampled_from(["action", "count", "order"]), st.sampled_from(LETTERS), st.sampled_from(["short", "long"]), answer),
    min_size=1,
    max_size=12,
)


def strict(said: str) -> str | None:
    rest = said.strip()
    rest = rest[1:] if rest[:1] == "(" else rest
    letter, rest = rest[:1], rest[1:]
    if not (letter.isascii() and letter.isalpha()):
        return None
    for marks in (")", ".:"):
        rest = rest[1:] if rest and rest[0] in marks else rest
    return letter.upper() if not rest or rest[0].isspace() else None


def mvbench(said: str, letter: str) -> bool:
    option, head = "(" + letter.lower() + ")", ""
    for each in said.lower():
        if each == " ":
            break
        head += each
    bare = "".join(each for each in head if each != ".")
    parts = {option[start:end] for start in range(4) for end in range(start, 4)}
    return bare in parts or any(head[start : start + 3] == option for start in range(len(head)))


def video_mme(said: str) -> str | None:
    rest = said
    # of the official phrases, two pairs are one string each, which no answer holds
    for phrase in ("The best answer is", "The correct answer is", "The answer is", "The answer"):
        rest = "".join(rest.split(phrase))
    return next((each for each in rest if each in LETTERS), None)


def mlvu(said: str) -> str:
    return said[: said.index(")")] if ")" in said else said


def single(text_: str, allowed: str) -> str | None:
    return text_ if len(text_) == 1 and text_ in allowed else None


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
READ: dict[str, Callable[[str], str | None]] = {
    "mvbench": strict,
    "video-mme": video_mme,
    "mlvu": lambda said: single(mlvu(said), ALPHABET),
    "mmiu": lambda said: single(said.strip().upper(), ALPHABET[:14]),
    "seed-bench-2": lambda said: single(said.strip(), ALPHABET),
}


def average(rights: list[bool]) -> float:
    return 100 * sum(rights) / len(rights) if rights else 0.0


@pytest.mark.parametrize("variant", ["official", "strict"])
@pytest.mark.parametrize("benchmark", READ)
@given(asked=questions)
@settings(max_examples=60)
def test_averages_equal_the_definition(benchmark: str, variant: str, asked):
    def run(root: Path) -> Report:
        truth = [{"question_id": f"q{n}", "task_type": task, "answer": letter} for n, (task, letter, _, _) in enumerate(asked)]
        videos = [{"video_id": str(n), "duration": asked[n][2], "questions": [row]} for n, row in enumerate(truth)]
        gt = text(root / "g.json", json.dumps(videos if benchmark == "video-mme" else truth))
        rows = [{"question_id": f"q{n}", "response": said} for n, (_, _, _, said) in enumerate(asked)]
        return score(benchmark, Request(text(root / "p.json", json.dumps(rows[::-1])), gt, variant=variant))

    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder))
    read = strict if variant == "strict" else READ[benchmark]
    rows = []
    for task, letter, duration, said in asked:
        found = read(said)
        right = mvbench(said, letter) if (benchmark, variant) == ("mvbench", "official") else found == letter
        rows.append((task, duration, right, found is not None))
    counted = [row for row in rows if row[3] or (benchmark, variant) != ("video-mme", "official")]
    by_task = {task: average([row[2] for row in counted if row[0] == task]) for task in {row[0] for row in rows}}
    kept_tasks = {row[0] for row in counted}
    macro = sum(by_task[task] for task in kept_tasks) / len(kept_tasks) if kept_tasks else 0.0
    expected = {**by_task, "Avg": macro if benchmark in ("mlvu", "mmiu") else average([row[2] for row in counted])}
    assert report.metrics == pytest.approx(expected)
    assert report.counts.unparsable == report.detail["parse_failures"] == sum(not row[3] for row in rows)
    if benchmark == "video-mme":
        of = {name: average([row[2] for row in counted if row[1] == name]) for name in {row[1] for row in rows}}
        assert report.detail["duration"] == pytest.approx(of)


def scored(benchmark: str, root: Path, said: list[object], letters: str, variant: str = "official", **fields: object) -> Report:
    truth = [{"question_id": n, "task_type": "t", "answer": letter, **fields} for n, letter in enumerate(letters)]
    rows = [{"question_id": n, "response": each} for n, each in enumerate(said)]
    pred, gt = text(root / "p.json", json.dumps(rows)), text(root / "g.json", json.dumps(truth))
    return score(benchmark, Request(pred, gt, variant=variant))


def test_mvbench_empty_answers_are_right_officially_and_shown_as_failures(tmp_path: Path):
    said = ["", "(", "(A)(C)", "The answer is C", "(C) a cat"]
    report = scored("mvbench", tmp_path, said, "CCCCC")
    assert (report.metrics["Avg"], report.counts.unparsable, report.options["unread"]) == (80.0, 4, "judged all the same")
    report = scored("mvbench", tmp_path, said, "CCCCC", "strict")
    assert (report.metrics["Avg"], report.counts.unparsable, report.options["unread"]) == (20.0, 4, "wrong")


def test_video_mme_unanswered_questions_leave_the_denominator(tmp_path: Path):
    long = "one two three four five six seven eight nine ten eleven"
    said = ["C", "", long, None, "Best answer:D", "Can say B"]
    report = scored("video-mme", tmp_path, said, "CCCCBC")
    assert (report.metrics["Avg"], report.counts.unparsable, report.options["unread"]) == (100.0, 3, "left out")
    report = scored("video-mme", tmp_path, said, "CCCCBC", "strict")
    assert (report.metrics["Avg"], report.options["unread"]) == (pytest.approx(100 / 6), "wrong")


def test_mlvu_is_the_mean_over_tasks_and_leaves_generation_out(tmp_path: Path):
    tasks = {"1_plotQA": ["A"] * 3, "4_count": ["B"]}
    for name, letters in tasks.items():
        rows = [{"question_id": f"{name}{n}", "question_type": name[2:], "answer": each} for n, each in enumerate(letters)]
        text(tmp_path / "gt" / f"{name}.json", json.dumps(rows))
    text(tmp_path / "gt" / "9_summary.json", json.dumps([{"video": "v", "question": "Sum it up.", "answer": "A man walks."}]))
    text(tmp_path / "gt" / "8_sub.json", json.dumps([{"question": "What?", "answer": "He runs.", "question_type": "sub_scene"}]))
    said = {"1_plotQA0": "A) x", "1_plotQA1": "A", "1_plotQA2": "(A) x", "4_count0": "C"}
    report = score("mlvu", Request(text(tmp_path / "p.json", json.dumps(said)), tmp_path / "gt"))
    assert report.metrics == pytest.approx({"plotQA": 200 / 3, "count": 0.0, "Avg": 100 / 3})
    assert report.detail["left_out"] == {"summary": 1, "sub_scene": 1} and report.detail["Avg over questions"] == 50.0
    assert report.counts.unparsable == 1 and report.options["average"] == "tasks"


def test_mmiu_is_the_mean_over_tasks_and_reads_single_letters_of_any_case(tmp_path: Path):
    for task, outputs in {"a": "AB", "b": "C"}.items():
        rows = [{"id": f"{task}{n}", "task": task, "output": each, "options": "A: x"} for n, each in enumerate(outputs)]
        text(tmp_path / "gt" / task / "metadata_info.json", json.dumps(rows))
    said = {"a0": " a ", "a1": "Z", "b0": "C."}
    report = score("mmiu", Request(text(tmp_path / "p.json", json.dumps(said)), tmp_path / "gt"))
    assert report.metrics == {"a": 50.0, "b": 0.0, "Avg": 25.0} and report.counts.unparsable == 2


def test_seed_bench_2_states_its_average_and_gives_the_other_one(tmp_path: Path):
    rows = [
        {"question_id": f"{kind}_{n}", "question_type_id": kind, "answer": "A"} for kind, count in ((1, 3), (17, 1)) for n in range(count)
    ]
    gt = text(tmp_path / "g.json", json.dumps({"questions": rows}))
    said = [{"question_id": row["question_id"], "prediction": "A" if row["question_type_id"] == 1 else "B"} for row in rows]
    report = score("seed-bench-2", Request(text(tmp_path / "p.jsonl", "\n".join(map(json.dumps, said))), gt))
    assert report.metrics == {"Avg": 75.0, "1": 100.0, "17": 0.0}
    assert (report.options["average"], report.detail["Avg over tasks"]) == ("questions", 50.0)


def test_mvbench_answers_by_place_follow_the_order_of_the_official_tool(tmp_path: Path):
    """Its results hold no id, and its tasks do not come in the order of the alphabet."""
    for task, answers in {
        "action_antonym": "C",
        "action_count": "D",
        "action_prediction": "BB",
        "action_sequence": "A",
        "extra": "E",
    }.items():
        rows = [{"video": "v", "question": "q", "candidates": list("vwxyz"), "answer": "vwxyz"["ABCDE".index(each)]} for each in answers]
        text(tmp_path / "gt" / f"{task}.json", json.dumps(rows))
    rows = [{"pred": f"({each}", "gt": f"({each}) x"} for each in "ABBCDE"]
    pred = text(tmp_path / "p.json", json.dumps({"acc_dict": {}, "res_list": rows}))
    assert set(score("mvbench", Request(pred, tmp_path / "gt")).metrics.values()) == {100.0}
    text(pred, json.dumps({"res_list": [rows[1], rows[0], *rows[2:]]}))
    with pytest.raises(UsageError, match=r"p.json, \[0\], gt: expected the answer A of"):
        score("mvbench", Request(pred, tmp_path / "gt"))
