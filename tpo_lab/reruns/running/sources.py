"""Where the jobs of a sweep come from: all at once from a grid, a list or a random draw; one point after the other from a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tpo_lab.reruns.disk.store import State, Store
from tpo_lab.reruns.plan.job import Job
from tpo_lab.reruns.plan.planner import Planner
from tpo_lab.reruns.plan.sweep import Sweep
from tpo_lab.reruns.running.study import Study, value_of


class Planned:
    """The jobs of a grid, a list or a random draw: all are known from the start."""

    def __init__(self, sweep: Sweep, store: Store) -> None:
        self.sweep, self.store = sweep, store
        self._jobs = Planner(sweep).jobs()

    def claim(self) -> None:
        """Write what is going to run."""
        self.store.claim(self.sweep, self._jobs)

    def more(self, free: int) -> list[Job]:
        """Jobs to put on the agenda, where so many workers are free."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def hear(self, states: Mapping[str, State]) -> None:
        """What has become of the jobs so far."""

    @property
    def is_exhausted(self) -> bool:
        """Whether no more jobs will come."""
        return not self._jobs


class Searched:
    """The jobs of a search with Optuna: points come one after the other, as many as there are free workers."""

    def __init__(self, sweep: Sweep, store: Store) -> None:
        self.sweep, self.store = sweep, store
        self._planner = Planner(sweep)
        self._study: Study | None = None
        self._open: list[tuple[dict[str, Any], list[Job]]] = []
        self._is_over = False

    def claim(self) -> None:
        """Write what is searched; points follow as they come."""
        self.store.claim(self.sweep, [])
        self._study = Study(self.sweep, self.store.out / "study.jsonl")

    def more(self, free: int) -> list[Job]:
        """The jobs of as many new points as there are free workers."""
        found: list[Job] = []
        while free > 0 and not self._is_over:
            point = self._begun().ask()
            if point is None:
                self._is_over = True
                break
            jobs = self._planner.jobs_at(point)
            self.store.extend(jobs)
            self._open.append((point, jobs))
            found += jobs
            free -= len({job.seed for job in jobs})
        return found

    def hear(self, states: Mapping[str, State]) -> None:
        """Tell the study of each point whose jobs have all ended: the mean over its seeds, or that it failed."""
        for point, jobs in list(self._open):
            found = {states[job.key] for job in jobs}
            if not found & {"waiting", "running"}:
                self._open.remove((point, jobs))
                self._begun().tell(point, self._value(jobs) if found == {"done"} else None)

    @property
    def is_exhausted(self) -> bool:
        """Whether no more points will come."""
        return self._is_over

    def _begun(self) -> Study:
        assert self._study is not None, "claim comes first"
        return self._study

    def _value(self, jobs: list[Job]) -> float:
        assert self.sweep.optuna is not None
        last = self.sweep.links[-1].label
        records = [self.store.record(job.key) or {} for job in jobs if job.link == last]
        values = [value_of(record.get("result", {}), self.sweep.optuna.metric) for record in records]
        return sum(values) / len(values)


Source = Planned | Searched


def source_of(sweep: Sweep, store: Store) -> Source:
    """Where the jobs of a sweep come from; everything about the sweep is checked here, before anything starts."""
    source = Planned(sweep, store) if sweep.optuna is None else Searched(sweep, store)
    store.check()
    return source
