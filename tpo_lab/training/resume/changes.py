"""What is different in a resumed run from what it was started with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tpo_lab.errors import UsageError

FREE_OPTIONS = frozenset(
    {
        "feature_cache",
        "frame_cache",
        "gradient_patience",
        "keep",
        "max_dropped",
        "on_bad",
        "prefetch",
        "probe_every",
        "probe_samples",
        "save_every",
        "trackers",
        "workers",
    }
)
"""Options that leave the training as it is to the bit, or that decide only where it stops; any other one counts."""
_ABSENT = "nothing"
_WORDS_ALONE = ("description", "source")


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        name: what it is about, such as "recipe 2.region.batch_size" or "data of stage 1".
        before: when the checkpoint was made.
        now: as it was asked for.
    """

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        """In a few words."""
        return f"{self.name}: {self.before} before, {self.now} now"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def changes_of(label: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Differences of two trees of plain values, each by its path."""
    there, here = dict(_leaves("", before)), dict(_leaves("", now))
    for path in [*there, *(path for path in here if path not in there)]:
        old, new = there.get(path, _ABSENT), here.get(path, _ABSENT)
        if old != new:
            yield Change(f"{label} {path}", old, new)


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any], finished: Sequence[str] = ()) -> Iterator[Change]:
    """Differences of two recipes in plain form; what they say of themselves in words, and stages that are done, do not count."""
    return changes_of("recipe", _ahead(before, finished), _ahead(now, finished))


def _ahead(recipe: Mapping[str, Any], finished: Sequence[str]) -> dict[str, Any]:
    kept = {name: value for name, value in recipe.items() if name not in _WORDS_ALONE}
    return {**kept, "stages": [stage for stage in recipe["stages"] if stage["name"] not in finished]}


def option_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Differences of two sets of options that change the training; those that an earlier version did not have are not known."""
    names = [name for name in now if name not in FREE_OPTIONS and name in before]
    return changes_of("option", {name: before[name] for name in names}, {name: now[name] for name in names})


def refuse(stage: str, changes: Sequence[Change]) -> None:
    """Say what changed, if anything did.

    Raises:
        UsageError: something did.
    """
    if changes:
        raise UsageError(
            f"resume of stage {stage}",
            expected="the recipe, options and data that the run was started with",
            got="; ".join(map(str, changes)),
            hint="Add --resume-anyway to go on with the changes, or start again in another folder.",
        )


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Path -> value; a list of named things, as stages are, goes by their names."""
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        inside = {item["name"]: item for item in value}.items()
    else:
        yield path, value
        return
    for name, part in inside:
        # the front of a stage's path is its name alone, as `--set` has it
        front = "" if path == "stages" else f"{path}." if path else ""
        yield from _leaves(f"{front}{name}", part)
