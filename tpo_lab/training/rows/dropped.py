"""Samples that a run has to do without because their clips cannot be read: listed, counted, and no more of them than allowed."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from tpo_lab.clips import UnreadableClip
from tpo_lab.datasets.conversion import Limit, TooManyDropped
from tpo_lab.runs import read_jsonl
from tpo_lab.sample import Sample

DROPPED = "dropped.jsonl"
BAD_FILE_POLICIES = ("raise", "skip")


class DropList:
    """The file dropped.jsonl of a run, to which all of its processes add lines.

    Each line has the keys stage, step (from 1), sample, file and reason. A sample has a line for every step that it is missing from, and
    counts once against the limit.

    Args:
        run: its folder.
        stage: its name.
        samples: how many different samples the stage has; the limit may be a share of them.
        limit: how many of these may be dropped.
    """

    def __init__(self, run: Path, stage: str, *, samples: int, limit: Limit) -> None:
        self.path, self.stage, self.samples, self.limit = run / DROPPED, stage, samples, limit
        self._ids: set[str] = set()
        self._by_step: Counter[int] = Counter()
        self._offset = 0

    def keep_until(self, step: int) -> None:
        """Take out what the stage dropped after a step: a resumed run drops it again."""
        if not self.path.exists():
            return
        kept = [line for line in read_jsonl(self.path) if line["stage"] != self.stage or line["step"] <= step]
        unfinished = self.path.with_name(self.path.name + ".partial")
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(unfinished, self.path)

    def add(self, step: int, samples: list[Sample], error: UnreadableClip) -> None:
        """List the samples of a row that a step, counted from 1, has to do without.

        Raises:
            TooManyDropped: now there are more than the limit.
        """
        found = {"stage": self.stage, "step": step, "file": error.file, "reason": str(error)}
        lines = "".join(json.dumps({**found, "sample": sample.id}) + "\n" for sample in samples)
        # one call, so that lines of several processes do not mix
        with self.path.open("ab", buffering=0) as file:
            file.write(lines.encode())
        self._read()
        if self.limit.exceeded(len(self._ids), self.samples):
            raise TooManyDropped(
                f"stage {self.stage}, step {step}: {len(self._ids)} of {self.samples} samples were left out because their clips cannot be "
                f"read, more than --max-dropped {self.limit.text}. They are listed in {self.path}."
            )

    def count(self, step: int) -> int:
        """How many samples a step, counted from 1, had to do without, in all processes."""
        self._read()
        return self._by_step[step]

    def _read(self) -> None:
        """Take in the lines that were added since the last time, by this process or another one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in map(json.loads, whole.splitlines()):
            if line["stage"] == self.stage:
                self._ids.add(line["sample"])
                self._by_step[line["step"]] += 1
