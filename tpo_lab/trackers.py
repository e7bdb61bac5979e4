"""Experiment trackers by name: TensorBoard, MLflow, W&B and what else accelerate knows. None is required, none is used unless named."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import MissingExtraError, TPOError, unknown_name
from tpo_lab.runs import RunFolder

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

NONE = "none"
"""The name that stands for no tracker."""
PROJECT = "tpo-lab"
"""Project or experiment under which MLflow and W&B keep the runs of `tpo.fit`."""
_EXTRAS = frozenset({"tensorboard", "mlflow", "wandb"})


def default_trackers() -> tuple[str, ...]:
    """What a sweep uses that names no tracker: TensorBoard where it is installed."""
    return ("tensorboard",) if find_spec("tensorboard") is not None else ()


def checked_trackers(names: Sequence[str] | str) -> tuple[str, ...]:
    """The names, each once; "none" stands for no tracker.

    Raises:
        UsageError: accelerate knows no tracker of that name.
        MissingExtraError: its package is not installed.
    """
    listed = (names,) if isinstance(names, str) else names
    wanted = tuple(dict.fromkeys(name for name in listed if name != NONE))
    for name in wanted:
        known = _known()
        if name not in known:
            raise unknown_name("trackers", name, [*known, NONE])
        _require(name)
    return wanted


def _known() -> dict[str, type[GeneralTracker]]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return dict(LOGGER_TYPE_TO_CLASS)


def _require(name: str) -> None:
    """accelerate's own trackers are called as the modules that they need; one that a program registered needs none."""
    from accelerate.utils import LoggerType

    if name not in LoggerType.list() or find_spec(name) is not None:
        return
    if name in _EXTRAS:
        raise MissingExtraError(name, name, f"The tracker {name!r}")
    raise TPOError(f"The tracker {name!r} needs the module {name!r}, which is not installed. Install it with: pip install {name}")


class Trackers:
    """One run as the trackers see it.

    A tracker that fails while a run goes on is left out from there, with a warning: no run is lost to its tracker.

    Args:
        names: of the trackers.
        folder: where those that write files put them; TensorBoard's lie in `folder/tensorboard/run`.
        project: what the run belongs to, for trackers that have projects or experiments.
        run: the run's name.

    Raises:
        UsageError: an unknown name.
        MissingExtraError: a tracker's package is not installed.
        TPOError: a tracker could not be started.
    """

    def __init__(self, names: Sequence[str] | str, folder: Path, *, project: str, run: str) -> None:
        wanted = checked_trackers(names)
        self._live: dict[str, GeneralTracker] = {}
        if wanted:
            from accelerate import PartialState

            PartialState()  # accelerate's trackers log through it
        for name in wanted:
            try:
                self._live[name] = _started(name, folder, project, run)
            except Exception as error:
                self.finish()
                raise TPOError(f"The tracker {name!r} could not be started: {type(error).__name__}: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The trackers that still follow the run."""
        return tuple(self._live)

    def log_parameters(self, parameters: Mapping[str, Any], results: Mapping[str, float] | None = None) -> None:
        """Say what the run was started with and, where it is finished, what came of it (numbers by name)."""
        plain, numbers = flat_parameters(parameters), dict(results or {})
        self._each(lambda tracker: _store(tracker, plain, numbers))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by name at a step of the run, from 1."""
        self._each(lambda tracker: tracker.log(dict(values), step=step))

    def finish(self) -> None:
        """Close the run in every tracker."""
        self._each(lambda tracker: tracker.finish())
        self._live = {}

    def _each(self, call: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._live.items()):
            try:
                call(tracker)
            except Exception as error:
                del self._live[name]
                warnings.warn(f"The tracker {name!r} failed and is left out: {type(error).__name__}: {error}", stacklevel=4)


def _started(name: str, folder: Path, project: str, run: str) -> GeneralTracker:
    kind = _known()[name]
    if name == "tensorboard":
        tracker = kind(run, logging_dir=str(folder / "tensorboard"))
    elif name == "wandb":
        tracker = kind(project, name=run, dir=str(folder))
    elif name == "mlflow":
        tracker = kind(project, run_name=run)
    elif kind.requires_logging_directory:
        tracker = kind(project, logging_dir=str(folder))
    else:
        tracker = kind(project)
    tracker.start()
    return tracker


def _store(tracker: GeneralTracker, parameters: dict[str, Any], results: dict[str, float]) -> None:
    if tracker.name == "tensorboard":
        # accelerate would put the parameters into a run of their own, apart from the curves
        tracker.tracker.add_hparams(parameters, results, run_name=".")
        tracker.tracker.flush()
        return
    tracker.store_init_configuration(parameters)
    if results:
        tracker.log(results, step=0)


def flat_parameters(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names, as bool, int, float or text; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat_parameters(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, (bool, int, float, str)) else json.dumps(value, default=str)
    return found


@contextmanager
def tracked(run: RunFolder, names: Sequence[str] | str, parameters: Mapping[str, Any]) -> Iterator[None]:
    """While the block runs, what `run` logs goes to the trackers as well; TensorBoard's files lie in the folder `tensorboard` of the run.

    Each number is called STAGE/NAME there, such as "2.region/region/l1", at the step counted over all stages; `steps_per_sec` stands
    beside them.
    """
    if not checked_trackers(names):
        yield
        return
    trackers = Trackers(names, run.path, project=PROJECT, run=run.path.name)
    trackers.log_parameters(parameters)
    run.listener = _Steps(run, trackers)
    try:
        yield
    finally:
        run.listener = None
        trackers.finish()


class _Steps:
    """Turns lines of metrics.jsonl into numbers at a step."""

    def __init__(self, run: RunFolder, trackers: Trackers) -> None:
        self.run, self.trackers = run, trackers
        self.step: int | None = None
        self.before: tuple[Any, float] = (None, 0.0)

    def __call__(self, line: Mapping[str, Any]) -> None:
        # a resumed run goes on counting after the lines that it kept
        self.step = len(self.run.metrics()) if self.step is None else self.step + 1
        stage = line.get("stage", "run")
        numbers = {name: float(value) for name, value in line.items() if name != "step" and isinstance(value, (int, float))}
        took = line.get("seconds", 0.0) - self.before[1]
        if self.before[0] == stage and took > 0:
            numbers["steps_per_sec"] = 1 / took
        self.before = (stage, line.get("seconds", 0.0))
        self.trackers.log({f"{stage}/{name}": value for name, value in numbers.items()}, self.step)
