"""Workers that decode: errors are one sentence, a death names worker and clip, and no process is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.loading.small_films import small_backbone, vanished
from tpo_lab.clips import ClipLoader, LoadedClip, UnreadableClip
from tpo_lab.errors import TPOError
from tpo_lab.media import Frames
from tpo_lab.sample import Sample
from tpo_lab.training import StageData
from tpo_lab.training.rows.decoding import ClipRequest, Decoders, Request, start_method
from tpo_lab.training.rows.loading import RowSource

ROOT = Path(__file__).parents[2]


class Odd(ClipLoader):
    """Loads, but does what a sample's id says first."""

    def clip(self, sample: Sample) -> LoadedClip:
        match sample.id.partition("-")[0]:
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(7)
            case "memory":
                raise MemoryError("of 9 GB\nand more")
            case "unreadable":
                raise UnreadableClip("x.mp4", expected="a video", got="bytes", sample_id=sample.id, file="x.mp4")
            case "wait":
                time.sleep(3600)
        return super().clip(sample)


def requests(films: list[Sample], *ids: str) -> Iterator[Request]:
    for step, name in enumerate(ids):
        named = films[0].model_copy(update={"id": name or f"plain-{step}"}).at(films[0].root)
        yield Request(step, (ClipRequest.of(0, films[1]), ClipRequest.of(1, named)))


def decoders(films: list[Sample], *ids: str, workers: int = 2) -> Decoders:
    return Decoders(Odd(small_backbone()), requests(films, *ids), workers=workers, prefetch=1)


def test_answers_come_in_the_order_of_the_requests(films: list[Sample]) -> None:
    found = decoders(films, "", "", "", "", "")
    answers = [found.next() for _ in range(5)]
    assert [answer.step for answer in answers] == [0, 1, 2, 3, 4]
    assert all(set(answer.clips) == {0, 1} for answer in answers)
    with pytest.raises(StopIteration):
        found.next()
    pids = found.pids()
    assert len(set(pids)) == 2 and os.getpid() not in pids
    found.close()
    assert vanished(pids)


def test_a_clip_that_cannot_be_read_is_no_error_of_the_worker(films: list[Sample]) -> None:
    found = decoders(films, "unreadable", "")
    answer = found.next()
    assert set(answer.clips) == {0} and answer.unreadable[1].sample_id == "unreadable"
    assert not found.next().unreadable
    found.close()


def test_any_other_error_is_one_sentence_with_sample_and_file(films: list[Sample]) -> None:
    found = decoders(films, "memory")
    with pytest.raises(TPOError) as caught:
        found.next()
    assert str(caught.value) == f"sample memory: {films[0].media_path} could not be read (MemoryError: of 9 GB)."
    found.close()


@pytest.mark.parametrize(
    ("how", "said"), [("die", "was killed by SIGKILL"), ("segfault", "was killed by SIGSEGV"), ("exit", "ended with exit code 7")]
)
def test_a_dead_worker_is_named_with_the_clip_that_it_read(films: list[Sample], how: str, said: str) -> None:
    found = decoders(films, "", f"{how}-1", "", "")
    with pytest.raises(TPOError) as caught:
        for _ in range(4):
            found.next()
    message = str(caught.value)
    assert message.startswith("Worker 1 (process ") and said in message
    assert f"while it read sample {how}-1: {films[0].media_path} (step 2)." in message
    assert "fewer --workers" in message and "\n" not in message and "DataLoader" not in message
    pids = found.pids()
    found.close()
    assert vanished(pids)


def test_a_worker_killed_from_outside_ends_the_training_with_that_sentence(regions: StageData) -> None:
    """Wherever the training is just then: torch says so by an error that comes between two lines of it."""
    source = RowSource(regions, Frames(small_backbone()), workers=2)
    with pytest.raises(TPOError, match=r"^Worker [01] \(process \d+\), which reads clips, was killed by SIGKILL") as caught, source:
        source.rows(0)
        pids = source.decoders.pids()
        os.kill(pids[0], signal.SIGKILL)
        for _ in range(6000):
            time.sleep(0.01)
    assert str(pids[0]) in str(caught.value)
    assert vanished(pids) and source.decoders is None


def test_other_errors_of_the_training_stay_what_they_are(regions: StageData) -> None:
    source = RowSource(regions, Frames(small_backbone()), workers=1)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), source:
        source.rows(0)
        pids = source.decoders.pids()
        raise RuntimeError("out of memory")
    assert vanished(pids)


def test_closing_does_not_wait_for_a_clip_without_end(films: list[Sample]) -> None:
    found = decoders(films, "", "wait", "wait")
    found.next()
    pids = found.pids()
    found.close()
    assert vanished(pids)


def test_endless_requests_are_read_only_as_far_as_needed(films: list[Sample]) -> None:
    given: list[int] = []

    def endless() -> Iterator[Request]:
        for step in count():
            given.append(step)
            yield Request(step, (ClipRequest.of(0, films[0]),))

    found = Decoders(ClipLoader(small_backbone()), endless(), workers=2, prefetch=3)
    found.next()
    found.close()
    assert len(given) == 2 * 3 + 1


def test_workers_fork_unless_cuda_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert start_method() == "fork"
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    assert start_method() == "forkserver"
    monkeypatch.setattr("sys.platform", "darwin")
    assert start_method() == "spawn"


SCRIPT = """
import sys, time
from tests.loading.small_films import small_backbone, stage
from tpo_lab.media import Frames
from tpo_lab.sample import read
from tpo_lab.training import StageData, by_task
from tpo_lab.training.rows.loading import RowSource

if __name__ == "__main__":
    data = StageData(by_task(read(sys.argv[1])), stage(steps=10000), seed=3)
    with RowSource(data, Frames(small_backbone(), keep=False), workers=2, method=sys.argv[2]) as source:
        for step in range(2):
            source.rows(step)
        print(*source.decoders.pids(), flush=True)
        for step in range(2, 10000):
            source.rows(step)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_no_worker_outlives_a_killed_training(films: list[Sample], tmp_path: Path, method: str) -> None:
    (tmp_path / "training.py").write_text(SCRIPT)
    file = next(films[0].root.glob("*.jsonl"))
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "training.py"), str(file), method],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    patience = threading.Timer(300, process.kill)
    patience.start()
    try:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2 and not vanished(pids, 0.2)
    finally:
        patience.cancel()
        process.kill()
        process.wait()
    assert vanished(pids)


class Command:
    """`tpo-lab train` with two workers, in a process group of its own as in a terminal."""

    def __init__(self, words: list[str], out: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tpo_lab", *words, "--workers", "2", "--out", str(out), "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._patience = threading.Timer(400, self.process.kill)
        self._patience.start()
        self.children: list[int] = []

    def wait_for(self, begin: str) -> None:
        next(line for line in self.process.stderr if line.startswith(begin))
        pid = self.process.pid
        self.children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, dict[str, Any], str]:
        try:
            out, err = self.process.communicate()
        finally:
            self._patience.cancel()
            self.process.kill()
        return self.process.returncode, json.loads(out), err


@pytest.fixture
def words(films: list[Sample], tiny_base: Path) -> list[str]:
    file = next(films[0].root.glob("*.jsonl"))
    short = ["--set", "all.steps=8", "--set", "all.batch_size=2", "--set", "frames=4", "--threads", "1"]
    return ["train", "--backbone", str(tiny_base), "--data", str(file), "--stage", "2.region", "--head", "region", *short]


def test_ctrl_c_in_a_terminal_saves_and_a_resumed_run_ends_bit_by_bit_where_a_straight_one_does(words: list[str], tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the workers too."""
    from safetensors.torch import load_file

    from tpo_lab import cli

    command = Command(words, tmp_path / "a")
    command.wait_for("stage 2.region: 2/8")
    command.press_ctrl_c()
    status, document, err = command.end()
    assert (status, document["error"]["kind"]) == (130, "interrupted") and "Traceback" not in err
    assert len(command.children) >= 2 and vanished(command.children)
    assert cli.run([*words, "--workers", "1", "--out", str(tmp_path / "a"), "--resume"]) == 0
    assert cli.run([*words, "--out", str(tmp_path / "b")]) == 0
    first, second = (load_file(next((tmp_path / run / "checkpoint").rglob("tpo.safetensors"))) for run in "ab")
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in second)


def test_ctrl_c_again_and_again_leaves_no_process(words: list[str], tmp_path: Path) -> None:
    command = Command([*words, "--set", "all.steps=1000"], tmp_path / "a")
    command.wait_for("stage 2.region: 100/1000")
    for _ in range(3):
        command.press_ctrl_c()
    status, document, err = command.end()
    assert (status, document["error"]["kind"]) == (130, "interrupted") and "Traceback" not in err
    assert vanished([*command.children, command.process.pid])


def test_a_killed_worker_ends_the_command_with_one_sentence(words: list[str], tmp_path: Path) -> None:
    command = Command([*words, "--set", "all.steps=1000"], tmp_path / "a")
    command.wait_for("stage 2.region: 100/1000")
    os.kill(command.children[-1], signal.SIGKILL)
    status, document, err = command.end()
    assert status == 1 and "Traceback" not in err and "DataLoader" not in err
    assert "which reads clips, was killed by SIGKILL" in document["error"]["message"]
    assert str(command.children[-1]) in document["error"]["message"] and vanished(command.children)
