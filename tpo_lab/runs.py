"""Run folders: what was asked, from which code, with which seeds, on which machine, and what came of it."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tpo_lab._version import __version__
from tpo_lab.errors import UsageError

METRICS = "metrics.jsonl"
PROBES = "probes.jsonl"
_NO_LOSSES = frozenset({"stage", "step", "seconds", "lr", "rows", "dropped", "memory_mib", "cuda_mib", "gradient", "not_finite"})


def commit() -> str | None:
    """The git commit of the code that runs, with "+changes" where the checkout differs from it; None outside a checkout."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # an installed package may lie inside the checkout of another project
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def environment() -> dict[str, Any]:
    """What a reader needs to judge whether a run can be repeated."""
    import torch

    return {
        "tpo_lab": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    _replace_text(path, json.dumps(value, indent=2) + "\n")


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save a state of tensors, as `torch.save`, so that a reader finds the old file or the new one, never half of one."""
    import torch

    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class RunFolder:
    """A folder that can be reproduced.

    Args:
        path: created where it is missing.
        config: written to config.json before anything else, with the environment; a resumed run keeps the first one.
    """

    def __init__(self, path: Path | str, config: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", {**config, "environment": environment()})
        self._metrics, self._probes = self.path / METRICS, self.path / PROBES
        self.listener: Callable[[Mapping[str, Any]], None] | None = None

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl, and tell the listener where there is one.

        Numbers that are not finite are no JSON: the line names them under "not_finite", and has no value of theirs.
        """
        broken = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        finite = {name: value for name, value in values.items() if name not in broken}
        _append(self._metrics, {**finite, "not_finite": broken} if broken else finite)
        if self.listener is not None:
            self.listener(values)

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl."""
        return read_jsonl(self._metrics) if self._metrics.exists() else []

    def log_probe(self, **values: Any) -> None:
        """Append one line to probes.jsonl; numbers that are not finite are null in it."""
        _append(self._probes, _finite(values))

    def probes(self) -> list[dict[str, Any]]:
        """Every line of probes.jsonl."""
        return read_probes(self.path)

    def keep_until(self, stage: str, step: int) -> None:
        """Drop what a stage logged after `step`: a resumed run repeats it."""
        for path, lines in ((self._metrics, self.metrics()), (self._probes, self.probes())):
            kept = [line for line in lines if line.get("stage") != stage or line.get("step", 0) <= step]
            if kept or path.exists():
                _replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def is_loss(name: str) -> bool:
    """Whether a name in a line of metrics.jsonl is that of the loss or of one of its terms."""
    return name.partition("/")[0] not in _NO_LOSSES


def read_probes(run: Path | str) -> list[dict[str, Any]]:
    """What was measured of a run's gradients as it trained: the lines of its probes.jsonl, in their order; none where it has no such file.

    Each line has these keys; numbers that were not finite are None::

        stage      its name
        step       before which it was measured, from 1
        seconds    that the measurement took
        samples    ids of the stage's samples that were measured
        losses     by term: value, weight, weighted
        gradients  as `tpo_lab.probes.trace.Gradients.to_dict` gives them
        routes     by head: due, probability, most_probable; see `tpo_lab.probes.step.RoutesOf`

    Args:
        run: the run folder.
    """
    path = Path(run) / PROBES
    return read_jsonl(path) if path.exists() else []


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _finite(value: Any) -> Any:
    """With None in the place of numbers that are not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; a last line that an interrupted run left unfinished is dropped.

    Raises:
        UsageError: another line is no JSON.
    """
    records = []
    *lines, unfinished = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate([*lines, unfinished], 1):
        try:
            if line.strip():
                records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number <= len(lines):
                raise UsageError(f"{path}, line {number}", expected="JSON", got=line[:80], hint="The file is damaged.") from error
    return records


def last_jsonl(path: Path, *, within: int = 8192) -> dict[str, Any] | None:
    """The last whole record of a JSONL file that another process may be writing; None while it has none.

    Args:
        within: bytes at the file's end that are looked at first; twice as many, and so on, until a whole record is among them.
    """
    if not path.exists():
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        while True:
            file.seek(max(0, size - within))
            before, _, line = file.read().rpartition(b"\n")[0].rpartition(b"\n")
            if before or within >= size:
                break
            within *= 2
    return json.loads(line) if line.strip() else None


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Measures wall seconds of a block under the key "seconds"."""
    found: dict[str, float] = {}
    began = time.monotonic()
    try:
        yield found
    finally:
        found["seconds"] = time.monotonic() - began
