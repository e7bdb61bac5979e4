"""What a set of world samples is made of, counted from the samples and from the scenes that they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations
from types import MappingProxyType
from typing import TYPE_CHECKING

from tpo_lab.datasets.world.expressions import ATTRIBUTES, KINDS, LOOK, alike
from tpo_lab.datasets.world.facts import Facts
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import Scene, scene_at
from tpo_lab.datasets.world.words import HELD_OUT_EVENTS, HELD_OUT_LOOKS
from tpo_lab.errors import UsageError
from tpo_lab.sample import Sample

if TYPE_CHECKING:
    from rich.table import Table

Counts = Mapping[str, int]
ONLY_OVER_TIME = ("motion", "order")
"""Kinds of expressions that fit several things once their clause about motion or order is left out."""


@dataclass(frozen=True)
class Datasheet:
    """Counts and shares of a set of samples; shares are of clips where nothing else is said, and counts ordered by size.

    Args:
        samples: all samples.
        clips: different scenes.
        splits: clips per split.
        levels: clips per level.
        tasks: samples per task.
        things: clips per number of things.
        colours: things per colour; likewise shapes, materials, sizes.
        motions: things per motion.
        distractors: share of clips with a thing that a second one equals in colour and a third one in shape (cups do not count).
        plain_distractors: the same, where the second one has another shape and the third one another colour.
        occluded: share of clips in which a thing loses a third of itself behind others.
        shell_games: share of clips.
        happenings: things per event in plain sight.
        expressions: region questions about one thing, by what makes the phrase unique.
        only_over_time: share of those expressions that nothing but motion or order makes unique.
        without_unique_look: share of those expressions whose thing no combination of attributes could single out.
        regions: region samples by kind, beside the expressions also those for several, absent and pointed-at things.
        moments: temporal samples by event, and absent ones.
        windows_sec: shortest, median and longest window of the temporal samples in seconds, or None.
        questions: conversation samples by kind.
        majority: how often the most frequent answer of each kind of question is right.
        absent: share of the region and temporal samples that ask for what is not there or does not happen.
        held_out_looks: things of a held-out colour and shape, cups apart.
        held_out_turns: things that turn to a colour which would make their look a held-out one.
        held_out_events: held-out pairs of event and shape, also where they are out of sight.
    """

    samples: int
    clips: int
    splits: Counts
    levels: Counts
    tasks: Counts
    things: Mapping[int, int]
    colours: Counts
    shapes: Counts
    materials: Counts
    sizes: Counts
    motions: Counts
    distractors: float
    plain_distractors: float
    occluded: float
    shell_games: float
    happenings: Counts
    expressions: Counts
    only_over_time: float
    without_unique_look: float
    regions: Counts
    moments: Counts
    windows_sec: tuple[float, float, float] | None
    questions: Counts
    majority: Mapping[str, float]
    absent: float
    held_out_looks: int
    held_out_turns: int
    held_out_events: int

    def render(self) -> Table:
        """The sheet as a table of two columns for a terminal."""
        from rich.table import Table

        table = Table(title=f"{self.samples} samples about {self.clips} clips", show_header=False)
        table.add_column("what")
        table.add_column("count or share", overflow="fold")
        for name, value in vars(self).items():
            if name not in ("samples", "clips"):
                table.add_row(name.replace("_", " "), _shown(name, value))
        return table


def _shown(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(name, entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(f"{word} {entry:g} s" for word, entry in zip(("shortest", "median", "longest"), value, strict=True))
    if isinstance(value, float):
        return f"{value:.1%}"
    return "none" if value is None else str(value)


def datasheet(source: Iterable[Sample] | Iterable[Scene]) -> Datasheet:
    """Count a set of samples, or the samples that scenes give by default.

    Raises:
        UsageError: there is nothing to count, or a sample does not name its scene.
    """
    samples: list[Sample] = []
    for item in source:
        samples += samples_of(item) if isinstance(item, Scene) else [item]
    if not samples:
        raise UsageError("samples", expected="at least one sample", got=0)
    every = {reference: Facts(scene_at(reference)) for reference in dict.fromkeys(_meta(sample, "scene") for sample in samples)}
    scenes = [facts.scene for facts in every.values()]
    things = [thing for scene in scenes for thing in scene.things]
    by_task = {task: [sample for sample in samples if _meta(sample, "task") == task] for task in ("conversation", "region", "temporal")}
    regions, moments = _by_size(_kinds(by_task["region"])), _by_size(_kinds(by_task["temporal"]))
    expressions = [sample for sample in by_task["region"] if _meta(sample, "kind") in KINDS]
    asked_for = len(by_task["region"]) + len(by_task["temporal"])
    return Datasheet(
        samples=len(samples),
        clips=len(every),
        splits=_by_size(scene.split for scene in scenes),
        levels=_by_size(scene.level for scene in scenes),
        tasks=_by_size(_meta(sample, "task") for sample in samples),
        things=MappingProxyType(dict(sorted(Counter(len(scene.things) for scene in scenes).items()))),
        colours=_by_size(thing.colour for thing in things),
        shapes=_by_size(thing.shape for thing in things),
        materials=_by_size(thing.material for thing in things),
        sizes=_by_size(thing.size for thing in things),
        motions=_by_size(thing.motion for thing in things),
        distractors=_share(_has_distractors(scene) for scene in scenes),
        plain_distractors=_share(_has_distractors(scene, plain=True) for scene in scenes),
        occluded=_share(facts.occluded for facts in every.values()),
        shell_games=_share(scene.candy is not None for scene in scenes),
        happenings=_by_size(event.kind for facts in every.values() for event in facts.events),
        expressions=_by_size(_kinds(expressions)),
        only_over_time=_share(_meta(sample, "kind") in ONLY_OVER_TIME for sample in expressions),
        without_unique_look=_share(_shares_its_look(every[_meta(sample, "scene")], sample) for sample in expressions),
        regions=regions,
        moments=moments,
        windows_sec=_window_lengths(by_task["temporal"]),
        questions=_by_size(_kinds(by_task["conversation"])),
        majority=_majority(by_task["conversation"]),
        absent=(regions.get("absent", 0) + moments.get("absent", 0)) / max(asked_for, 1),
        held_out_looks=sum((thing.colour, thing.shape) in HELD_OUT_LOOKS for thing in things),
        held_out_turns=sum(thing.turns is not None and (thing.turns[0], thing.shape) in HELD_OUT_LOOKS for thing in things),
        held_out_events=sum(
            (event.kind, facts.scene.things[event.thing].shape) in HELD_OUT_EVENTS for facts in every.values() for event in facts.happenings
        ),
    )


def _meta(sample: Sample, name: str) -> str:
    value = sample.meta.get(name)
    if not isinstance(value, str):
        hint = "A data sheet can be made of samples of the synthetic world only."
        raise UsageError(f"sample {sample.id}: meta.{name}", expected="what `samples_of` writes there", got=value, hint=hint)
    return value


def _kinds(samples: Iterable[Sample]) -> Iterable[str]:
    return (_meta(sample, "kind") for sample in samples)


def _by_size(values: Iterable[str]) -> Counts:
    return MappingProxyType(dict(sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))))


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 0.0


def _has_distractors(scene: Scene, *, plain: bool = False) -> bool:
    looks = [tuple(str(getattr(thing, name)) for name in LOOK) for thing in scene.things]
    return scene.candy is None and any(
        same_colour[0] == one[0] and same_shape[1] == one[1] and not (plain and one in (same_colour, same_shape))
        for one, same_colour, same_shape in permutations(looks, 3)
    )


def _shares_its_look(facts: Facts, sample: Sample) -> bool:
    things = sample.meta["things"]
    assert isinstance(things, list) and isinstance(things[0], int)
    return len(alike(facts, things[0], ATTRIBUTES)) > 1


def _window_lengths(samples: Iterable[Sample]) -> tuple[float, float, float] | None:
    found = (window for sample in samples if sample.targets.temporal is not None for window in sample.targets.temporal.windows_sec)
    lengths = sorted(end - start for start, end in found)
    return (lengths[0], lengths[len(lengths) // 2], lengths[-1]) if lengths else None


def _majority(samples: Iterable[Sample]) -> Mapping[str, float]:
    answers: dict[str, Counter[str]] = {}
    for sample in samples:
        answers.setdefault(_meta(sample, "kind"), Counter())[sample.conversation[-1].text] += 1
    shares = {kind: found.most_common(1)[0][1] / found.total() for kind, found in sorted(answers.items())}
    return MappingProxyType({kind: share for kind, share in shares.items() if kind != "caption"})
