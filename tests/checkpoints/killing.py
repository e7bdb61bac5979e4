"""Training in a process of its own that is killed at random times, and what must hold then. Also used by the benchmark.

The process is a fork of this one, so that a kill costs no imports.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.checkpoints.small_runs import differences, two_stages
from tpo_lab import checkpoint
from tpo_lab.checkpoints.kept import checkpoints
from tpo_lab.checkpoints.resumable import read_training
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.training import TrainingOptions, fit

STEPS = 4
SAVES = 2 * STEPS
LIMIT_SEC = 300
EVERY_STEP = TrainingOptions(save_every=1, keep=2)


@dataclass(frozen=True)
class Kill:
    """What was found after a kill.

    Attributes:
        after: checkpoints that the run had begun to write.
        saving: whether it was killed while it wrote or removed one.
        loadable: whether the latest one loads, model and training state.
        differences: of the run that went on from there, against one that was never killed.
    """

    after: int
    saving: bool
    loadable: bool
    differences: tuple[str, ...]


class Killer:
    """Starts the same run again and again, and kills it.

    Args:
        build: makes the model, always the same.
        samples: what it trains on.
        place: a folder for runs.
        seed: of the times at which runs are killed.
    """

    def __init__(self, build: Callable[[], TPOModel], samples: Sequence[Sample], place: Path, seed: int) -> None:
        self.build, self.samples, self.place, self.chance = build, samples, place, random.Random(seed)
        self.straight = place / "straight"
        assert self._run(self.straight, resume=False).exitcode == 0

    def kill_and_resume(self, number: int) -> Kill:
        """One run that is killed at a random time behind its first checkpoint, and then goes on to its end.

        Every second one is killed once more, soon after it has begun to go on.
        """
        out = self.place / str(number)
        begun, saving = self._killed(out)
        loadable = self._loads(out)
        if number % 2:
            again = self._start(out, resume=True)
            time.sleep(self.chance.uniform(0.0, 0.5))
            again.kill()
            again.join()
            loadable = loadable and self._loads(out)
        assert self._run(out, resume=True).exitcode == 0, "it does not go on"
        found = differences(self.straight, out)
        shutil.rmtree(out)
        return Kill(begun, saving, loadable, tuple(found))

    def _killed(self, out: Path) -> tuple[int, bool]:
        """Kill the run within a few hundredths of a second behind something that happened in it: a slow machine changes nothing."""
        while not self._is_killed(out):
            shutil.rmtree(out)
        unfinished = [path for path in (out / "checkpoints").iterdir() if path.suffix in (".partial", ".dropped", ".old")]
        return len(_begun(out)), bool(unfinished)

    def _is_killed(self, out: Path) -> bool:
        """Whether the kill came before the end of the run."""
        process = self._start(out, resume=False)
        due, until = self.chance.randint(1, SAVES - 1), time.monotonic() + LIMIT_SEC
        while process.is_alive() and (len(_begun(out)) < due or not checkpoints(out)):
            assert time.monotonic() < until, "the run does not get on"
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0.0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), "the run failed by itself"
        return process.exitcode != 0

    @staticmethod
    def _loads(out: Path) -> bool:
        """Whether the latest checkpoint is there as a whole, with all that a run needs to go on; fails where it cannot be read."""
        folder = checkpoint.latest(out)
        if folder is None:
            return False
        checkpoint.load(folder)
        return bool(read_training(folder).tensors["optimizer"])

    def _run(self, out: Path, *, resume: bool) -> multiprocessing.process.BaseProcess:
        process = self._start(out, resume=resume)
        process.join(LIMIT_SEC)
        return process

    def _start(self, out: Path, *, resume: bool) -> multiprocessing.process.BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=self._train, args=(out, resume), daemon=True)
        process.start()
        return process

    def _train(self, out: Path, resume: bool) -> None:
        os.setsid()
        fit(self.build(), list(self.samples), two_stages(STEPS), out, resume=resume, options=EVERY_STEP)


def _begun(out: Path) -> set[str]:
    """Steps of stages that are in the log: a checkpoint of each follows at once."""
    log = out / "metrics.jsonl"
    return set(log.read_text().splitlines()) if log.exists() else set()
