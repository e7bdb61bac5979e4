"""A recipe: stages in order, read, changed, written and shown. Holds no numbers; the presets beside it do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo_lab import knobs
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.knobs import Count
from tpo_lab.stages import LORA, NEW_ROWS, WORDS, Lora, Stage, Switches, position, selects

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, repr=False)
class Recipe:
    """Stages in order, with the settings that they share.

    The switches `train_rows` and `assign_loss` are written into the stages on construction: a stage always shows all that it trains.

    Args:
        name: what runs and tables call it.
        stages: in the order in which they run; each name once.
        lora: adapters of the language model.
        switches: every contradiction of the sources, decided.
        frames: frames of a video that the language model sees.
        resolution: height and width of a frame, pixels.
        description: what it is for.
        source: where its numbers come from.
    """

    name: str
    stages: tuple[Stage, ...]
    frames: Count
    resolution: Count
    lora: Lora = dataclasses.field(default_factory=Lora)
    switches: Switches = dataclasses.field(default_factory=Switches)
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        knobs.check(self, f"recipe {self.name!r}")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or sorted(names, key=position) != names:
            raise UsageError(f"recipe {self.name!r}: stages", expected="at least one, each once, in the order 1, 2.*, 3a, 3b", got=names)
        object.__setattr__(self, "stages", tuple(_decided(stage, self.switches) for stage in self.stages))

    @property
    def heads(self) -> tuple[str, ...]:
        """Every head that a stage asks for, in order of appearance."""
        return tuple(dict.fromkeys(head for stage in self.stages for head in stage.heads))

    def stage(self, word: str) -> tuple[Stage, ...]:
        """The stages that `word` selects: one of `WORDS` ("2" means each head's sub-stage), or the full name of one stage.

        Raises:
            UsageError: this recipe has none of that name; the message lists those it has.
        """
        chosen = tuple(stage for stage in self.stages if selects(word, stage.name))
        if not chosen:
            present = [name for name in WORDS if any(selects(name, stage.name) for stage in self.stages)]
            raise unknown_name("stage", word, {*present, *(stage.name for stage in self.stages)})
        return chosen

    def for_heads(self, heads: Collection[str]) -> Recipe:
        """The recipe for a model that has only these heads: other heads' stages, patterns, data and losses are gone.

        Raises:
            UsageError: no stage asks for one of the heads, so that it would silently stay untrained; or nothing is left.
        """
        for head in heads:
            if head not in self.heads:
                raise unknown_name(f"recipe {self.name!r}: heads", head, self.heads)
        absent = set(self.heads) - set(heads)
        kept = [_without(stage, absent) for stage in self.stages if set(stage.data) - absent]
        return dataclasses.replace(self, stages=tuple(kept))

    def replace(self, **changes: object) -> Recipe:
        """The recipe with single knobs changed, each named by its path, such as `**{"2.region.batch_size": 64, "lora.rank": 8}`.

        A path is a field, "lora.<field>", "switches.<field>", or "<stage>.<field>", where the stage is a word of `stage()` ("all.precision"
        changes every stage). An existing entry of a table is named after its field: "3a.losses.temporal". To set `steps` clears
        `epochs`, and the other way round.

        Raises:
            UsageError: an unknown path, or a value that the knob refuses.
        """
        plain = self.to_dict()
        for path, value in changes.items():
            holders, knob = self._find(path, plain)
            if not [holder for holder in holders if knobs.assign(holder, knob, knobs.to_plain(value))]:
                valid = {name for holder in holders for name in knobs.paths(holder)}
                if holders == [plain]:
                    valid |= {f"{stage.name}.<knob>" for stage in self.stages}
                raise unknown_name(f"recipe {self.name!r}: {path}", knob, valid)
            for length, other in (("steps", "epochs"), ("epochs", "steps")):
                if knob == length and path.removesuffix(length) + other not in changes:
                    for holder in holders:
                        holder[other] = None
        return Recipe.from_dict(plain)

    def _find(self, path: str, plain: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """The tables in `plain` that the front of a path names, and the rest of the path."""
        # Names of stages hold dots: the longest that fits is meant.
        for word in sorted({*WORDS, *(stage.name for stage in self.stages)}, key=len, reverse=True):
            if path.startswith(f"{word}."):
                chosen = {stage.name for stage in self.stage(word)}
                return [stage for stage in plain["stages"] if stage["name"] in chosen], path.removeprefix(f"{word}.")
        return [plain], path

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        plain: dict[str, Any] = knobs.to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote; unknown, missing and unfit entries raise `UsageError`."""
        return knobs.from_plain(cls, plain, "recipe")

    def save(self, path: str | Path) -> None:
        """Writes it as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Reads a .json or .toml file.

        Raises:
            UsageError: no such file, another suffix, a syntax error, or an entry that a recipe refuses.
        """
        return cls.from_dict(knobs.read(Path(path)))

    def describe(self) -> Table:
        """The recipe as a table like the paper's Table 16: a row per knob, a column per stage."""
        from rich.table import Table

        shared = f"{self.frames} frames of {self.resolution} px, LoRA rank {self.lora.rank} alpha {self.lora.alpha:g}"
        switches = ", ".join(f"{name} {value}" for name, value in knobs.to_plain(self.switches).items())
        table = Table("knob", *(stage.name for stage in self.stages), title=f"{self.name}: {shared}", caption=switches)
        for name, absent in (("learning_rates", "frozen"), ("data", "-"), ("losses", "-")):
            tables = [getattr(stage, name) for stage in self.stages]
            for key in dict.fromkeys(key for entries in tables for key in entries):
                row = (f"{entries[key]:g}" if key in entries else absent for entries in tables)
                table.add_row(f"{name}: {key}", *row)
            table.add_section()
        for name in knobs.hints(Stage):
            values = [getattr(stage, name) for stage in self.stages]
            if name not in ("name", "title") and not isinstance(values[0], Mapping) and set(values) != {None}:
                table.add_row(name, *("-" if value is None else str(value) for value in values))
        return table

    def __repr__(self) -> str:
        order = " -> ".join(stage.name for stage in self.stages)
        return f"Recipe({self.name!r}: {order}; LoRA {self.lora.rank}/{self.lora.alpha:g}; {self.frames} frames of {self.resolution} px)"


def _decided(stage: Stage, switches: Switches) -> Stage:
    """The stage with the switches written into its tables; a rate or weight that is already there is kept."""
    rates, losses = dict(stage.learning_rates), dict(stage.losses)
    wanted = NEW_ROWS.get(switches.train_rows)
    for pattern in set(NEW_ROWS.values()) - {wanted}:
        rates.pop(pattern, None)
    if wanted and LORA in rates:
        rates.setdefault(wanted, rates[LORA])
    if switches.assign_loss == "inside_mlm":
        losses.pop("assign", None)
    else:
        losses.setdefault("assign", 1.0)
    return dataclasses.replace(stage, learning_rates=rates, losses=losses)


def _without(stage: Stage, absent: Collection[str]) -> Stage:
    return dataclasses.replace(
        stage,
        learning_rates={pattern: rate for pattern, rate in stage.learning_rates.items() if _head_of(pattern) not in absent},
        data={task: share for task, share in stage.data.items() if task not in absent},
        starts_from={
            target: source for target, source in stage.starts_from.items() if not {_head_of(target), _head_of(source)} & set(absent)
        },
        losses={term: weight for term, weight in stage.losses.items() if term not in absent},
    )


def _head_of(pattern: str) -> str:
    """The head that a pattern belongs to, or "" where it belongs to none."""
    for prefix in ("heads.", "tokens.task."):
        if pattern.startswith(prefix):
            return pattern.removeprefix(prefix).partition(".")[0]
    return ""
