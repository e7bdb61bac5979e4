"""Phrases that single out one thing of a scene, by its look, its place, its motion or the order of events.

Colours and places mean the last frame, where every thing shows its own colour again. A phrase is offered only if no other thing could
be meant by it, also counting what happens half out of sight: rivals are given the benefit of every doubt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tpo_lab.datasets.world.facts import ASKED_FRAME, Event, Facts
from tpo_lab.errors import unknown_name

ATTRIBUTES = ("size", "material", "colour", "shape")
KINDS = ("attribute", "relation", "motion", "order")
LOOK = ("colour", "shape")
MARGIN = 6.0
"""Pixels by which places must differ before one is called left of, above, ... the other."""
_COMBINATIONS: tuple[tuple[str, ...], ...] = (
    ("shape",),
    ("colour",),
    ("colour", "shape"),
    ("material", "shape"),
    ("size", "shape"),
    ("size", "colour"),
    ("material", "colour"),
    ("material", "colour", "shape"),
    ("size", "colour", "shape"),
    ATTRIBUTES,
)
_KIND_WEIGHTS = (0.38, 0.18, 0.3, 0.14)
_MOTION_PHRASES = {
    "still": "stays still",
    "bounce": "moves back and forth",
    "orbit": "moves in a circle",
    "enter": "enters",
    "leave": "leaves",
    "approach": "comes and goes",
}
_EVERY_WAY = frozenset({"moves back and forth", "moves in a circle", "enters", "leaves", "comes and goes"})
_BLURS: dict[str, frozenset[str]] = {
    "moves left": _EVERY_WAY,
    "moves right": _EVERY_WAY,
    "moves up": _EVERY_WAY,
    "moves down": _EVERY_WAY,
    "moves back and forth": frozenset({"comes and goes"}),
    "comes and goes": frozenset({"moves back and forth", "enters", "leaves"}),
    "stops": frozenset({"enters", "comes and goes"}),
}
"""What a rival may do that a strict reader could also call so: whoever comes and goes also stops for a while."""
_EXTREMES = {"left of": "leftmost", "right of": "rightmost", "above": "topmost", "below": "lowest"}


@dataclass(frozen=True)
class Expression:
    """A phrase that is true of exactly one thing.

    Args:
        kind: what makes it unique, one of `KINDS`; without its clause, a phrase of the kinds "motion" and "order" fits several things.
    """

    text: str
    kind: str


def describe(facts: Facts, thing: int, attributes: Sequence[str]) -> str:
    """Noun phrase with the given attributes, e.g. "small striped red ball"; "thing" stands where the shape is left out."""
    item = facts.scene.things[thing]
    words = [str(getattr(item, name)) for name in ATTRIBUTES if name in attributes]
    return " ".join(words if "shape" in attributes else [*words, "thing"])


def alike(facts: Facts, thing: int, attributes: Sequence[str]) -> list[int]:
    """All things, itself among them, that share its values of the given attributes."""
    wanted = [getattr(facts.scene.things[thing], name) for name in attributes]
    return [i for i, other in enumerate(facts.scene.things) if [getattr(other, name) for name in attributes] == wanted]


def motion_phrase(facts: Facts, thing: int) -> str | None:
    """Verb phrase for how a thing moves; None for cups."""
    item = facts.scene.things[thing]
    if item.motion in ("straight", "stop-and-go"):
        return f"moves {item.heading}"
    return _MOTION_PHRASES.get(item.motion)


def event_phrase(facts: Facts, event: Event) -> str:
    """Verb phrase for an event, e.g. "turns blue"."""
    if event.kind == "changes colour":
        return f"turns {event.detail}"
    if event.kind == "meets":
        partner = event.partner if event.partner is not None else event.thing
        return f"meets the {describe(facts, partner, LOOK)}"
    return event.kind


def is_unmistakable(facts: Facts, event: Event) -> bool:
    """Whether the event's phrase names one thing only, where it names one."""
    return event.partner is None or len(alike(facts, event.partner, LOOK)) == 1


def by_attributes(facts: Facts, thing: int, rng: random.Random, without: str | None = None) -> Expression | None:
    """A phrase of visible attributes, at times one more than needed; never mentions `without`."""
    minimal: list[tuple[str, ...]] = []
    for attributes in _COMBINATIONS:
        if without in attributes or any(set(shorter) < set(attributes) for shorter in minimal):
            continue
        if len(alike(facts, thing, attributes)) == 1:
            minimal.append(attributes)
    if not minimal:
        return None
    chosen = list(rng.choice(minimal))
    if "shape" not in chosen and without != "shape" and rng.random() < 0.6:
        chosen.append("shape")
    elif "colour" not in chosen and without != "colour" and rng.random() < 0.3:
        chosen.append("colour")
    return Expression("the " + describe(facts, thing, chosen), "attribute")


def _said(facts: Facts, thing: int) -> set[str]:
    """Verb phrases that are plainly true of a thing."""
    held = {event_phrase(facts, event) for event in facts.events if event.thing == thing and is_unmistakable(facts, event)}
    motion = motion_phrase(facts, thing)
    return held | ({motion} if motion else set())


def _arguable(facts: Facts, thing: int, subject: int) -> set[str]:
    """Verb phrases of `subject` that somebody could also see in another thing."""
    held = {event_phrase(facts, event) for event in facts.happenings if event.thing == thing}
    motion = motion_phrase(facts, thing)
    held |= {motion} if motion else set()
    held |= {phrase for phrase, blurs in _BLURS.items() if blurs & held}
    if facts.is_ever_covered(thing):
        held.add("is hidden")
    for event in facts.events:
        if event.thing == subject and event.partner is not None and event.partner != thing and facts.contact(thing, event.partner):
            held.add(event_phrase(facts, event))
    return held


def _by_motion(facts: Facts, thing: int, rng: random.Random) -> Expression | None:
    if facts.scene.candy == thing:
        return Expression("the cup with the candy", "motion")
    options: list[str] = []
    for attributes in ((), ("shape",), ("colour",), LOOK, ATTRIBUTES):
        rivals = [other for other in alike(facts, thing, attributes) if other != thing]
        if rivals:
            taken = set().union(*(_arguable(facts, other, thing) for other in rivals))
            noun = describe(facts, thing, attributes)
            options += [f"the {noun} that {phrase}" for phrase in sorted(_said(facts, thing) - taken)]
    return Expression(rng.choice(options), "motion") if options else None


def _by_order(facts: Facts, thing: int, rng: random.Random) -> Expression | None:
    options: list[str] = []
    for kind in ("blinks", "stops"):
        if all(event.thing != thing or event.kind != kind for event in facts.events):
            continue
        happening = {event.thing: event for event in facts.happenings if event.kind == kind}
        mine, others = happening.pop(thing), list(happening.values())
        shapes = {facts.scene.things[event.thing].shape for event in (mine, *others)}
        noun = shapes.pop() if len(shapes) == 1 else "thing"
        bystanders = [other for other in alike(facts, thing, () if noun == "thing" else ("shape",)) if other not in (thing, *happening)]
        if not others or any(kind in _arguable(facts, other, thing) for other in bystanders):
            continue
        if all(other.start - mine.start >= 2 for other in others):
            options.append(f"the {noun} that {kind} first")
        # whoever starts last must also be the last to do it again
        if all(mine.start - other.windows[-1][0] >= 2 for other in others):
            options.append(f"the {noun} that {kind} last")
    return Expression(rng.choice(options), "order") if options else None


def _by_relation(facts: Facts, thing: int, rng: random.Random) -> Expression | None:
    things = facts.scene.things
    where = [item.path_xy[ASKED_FRAME] for item in things]
    seen = [i for i in range(len(things)) if facts.is_seen(i)]
    if thing not in seen:
        return None
    tests: dict[str, Callable[[int, int], float]] = {
        "left of": lambda a, b: float(where[b][0] - where[a][0]),
        "right of": lambda a, b: float(where[a][0] - where[b][0]),
        "above": lambda a, b: float(where[b][1] - where[a][1]),
        "below": lambda a, b: float(where[a][1] - where[b][1]),
    }
    options: list[str] = []
    for attributes in ((), ("shape",), ("colour",), LOOK):
        rivals = [other for other in alike(facts, thing, attributes) if other != thing]
        if not rivals:
            continue
        noun = describe(facts, thing, attributes)
        for word, distance in tests.items():
            if all(distance(thing, other) > MARGIN for other in rivals):
                options.append(f"the {_EXTREMES[word]} {noun}")
            for anchor in seen:
                if anchor in (thing, *rivals) and attributes:
                    continue
                if anchor == thing or len(alike(facts, anchor, LOOK)) > 1:
                    continue
                apart = all(distance(other, anchor) < -MARGIN / 2 for other in rivals if other != anchor)
                if distance(thing, anchor) > MARGIN and apart:
                    options.append(f"the {noun} {word} the {describe(facts, anchor, LOOK)}")
    return Expression(rng.choice(options), "relation") if options else None


def refer(facts: Facts, thing: int, rng: random.Random, kinds: Sequence[str] = KINDS) -> Expression | None:
    """A phrase that singles the thing out, or None where none of the given kinds can.

    Raises:
        UsageError: for a kind that is not one of `KINDS`.
    """
    makers = {"attribute": by_attributes, "relation": _by_relation, "motion": _by_motion, "order": _by_order}
    for kind in kinds:
        if kind not in makers:
            raise unknown_name("kinds", kind, KINDS)
    pool = [(kind, weight) for kind, weight in zip(KINDS, _KIND_WEIGHTS, strict=True) if kind in kinds]
    while pool:
        kind = rng.choices([name for name, _ in pool], [weight for _, weight in pool])[0]
        found = makers[kind](facts, thing, rng)
        if found is not None:
            return found
        pool = [entry for entry in pool if entry[0] != kind]
    return None


def pluralise(shape: str) -> str:
    """Several of a shape: "crosses" for "cross"."""
    return shape + ("es" if shape.endswith("s") else "s")


def refer_to_several(facts: Facts, rng: random.Random) -> tuple[str, tuple[int, ...]] | None:
    """A phrase for several things that are seen at the end, e.g. ("all red things", (0, 2)), or None."""
    options: list[tuple[str, tuple[int, ...]]] = []
    for attribute in ("colour", "shape"):
        for value in sorted({str(getattr(item, attribute)) for item in facts.scene.things}):
            group = tuple(i for i, item in enumerate(facts.scene.things) if getattr(item, attribute) == value)
            if len(group) >= 2 and all(facts.is_seen(i) for i in group) and value != "cup":
                options.append((f"all {value} things" if attribute == "colour" else f"all {pluralise(value)}", group))
    return rng.choice(options) if options else None
