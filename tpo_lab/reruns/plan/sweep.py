"""A sweep file: which notebooks run, with which fixed parameters, over which points and seeds. Written as YAML.

name: region-rate
notebook: 20_region_head
parameters: {steps: 8}
grid: {eval_samples: [10, 20]}
seeds: [0, 1, 2]

Only the form of the file is checked here. Whether notebooks exist and declare these parameters: `tpo_lab.reruns.plan.planner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.reruns.plan.job import Limits
from tpo_lab.reruns.plan.reading import Location, brief, explained, number, parsed

MAX_RUNS = 10_000
"""Most points times seeds of one sweep."""
TRACKERS = ("tensorboard", "mlflow", "wandb", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")
_FILE = "file"
Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Filled = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Link(_Strict):
    """One notebook of a chain.

    Attributes:
        notebook: a shipped notebook's name, or a path from the sweep file's folder.
        name: of the link; the notebook's stem where "".
        parameters: fixed, of this link only.
        takes: parameter -> dotted field of the result record of the link before it.
        after: the link that must be done before; the one above it where "".
    """

    notebook: Filled
    name: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    takes: dict[str, Filled] = Field(default_factory=dict)
    after: str = ""

    @property
    def label(self) -> str:
        """What the link is called in the sweep."""
        return self.name or Path(self.notebook).name.removesuffix(".ipynb")


class Range(_Strict):
    """Numbers between two bounds, both inclusive; whole ones where the parameter is an int.

    Attributes:
        low, high: the bounds.
        log: even in the logarithm; else even in the number itself.
    """

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Range:
        if not self.low < self.high:
            raise PydanticCustomError("order", "low < high")
        if self.log and self.low <= 0:
            raise PydanticCustomError("log", "low > 0 where log is true")
        return self


def _axis_kind(value: Any) -> str | None:
    return "range" if isinstance(value, Mapping | Range) else "choices" if isinstance(value, list) else None


Axis = Annotated[
    Annotated[Range, Tag("range")] | Annotated[list[Any], Tag("choices"), Field(min_length=1)],
    Discriminator(_axis_kind, custom_error_type="axis", custom_error_message="a list of choices or {low: ..., high: ...}"),
]
Space = Annotated[dict[str, Axis], Field(min_length=1)]


class RandomSearch(_Strict):
    """Points drawn at random, the same ones for the same seed."""

    points: Count
    seed: int = 0
    over: Space


class OptunaSearch(_Strict):
    """Points that Optuna suggests, one after the other, from what the earlier ones gave.

    Attributes:
        trials: how many points.
        seed: of the sampler.
        metric: dotted field of the last link's result record; the mean over the seeds counts.
        direction: which way is better.
        over: parameter -> range or choices.
    """

    trials: Count
    seed: int = 0
    metric: Filled
    direction: Literal["minimize", "maximize"]
    over: Space


class RunLimits(_Strict):
    """What each run may use: memory in GiB, wall time in minutes."""

    memory_gb: Annotated[Number, Field(gt=0)] | None = None
    minutes: Annotated[Number, Field(gt=0)] | None = None


class Sweep(_Strict):
    """A sweep as its file says it.

    Attributes:
        file: where it was read; paths in it start from this file's folder.
        name: of the sweep and its folder; the file's stem by default.
        notebook, chain: what runs, one of the two.
        parameters: fixed, for every link that declares them.
        grid, points, random, optuna: the swept values, at most one of the four. `points` is written `list`.
        seeds: each point runs once with each; None leaves the parameter `seed` alone.
        baseline: values of the point that the others are compared with. Where it leaves a swept parameter open, each point is compared
            with the one that has the same value there.
        inputs: files and folders that the results depend on.
        limits: of each run.
        trackers: names of experiment trackers; None: the default ones.
    """

    file: Filled
    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")]
    notebook: Filled | None = None
    chain: Annotated[list[Link], Field(min_length=1)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)] | None = None
    points: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = Field(default=None, alias="list")
    random: RandomSearch | None = None
    optuna: OptunaSearch | None = None
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    baseline: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    inputs: list[Filled] = Field(default_factory=list)
    limits: RunLimits = Field(default_factory=RunLimits)
    trackers: list[str] | None = None

    @model_validator(mode="after")
    def _check_fields_together(self) -> Sweep:
        _one_of("what runs", {"notebook": self.notebook, "chain": self.chain}, least=1)
        searches = {"grid": self.grid, "list": self.points, "random": self.random, "optuna": self.optuna}
        _one_of("what is swept", searches, least=0)
        for field, values in (("seeds", self.seeds or ()), ("inputs", self.inputs), ("trackers", self.trackers or ())):
            _all_different(field, values)
        for tracker in self.trackers or ():
            if tracker not in TRACKERS:
                raise unknown_name("trackers", tracker, TRACKERS)
        if self.optuna and self.baseline is not None:
            raise UsageError("baseline", expected="none with optuna", got=self.baseline, hint="Its points are not known beforehand.")
        return self

    @classmethod
    def read(cls, path: Path | str) -> Sweep:
        """The sweep in a YAML file.

        Raises:
            UsageError: no such file, or something in it is not as it should be: file, field, what was expected, what came.
        """
        record = parsed(Path(path))
        if not isinstance(record, dict):
            raise UsageError(str(path), expected="fields of a sweep such as `notebook: 20_region_head`", got=brief(record))
        if _FILE in record:
            raise unknown_name(f"{path}: field", _FILE, _fields_of(cls))
        return cls.of({"name": Path(path).stem, **record, _FILE: str(path)})

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Sweep:
        """The sweep that `to_dict` wrote.

        Raises:
            UsageError: as `read`.
        """
        try:
            return cls.model_validate(dict(record))
        except ValidationError as error:
            raise explained(str(record.get(_FILE, "sweep")), error, _fields_at) from None

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain JSON, without the fields that nobody set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def folder(self) -> Path:
        """The folder that paths in the sweep start from."""
        return Path(self.file).resolve().parent

    @property
    def links(self) -> list[Link]:
        """The chain; a single notebook is a chain of one."""
        return self.chain if self.chain is not None else [Link(notebook=str(self.notebook))]

    @property
    def run_limits(self) -> Limits:
        """The limits of each run, as a job carries them."""
        return Limits(self.limits.memory_gb, self.limits.minutes)

    def wrong(self, field: str, *, expected: str, got: object, hint: str = "") -> UsageError:
        """A `UsageError` that names the file and the field."""
        return UsageError(f"{self.file}: {field}", expected=expected, got=brief(got), hint=hint)


def _one_of(what: str, fields: Mapping[str, Any], *, least: int) -> None:
    given = [name for name, value in fields.items() if value is not None]
    if not least <= len(given) <= 1:
        expected = f"{'one' if least else 'at most one'} of {', '.join(fields)}"
        raise UsageError(what, expected=expected, got=" and ".join(given) or "none")


def _all_different(field: str, values: Any) -> None:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UsageError(f"{field}[{place}]", expected="each one once", got=value)


def _fields_at(location: Location) -> list[str]:
    return _fields_of(_owner(location))


def _owner(location: Location) -> type[BaseModel]:
    """Which part of a sweep the last name of a location was written into."""
    if "range" in location[:-1]:
        return Range
    parts: dict[str, type[BaseModel]] = {"chain": Link, "random": RandomSearch, "optuna": OptunaSearch, "limits": RunLimits}
    return parts.get(str(location[0]), Sweep) if len(location) > 1 else Sweep


def _fields_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if name != _FILE]
