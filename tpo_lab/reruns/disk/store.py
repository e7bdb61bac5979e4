"""The folder of a sweep: which jobs it has, and the state of each. Read by whoever makes a table, written by who runs the sweep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tpo_lab.errors import UsageError
from tpo_lab.lock import is_locked
from tpo_lab.reruns.disk.folder import JobFolder
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.keys import Contents
from tpo_lab.runs import environment, write_json

if TYPE_CHECKING:
    from tpo_lab.reruns.plan.sweep import Sweep

SCHEMA = "tpo_lab.sweep/1"
State = Literal["waiting", "running", "done", "failed", "skipped"]
# what a sweep may leave that is killed before it has written sweep.json
_OURS = ("lock", "jobs", "notebooks", "sweep.json.partial")
_FAILED = ("failed", "memory", "time")


class Store:
    """A sweep on disk.

    Args:
        out: its folder.
    """

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out).resolve()
        self._sweep = self.out / "sweep.json"
        self._known: dict[str, Job] = {}
        self._kept: dict[str, Path] = {}

    @property
    def lock(self) -> Path:
        """The file that a running sweep keeps locked."""
        return self.out / "lock"

    def claim(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        """Write sweep.json, every job.json and a copy of each notebook, so that a notebook edited later does not run under an old key.

        Jobs of an older version of the sweep stay on disk and are no longer listed.

        Raises:
            UsageError: the folder holds something else.
        """
        self.check()
        for job in jobs:
            self.folder(job.key).claim(job)
            self._keep(job.notebook)
        keys = [job.key for job in jobs]
        write_json(self._sweep, {"schema": SCHEMA, **sweep.to_dict(), "environment": environment(), "jobs": keys})

    def extend(self, jobs: Sequence[Job]) -> None:
        """Add jobs that a search came up with while the sweep runs; those that are there already keep their place."""
        document = json.loads(self._sweep.read_text(encoding="utf-8"))
        for job in jobs:
            self.folder(job.key).claim(job)
            self._keep(job.notebook)
        document["jobs"] = list(dict.fromkeys([*document["jobs"], *(job.key for job in jobs)]))
        write_json(self._sweep, document)

    def check(self) -> None:
        """See that the folder is new, empty or that of a sweep.

        Raises:
            UsageError: it is not.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError("out", expected="a folder, new or of an earlier sweep", got=f"{self.out}, a file")
        if (
            self.out.is_dir()
            and not self._sweep.exists()
            and any(path.name not in ("lock", "jobs", "notebooks") for path in self.out.iterdir())
        ):
            raise UsageError("out", expected="a new or empty folder, or one of an earlier sweep", got=str(self.out))

    def folder(self, key: str) -> JobFolder:
        """The folder of a job."""
        return JobFolder(self.out / "jobs" / key)

    def notebook(self, job: Job) -> Path:
        """The copy of its notebook that `claim` made."""
        return self._keep(job.notebook)

    def jobs(self) -> list[Job]:
        """The jobs of the sweep, in its order."""
        keys = json.loads(self._sweep.read_text(encoding="utf-8"))["jobs"] if self._sweep.exists() else []
        return [self.job(key) for key in keys]

    def job(self, key: str) -> Job:
        """The job with this key."""
        if key not in self._known:
            self._known[key] = self.folder(key).job()
        return self._known[key]

    def record(self, key: str) -> dict[str, Any] | None:
        """done.json of a job; None while it is not done."""
        return self.folder(key).record()

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Every attempt at a job that has ended, the first first."""
        return self.folder(key).attempts()

    def error(self, key: str) -> dict[str, Any] | None:
        """{"cell", "type", "message"} of a job whose last attempt failed; else None."""
        attempts = [] if self.record(key) is not None else self.attempts(key)
        found: dict[str, Any] | None = attempts[-1]["error"] if attempts else None
        return found

    def state(self, job: Job) -> State:
        """How far a job is. "skipped": it was not run because the job that it takes from failed."""
        folder = self.folder(job.key)
        if folder.record() is not None:
            return "done"
        if is_locked(folder.lock):
            return "running"
        attempts = folder.attempts()
        if attempts and has_failed(attempts[-1]):
            return "failed"
        if job.after is not None and self.state(self.job(job.after)) in ("failed", "skipped"):
            return "skipped"
        return "waiting"

    def _keep(self, notebook: str) -> Path:
        """The copy of a notebook, made when it is first asked for."""
        if notebook not in self._kept:
            source = Path(notebook)
            kept = self.out / "notebooks" / Contents().notebook(source)[:16] / source.name
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                partial = kept.with_name(kept.name + ".partial")
                shutil.copyfile(source, partial)
                partial.replace(kept)
            self._kept[notebook] = kept
        return self._kept[notebook]


def has_failed(attempt: dict[str, Any]) -> bool:
    """Whether an attempt ended by its own fault; one that was interrupted, or killed with its worker, did not."""
    return attempt["state"] in _FAILED or (attempt["state"] == "killed" and attempt["error"] is not None)
