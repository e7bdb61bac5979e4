"""What a sweep asks of whoever runs its jobs: `LocalExecutor` and `DaskExecutor` answer to it. A task goes out, how it ended comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """A job on its way to a worker, as plain data.

    Attributes:
        folder: of the job.
        notebook: the copy that runs.
        code: version of the code that the job's key stands for; "" where it does not matter.
        brought: parameters from the result of the job before.
        env: environment variables of the kernel.
    """

    folder: str
    notebook: str
    code: str = ""
    brought: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The job's key."""
        return Path(self.folder).name

    def to_dict(self) -> dict[str, Any]:
        """The task as plain JSON; `Task(**...)` reads it."""
        return asdict(self)


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
