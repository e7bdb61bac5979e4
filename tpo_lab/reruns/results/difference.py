"""What tells two runs apart: parameters, code and environment, metrics, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpo_lab.errors import UsageError
from tpo_lab.reruns.disk.record import HEADLINE, scalars
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.results.collected import Run, is_sweep, runs_in, sweep_of
from tpo_lab.runs import METRICS, last_jsonl
from tpo_lab.trackers import flat_parameters

_OF_THE_CALL = frozenset({"command", "threads"})


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The names whose values differ, with both; None where one has no such name."""
    names = dict.fromkeys([*first, *second])
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def facts_of_run(run: Run) -> dict[str, Any]:
    """Parameters, seed, state, code and result of a run of a sweep, under dotted names."""
    folder = run.folder.parent.parent
    sweep = sweep_of(folder) if is_sweep(folder) else {}
    return _facts(run.job, run.record or {}, run.state, sweep)


def facts_in(folder: Path) -> dict[str, Any]:
    """The same of a folder: of a sweep, of one of its runs, or of a training run.

    Raises:
        UsageError: it is none of them.
    """
    if is_sweep(folder):
        named = {f"{run.job.name}: {name}": value for run in runs_in(folder) for name, value in _headline_and_state(run).items()}
        return {**_without_runs(sweep_of(folder)), **named}
    if (folder / "job.json").is_file():
        return _facts_of_job(folder)
    if (folder / "config.json").is_file():
        last = last_jsonl(folder / METRICS) or {}
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {**_named("", config), **{f"last.{name}": value for name, value in last.items()}}
    raise UsageError("folder", expected="a folder with sweep.json, job.json or config.json in it", got=str(folder))


def _headline_and_state(run: Run) -> dict[str, Any]:
    start = f"{HEADLINE}."
    return {"state": run.state, **{name.removeprefix(start): value for name, value in run.values.items() if name.startswith(start)}}


def _without_runs(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep and its environment without the list of keys, which differs whenever anything does."""
    return _named("", {name: value for name, value in sweep.items() if name != "jobs"})


def _facts_of_job(folder: Path) -> dict[str, Any]:
    job = Job.from_dict(json.loads((folder / "job.json").read_text(encoding="utf-8")))
    done = folder / "done.json"
    record = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    above = folder.parent.parent
    return _facts(job, record, "done" if record.get("key") == job.key else "not done", sweep_of(above) if is_sweep(above) else {})


def _facts(job: Job, record: Mapping[str, Any], state: str, sweep: Mapping[str, Any]) -> dict[str, Any]:
    # a run that says itself which code it ran is to be believed before the sweep, which may have been started again since
    environment = record.get("environment") or sweep.get("environment") or {}
    return {
        "key": job.key,
        "notebook": job.notebook,
        **{f"parameter {name}": value for name, value in {**job.values, "seed": job.seed}.items()},
        **{f"parameter {name}": f"{field} of the run before" for name, field in job.takes.items()},
        "state": state,
        **_named("environment.", environment),
        "seconds": record.get("seconds"),
        "peak_memory_mb": record.get("peak_memory_mb"),
        **{f"result.{name}": value for name, value in scalars(record.get("result") or {}).items()},
    }


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flat_parameters(values, prefix).items() if name.rpartition(".")[2] not in _OF_THE_CALL}
