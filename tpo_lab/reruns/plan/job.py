"""One run of one notebook in a sweep, as plain data that travels to any worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one run may use; None: as much as there is.

    Attributes:
        memory_gb: most resident memory of its kernel, in GiB.
        minutes: longest wall time.
    """

    memory_gb: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Job:
    """One run of one notebook.

    Attributes:
        key: 16 hex digits that stand for all that its result depends on; see `tpo_lab.reruns.plan.keys`.
        name: for people, unique within the sweep: "20_region_head eval_samples=10 seed=0".
        link: name of its link in the chain; the notebook's stem by default.
        notebook: absolute path of the notebook that runs.
        point: the swept values as written in the sweep, without the seed.
        seed: the seed that the sweep sets; None where it sets none, or where the notebook takes none.
        values: parameters to inject, checked against the notebook; without `out` and without those in `takes`.
        after: key of the job whose result this one takes from, or that must be done before; None for the first of a chain.
        takes: parameter -> dotted field of that job's result record.
        inputs: files and folders whose content is part of the key.
        limits: what the run may use.
    """

    key: str
    name: str
    link: str
    notebook: str
    point: dict[str, Any]
    seed: int | None
    values: dict[str, Any]
    after: str | None = None
    takes: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def to_dict(self) -> dict[str, Any]:
        """The job as plain JSON."""
        return {**asdict(self), "inputs": list(self.inputs)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Job:
        """The job that `to_dict` wrote."""
        return cls(**{**record, "inputs": tuple(record["inputs"]), "limits": Limits(**record["limits"])})
