"""What a sweep asks of whoever runs its jobs: `LocalExecutor` and `DaskExecutor` answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tpo_lab.reruns.worker import Task


@dataclass(frozen=True)
class Ended:
    """A job that left its worker.

    Attributes:
        key: of the job.
        attempt: the line that the worker wrote; None where none began.
        lost: the worker was killed.
    """

    key: str
    attempt: dict[str, Any] | None
    lost: bool = False


class Executor(Protocol):
    """Runs jobs side by side."""

    @property
    def free(self) -> int:
        """How many more jobs it can take now."""

    @property
    def slots(self) -> int:
        """How many jobs run at the same time."""

    def submit(self, task: Task) -> None:
        """Run a job."""

    def poll(self, timeout: float) -> list[Ended]:
        """Wait for something to happen, at most so many seconds."""

    def stop(self) -> list[Ended]:
        """Interrupt all that runs, wait until it has saved its state, and kill what takes too long."""

    def close(self) -> None:
        """End the workers, at once."""
