"""A file of answers: what a line holds, how a stopped call goes on, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_lab.asking import ask
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample, write
from tpo_lab.serving import Line, answer_file, ask_many, read_lines
from tpo_lab.serving.answer_file import TooManyFailed
from tpo_lab.serving.origin import origin_path
from tpo_lab.video import write_clip

SHORT: dict[str, Any] = {"batch_size": 2, "max_tokens": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, and eight questions about them and about what is not there."""
    folder = tmp_path_factory.mktemp("asked")
    for name, seed in (("a.mp4", 0), ("b.mp4", 1)):
        write_clip(folder / name, np.random.default_rng(seed).integers(0, 255, (8, 48, 80, 3), dtype=np.uint8), 4.0)
    lines = [{"id": f"q{place}", "video": ("a.mp4", "b.mp4")[place % 2], "question": f"What is {place}?"} for place in range(7)]
    lines.insert(4, {"id": "gone", "video": "gone.mp4", "question": "What?"})
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def whole(tiny: TPOModel, folder: Path, tmp_path: Path) -> bytes:
    """The answers of a call that was never stopped."""
    answer_file(tiny, folder / "questions.jsonl", tmp_path / "whole.jsonl", **SHORT)
    return (tmp_path / "whole.jsonl").read_bytes()


def test_line_has_the_question_and_the_answer_of_ask(tiny: TPOModel, folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    out = tmp_path / "new" / "answers.jsonl"
    found = answer_file(tiny, folder / "questions.jsonl", out, listener=lambda *numbers: told.append(numbers), **SHORT)
    assert (found.total, found.found, found.answered, found.failed) == (8, 0, 7, 1)
    assert told == [(number, 0, 8) for number in range(1, 9)]
    by_line = {line["line"]: line for line in lines_of(out)}
    assert {number: line["id"] for number, line in by_line.items()} == {
        **{number: f"q{number - 1}" for number in range(1, 5)},
        5: "gone",
        **{number: f"q{number - 2}" for number in range(6, 9)},
    }
    answer, clip = ask(tiny, folder / "b.mp4", "What is 3?", max_tokens=3)
    assert by_line[4] == {
        "line": 4,
        "id": "q3",
        "video": "b.mp4",
        "question": "What is 3?",
        "start_sec": 0.0,
        "duration_sec": clip.duration_sec,
        **json.loads(json.dumps(answer.to_dict())),
    }
    assert by_line[5].keys() == {"line", "id", "video", "question", "error"} and "gone.mp4" in by_line[5]["error"]


def test_call_that_was_stopped_anywhere_goes_on_to_the_same_file(tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes) -> None:
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    cuts = sorted({0, 1, *ends, *(end - 1 for end in ends), *(end + 9 for end in ends[:-1])})
    out = tmp_path / "whole.jsonl"
    for cut in cuts:
        out.write_bytes(whole[:cut])
        found = answer_file(tiny, folder / "questions.jsonl", out, **SHORT)
        assert out.read_bytes() == whole, f"cut after {cut} bytes"
        assert found.found == whole[:cut].count(b"\n") and found.answered == 7


def test_finished_file_asks_nothing(tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpo_lab.serving.answering._Service.answer", lambda *_: pytest.fail("a question was asked"))
    found = answer_file(tiny, folder / "questions.jsonl", tmp_path / "whole.jsonl", **SHORT)
    assert (found.found, found.answered, found.failed) == (8, 7, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", "got 'another model'"),
        ("questions", "got 'other questions'"),
        ("max_tokens", "got 'max_tokens 4 in place of 3'"),
        ("origin", r"got 'no whole\.origin\.json beside it'"),
    ],
)
def test_answers_of_something_else_are_refused_unless_told(
    tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes, change: str, message: str
) -> None:
    out, questions, options = tmp_path / "whole.jsonl", folder / "questions.jsonl", dict(SHORT)
    out.write_bytes(whole[: whole.index(b"\n") + 1])
    if change == "model":
        next(iter(tiny.heads.parameters())).data.view(-1)[0] += 1e-3
    elif change == "questions":
        questions = tmp_path / "questions.jsonl"
        questions.write_text((folder / "questions.jsonl").read_text().replace("What is 6?", "What is 5?"))
    elif change == "max_tokens":
        options["max_tokens"] = 4
    else:
        origin_path(out).unlink()
    before = out.read_bytes()
    with pytest.raises(UsageError, match=rf"answers .*whole\.jsonl: expected answers of the same model, questions and settings, {message}"):
        answer_file(tiny, questions, out, **options)
    assert out.read_bytes() == before
    found = answer_file(tiny, questions, out, resume_anyway=True, **options)
    assert (found.found, found.answered + found.failed) == (1, 8) and out.read_bytes().startswith(before)
    answer_file(tiny, questions, out, **options), "what was accepted is known from then on"


def test_questions_added_at_the_end_are_no_other_questions(tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes) -> None:
    out, questions = tmp_path / "whole.jsonl", tmp_path / "questions.jsonl"
    added = json.dumps({"id": "added", "video": str(folder / "a.mp4"), "question": "More?"})
    questions.write_text((folder / "questions.jsonl").read_text() + added + "\n")
    found = answer_file(tiny, questions, out, **SHORT)
    assert (found.total, found.found) == (9, 8)
    assert out.read_bytes().startswith(whole) and lines_of(out)[-1]["id"] == "added"


def test_line_that_grew_is_another_question(tiny: TPOModel, folder: Path, tmp_path: Path) -> None:
    line = json.dumps({"video": str(folder / "a.mp4"), "question": "One?"})
    (tmp_path / "q.jsonl").write_text(line)
    answer_file(tiny, tmp_path / "q.jsonl", tmp_path / "a.jsonl", **SHORT)
    (tmp_path / "q.jsonl").write_text(line + " nonsense\n")
    with pytest.raises(UsageError, match="other questions"):
        answer_file(tiny, tmp_path / "q.jsonl", tmp_path / "a.jsonl", **SHORT)
    (tmp_path / "q.jsonl").write_text(line + "\n" + line + "\n")
    assert answer_file(tiny, tmp_path / "q.jsonl", tmp_path / "a.jsonl", **SHORT).found == 1


def test_failed_lines_are_asked_again_where_told(tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes) -> None:
    (folder / "gone.mp4").write_bytes((folder / "a.mp4").read_bytes())
    try:
        out = tmp_path / "whole.jsonl"
        assert answer_file(tiny, folder / "questions.jsonl", out, **SHORT).failed == 1
        found = answer_file(tiny, folder / "questions.jsonl", out, retry_failed=True, **SHORT)
    finally:
        (folder / "gone.mp4").unlink()
    assert (found.found, found.answered, found.failed) == (7, 8, 0)
    assert sorted(line["line"] for line in lines_of(out)) == list(range(1, 9))
    assert set(out.read_text().splitlines()) > {line for line in whole.decode().splitlines() if '"error"' not in line}


def test_too_many_failures_stop_the_call(tiny: TPOModel, folder: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(place), "video": "gone.mp4", "question": "What?"}) for place in range(9)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    with pytest.raises(TooManyFailed, match=r"More than 3 of the questions failed, the last one with: .*gone\.mp4"):
        answer_file(tiny, tmp_path / "q.jsonl", tmp_path / "a.jsonl", max_failed=3, **SHORT)
    assert len(lines_of(tmp_path / "a.jsonl")) == 4
    assert answer_file(tiny, tmp_path / "q.jsonl", tmp_path / "a.jsonl", max_failed=9, **SHORT).failed == 9


def test_second_call_at_the_same_time_is_refused(tiny: TPOModel, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"

    def again(*_: int) -> None:
        with pytest.raises(UsageError, match=r"answers: expected a file that no other call writes to, got .*a\.jsonl"):
            answer_file(tiny, folder / "questions.jsonl", out, **SHORT)

    assert answer_file(tiny, folder / "questions.jsonl", out, listener=again, **SHORT).answered == 7


@pytest.mark.parametrize("line", [b"{}\n", b"no JSON\n", b'{"line": "1"}\n', b"[1]\n", b'{"line": 1}\n{"line": 1}\n'])
def test_answers_that_were_not_written_here_are_refused(tiny: TPOModel, folder: Path, tmp_path: Path, whole: bytes, line: bytes) -> None:
    (tmp_path / "whole.jsonl").write_bytes(line)
    with pytest.raises(UsageError, match=r"answers .*whole\.jsonl"):
        answer_file(tiny, folder / "questions.jsonl", tmp_path / "whole.jsonl", **SHORT)
    assert (tmp_path / "whole.jsonl").read_bytes() == line


def test_lines_of_both_kinds_and_lines_that_are_neither(
    tiny: TPOModel, folder: Path, tmp_path: Path, world: Callable[..., list[Sample]]
) -> None:
    samples = world(1, "conversation", "region")[:3]
    write(tmp_path / "samples.jsonl", samples)
    kinds = [
        *(tmp_path / "samples.jsonl").read_text().splitlines(),
        "",
        json.dumps({"video": str(folder / "a.mp4"), "question": "Without an id?"}),
        "no JSON",
        json.dumps({"id": "odd", "video": "a.mp4", "question": "?", "box": [1, 2, 3, 4]}),
        json.dumps({"id": "turned", "video": "a.mp4", "question": "?", "boxes": [[9, 2, 3, 4]]}),
        json.dumps({"id": 7, "video": "a.mp4", "question": "?"}),
        json.dumps({"id": "none", "question": "?"}),
        json.dumps({**json.loads(samples[0].model_dump_json()), "id": "new", "schema": "tpo_lab.sample/9"}),
        json.dumps([1]),
    ]
    (tmp_path / "mixed.jsonl").write_bytes("\n".join(kinds).encode() + b"\n\xff\xfe\n")
    found = answer_file(tiny, tmp_path / "mixed.jsonl", tmp_path / "a.jsonl", **SHORT)
    by_line = {line["line"]: line for line in lines_of(tmp_path / "a.jsonl")}
    assert (found.total, found.answered, found.failed) == (12, 4, 8)
    assert [by_line[number]["id"] for number in (2, 3, 4, 6)] == [*(sample.id for sample in samples), "6"]
    messages = {
        7: (None, "expected one JSON object"),
        8: ("odd", "box: expected only the schema's fields"),
        9: ("turned", "x1 < x2"),
        10: (None, "id: expected a valid string"),
        11: ("none", "video: expected this field"),
        12: ("new", "schema: expected tpo_lab.sample/1, got 'tpo_lab.sample/9'"),
        13: (None, "expected one JSON object"),
        14: (None, "expected UTF-8 text"),
    }
    for number, (identity, message) in messages.items():
        assert by_line[number]["id"] == identity and message in by_line[number]["error"], number


def test_sample_answers_are_those_of_evaluation(tiny: TPOModel, tmp_path: Path, world: Callable[..., list[Sample]]) -> None:
    """A converted data set is asked as `evaluate` asks it."""
    from tpo_lab.evaluation import evaluate

    samples = [sample for scene in range(3) for sample in world(scene, "region", "temporal")[:2]]
    expected = {record.id: record.text for record in evaluate(tiny, samples, max_tokens=5).records}
    found = {each.id: each.answer.text for each in ask_many(tiny, samples, max_tokens=5) if each.answer}
    assert found == expected


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    """A file of any length: nothing of it is held but the line that is looked at."""
    import tracemalloc

    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"id": "{place}", "video": "a.mp4", "question": "What?"}}\n' for place in range(100_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_lines(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100_000 and peak < 1_000_000


def test_a_million_lines_that_are_answered_cost_a_byte_each(tmp_path: Path) -> None:
    import tracemalloc

    from tpo_lab.serving.answer_file import _Kept

    path = tmp_path / "answers.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"line": {number}}}\n' for number in range(1, 200_001))
    tracemalloc.start()
    try:
        kept = _Kept(path, retry_failed=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.count == 200_000 and peak < 2_000_000
    assert Line(200_000, "", tmp_path) in kept and Line(200_001, "", tmp_path) not in kept


PROGRAM = """
import sys
from pathlib import Path
import tpo_lab
from tpo_lab.serving import answer_file
model = tpo_lab.load("nano-tpo")
print("ready", flush=True)
answer_file(model, Path(sys.argv[1]), Path(sys.argv[2]), batch_size=2, max_tokens=8, listener=lambda *n: print(*n, flush=True))
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the program in a process of its own, and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def run(questions: Path, answers: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", PROGRAM, str(questions), str(answers)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_killed_processes_lose_nothing_that_was_written(folder: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    questions = tmp_path / "questions.jsonl"
    videos = [str(folder / name) for name in ("a.mp4", "b.mp4")]
    asked = [{"id": str(place), "video": videos[place % 2], "question": f"What is {place}?"} for place in range(40)]
    questions.write_text("".join(json.dumps(each) + "\n" for each in asked))
    process = start(questions, tmp_path / "whole.jsonl")
    assert process.communicate()[1] == "" and process.returncode == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for killed_after in (1, 14, 27):
        process = start(questions, tmp_path / "killed.jsonl")
        assert process.stdout is not None
        for said in process.stdout:
            if said.startswith(f"{killed_after} "):
                break
        process.kill()
        process.communicate()
        assert (tmp_path / "killed.jsonl").read_bytes().count(b"\n") >= killed_after
        assert whole.startswith((tmp_path / "killed.jsonl").read_bytes())
    process = start(questions, tmp_path / "killed.jsonl")
    assert process.communicate()[1] == "" and process.returncode == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == whole
