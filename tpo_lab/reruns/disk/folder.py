"""The folder of one job: what was asked, its attempts, what came of it, and who works in it now."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tpo_lab.reruns.plan.job import Job
from tpo_lab.runs import read_jsonl, write_json

DONE = "tpo_lab.job/1"


class JobFolder:
    """Everything that is kept of one job. Only who holds the lock writes here.

    Args:
        path: the folder; its name is the job's key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path.name
        self.executed = path / "executed.ipynb"
        self.log = path / "log.txt"
        self.lock = path / "lock"
        self._job, self._done, self._attempts = path / "job.json", path / "done.json", path / "attempts.jsonl"
        self._result, self._running = path / "result.json", path / "running.json"

    def claim(self, job: Job) -> None:
        """Write what is asked, where it is not there yet."""
        if _read(self._job) != job.to_dict():
            write_json(self._job, job.to_dict())

    def job(self) -> Job:
        """What is asked."""
        return Job.from_dict(json.loads(self._job.read_text(encoding="utf-8")))

    def record(self) -> dict[str, Any] | None:
        """done.json, where it is there and belongs to this job."""
        found = _read(self._done)
        return found if found is not None and found.get("key") == self.key else None

    def result(self) -> dict[str, Any] | None:
        """result.json, where this very job wrote it."""
        found = _read(self._result)
        return found if found is not None and found.get("job") == self.key else None

    def drop_result(self) -> None:
        """Remove a result that is not this job's, or not to be trusted; the state of its training stays."""
        self._result.unlink(missing_ok=True)

    def attempts(self) -> list[dict[str, Any]]:
        """Every attempt that has ended, the first first."""
        return read_jsonl(self._attempts) if self._attempts.exists() else []

    def running(self) -> dict[str, Any] | None:
        """Who works here and how far it is; also there where that process was killed."""
        return _read(self._running)

    def begin(self, worker: str) -> dict[str, Any]:
        """Note that an attempt begins."""
        note = {"number": len(self.attempts()) + 1, "began": time.time(), "worker": worker, **_this_process(), "cell": 0, "cells": 0}
        self.note(note)
        return note

    def note(self, note: dict[str, Any]) -> None:
        """Replace what stands there about the attempt that runs."""
        write_json(self._running, note)

    def end(self, note: dict[str, Any], state: str, *, error: dict[str, Any] | None = None, seconds: float | None = None) -> dict[str, Any]:
        """Add the line of an attempt, mark the job as done where it is, and note that nobody works here any more.

        Returns:
            the line.
        """
        took = time.time() - note["began"] if seconds is None else seconds
        line = {
            "number": note["number"],
            "state": state,
            "began": _text(note["began"]),
            "seconds": round(took, 3),
            **{name: note.get(name) for name in ("worker", "host")},
            "error": error,
        }
        earlier = self.attempts()
        if not earlier or earlier[-1]["number"] != line["number"]:
            self._write_attempts([*earlier, line])
        if state == "done":
            self._mark_done(line["seconds"])
        self._running.unlink(missing_ok=True)
        return line

    def settle(self) -> bool:
        """Whether the job is done; where its result was written and the process then killed, what was left to write is written now."""
        if self.record() is not None:
            self._running.unlink(missing_ok=True)
            return True
        if self.result() is None:
            return False
        note = self.running() or {"number": len(self.attempts()) + 1, "began": self._result.stat().st_mtime}
        self.end(note, "done", seconds=self._result.stat().st_mtime - note["began"])
        return True

    def bury(self, error: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """End the attempt of a process that was killed; None where there is none."""
        note = self.running()
        if note is None:
            return None
        return self.end(note, "killed", error=error, seconds=max(self._running.stat().st_mtime - note["began"], 0.0))

    def _mark_done(self, seconds: float) -> None:
        result = self.result() or {}
        done = {
            "schema": DONE,
            "key": self.key,
            "result": result,
            "seconds": seconds,
            "peak_memory_mb": result.get("peak_memory_mb"),
            "finished": _text(time.time()),
        }
        write_json(self._done, done)

    def _write_attempts(self, lines: list[dict[str, Any]]) -> None:
        # rewritten as a whole: a kill in the middle of a line would spoil the one after it
        partial = self._attempts.with_name(self._attempts.name + ".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        os.replace(partial, self._attempts)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _this_process() -> dict[str, Any]:
    import platform

    return {"host": platform.node(), **{f"worker_{name}": value for name, value in process(os.getpid()).items()}}


def process(pid: int) -> dict[str, Any]:
    """What tells a process from another one that gets its number later."""
    import psutil

    try:
        return {"pid": pid, "started": psutil.Process(pid).create_time()}
    except psutil.Error:
        return {"pid": pid, "started": None}


def lives(pid: int | None, started: float | None) -> bool:
    """Whether that very process runs, on this machine."""
    import psutil

    if pid is None:
        return False
    try:
        found = psutil.Process(pid)
        return bool(found.status() != psutil.STATUS_ZOMBIE and found.create_time() == started)
    except psutil.Error:
        return False
