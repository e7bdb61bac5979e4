"""Scenes to words: expressions that single out one thing, captions, and questions with answers. Every sentence is checked against the facts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tpo_lab.datasets.world.facts import ASKED_FRAME, Event, Facts
from tpo_lab.datasets.world.words import COLOURS, SHAPES

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
_ATTRIBUTES = ("size", "material", "colour", "shape")
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
    _ATTRIBUTES,
)
_KINDS = ("attribute", "relation", "motion", "order")
_KIND_WEIGHTS = (0.42, 0.18, 0.28, 0.12)
_MARGIN = 6.0


@dataclass(frozen=True)
class Expression:
    """A phrase that is true of exactly one thing.

    Args:
        kind: what makes it unique: attribute | relation | motion | order.
    """

    text: str
    kind: str


@dataclass(frozen=True)
class Question:
    """A question with its short answer; `kind` groups questions in reports."""

    kind: str
    text: str
    answer: str


def describe(facts: Facts, thing: int, attributes: Sequence[str]) -> str:
    """Noun phrase with the given attributes, e.g. "small striped red ball"; "thing" stands where the shape is left out."""
    item = facts.scene.things[thing]
    words = [str(getattr(item, name)) for name in _ATTRIBUTES if name in attributes]
    return " ".join(words if "shape" in attributes else [*words, "thing"])


def _matching(facts: Facts, thing: int, attributes: Sequence[str]) -> list[int]:
    wanted = [getattr(facts.scene.things[thing], name) for name in attributes]
    return [i for i, other in enumerate(facts.scene.things) if [getattr(other, name) for name in attributes] == wanted]


def _by_attributes(facts: Facts, thing: int, rng: random.Random, without: str | None = None) -> Expression | None:
    minimal: list[tuple[str, ...]] = []
    for attributes in _COMBINATIONS:
        if without in attributes or any(set(shorter) < set(attributes) for shorter in minimal):
            continue
        if len(_matching(facts, thing, attributes)) == 1:
            minimal.append(attributes)
    if not minimal:
        return None
    chosen = list(rng.choice(minimal))
    if "shape" not in chosen and "shape" != without and rng.random() < 0.6:
        chosen.append("shape")
    elif "colour" not in chosen and "colour" != without and rng.random() < 0.3:
        chosen.append("colour")
    return Expression("the " + describe(facts, thing, chosen), "attribute")


def motion_phrase(facts: Facts, thing: int) -> str | None:
    """Verb phrase for how a thing moves; None for cups."""
    item = facts.scene.things[thing]
    if item.motion in ("straight", "stop-and-go"):
        return f"moves {item.heading}"
    return {
        "still": "stays still",
        "bounce": "moves back and forth",
        "orbit": "moves in a circle",
        "enter": "enters",
        "leave": "leaves",
        "approach": "comes and goes",
    }.get(item.motion)


def event_phrase(facts: Facts, event: Event) -> str:
    """Verb phrase for an event, e.g. "turns blue"."""
    if event.kind == "changes colour":
        return f"turns {event.detail}"
    if event.kind == "meets":
        partner = event.partner if event.partner is not None else event.thing
        return f"meets the {describe(facts, partner, ('colour', 'shape'))}"
    return event.kind


def _predicates(facts: Facts, thing: int) -> set[str]:
    held = {event_phrase(facts, event) for event in facts.events if event.thing == thing}
    motion = motion_phrase(facts, thing)
    return held | ({motion} if motion else set())


def _by_motion(facts: Facts, thing: int, rng: random.Random) -> Expression | None:
    if facts.scene.candy == thing:
        return Expression("the cup with the candy", "motion")
    options: list[str] = []
    for attributes in ((), ("shape",), ("colour",), ("colour", "shape"), _ATTRIBUTES):
        rivals = _matching(facts, thing, attributes)
        if len(rivals) < 2:
            continue
        taken = set().union(*(_predicates(facts, other) for other in rivals if other != thing))
        blurred = {"moves back and forth", "moves in a circle", "enters", "leaves", "comes and goes"} & taken
        for phrase in sorted(_predicates(facts, thing) - taken):
            if phrase.startswith("moves ") and phrase.split()[1] in ("left", "right", "up", "down") and blurred:
                continue
            options.append(f"the {describe(facts, thing, attributes)} that {phrase}")
    return Expression(rng.choice(options), "motion") if options else None


def _by_order(facts: Facts, thing: int, rng: random.Random) -> Expression | None:
    options: list[str] = []
    for kind in ("blinks", "stops"):
        happening = [event for event in facts.events if event.kind == kind]
        if len(happening) < 2 or all(event.thing != thing for event in happening):
            continue
        starts = {event.thing: event.start for event in happening}
        mine = starts[thing]
        others = [start for index, start in starts.items() if index != thing]
        alike = {facts.scene.things[index].shape for index in starts}
        noun = alike.pop() if len(alike) == 1 else "thing"
        if all(start - mine >= 2 for start in others):
            options.append(f"the {noun} that {kind} first")
        if all(mine - start >= 2 for start in others):
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
    extreme = {"left of": "leftmost", "right of": "rightmost", "above": "topmost", "below": "lowest"}
    options: list[str] = []
    for attributes in ((), ("shape",), ("colour",), ("colour", "shape")):
        rivals = [other for other in _matching(facts, thing, attributes) if other != thing]
        if not rivals:
            continue
        noun = describe(facts, thing, attributes)
        for word, distance in tests.items():
            if all(distance(thing, other) > _MARGIN for other in rivals):
                options.append(f"the {extreme[word]} {noun}")
            for anchor in seen:
                if anchor in (thing, *rivals) and attributes:
                    continue
                if anchor == thing or len(_matching(facts, anchor, ("colour", "shape"))) > 1:
                    continue
                apart = all(distance(other, anchor) < -_MARGIN / 2 for other in rivals if other != anchor)
                if distance(thing, anchor) > _MARGIN and apart:
                    options.append(f"the {noun} {word} the {describe(facts, anchor, ('colour', 'shape'))}")
    return Expression(rng.choice(options), "relation") if options else None


def refer(facts: Facts, thing: int, rng: random.Random, kinds: Sequence[str] = _KINDS) -> Expression | None:
    """A phrase that singles the thing out, or None where none of the given kinds can."""
    makers = {"attribute": _by_attributes, "relation": _by_relation, "motion": _by_motion, "order": _by_order}
    pool = [(kind, weight) for kind, weight in zip(_KINDS, _KIND_WEIGHTS, strict=True) if kind in kinds]
    while pool:
        kind = rng.choices([name for name, _ in pool], [weight for _, weight in pool])[0]
        found = makers[kind](facts, thing, rng)
        if found is not None:
            return found
        pool = [entry for entry in pool if entry[0] != kind]
    return None


def event_query(facts: Facts, event: Event, rng: random.Random) -> str | None:
    """A clause for the event whose subject is unique without mentioning the event, e.g. "the red ball blinks"."""
    subject = refer(facts, event.thing, rng, ("attribute", "relation"))
    if subject is None or (event.partner is not None and len(_matching(facts, event.partner, ("colour", "shape"))) > 1):
        return None
    return f"{subject.text} {event_phrase(facts, event)}"


def absent_query(facts: Facts, rng: random.Random) -> str | None:
    """A clause about something that exists but to which this does not happen."""
    things = list(range(len(facts.scene.things)))
    rng.shuffle(things)
    for thing in things:
        happening = {event.kind for event in facts.events if event.thing == thing}
        quiet = [kind for kind in ("blinks", "stops", "is hidden") if kind not in happening]
        subject = refer(facts, thing, rng, ("attribute",))
        if quiet and subject is not None and facts.scene.candy is None:
            return f"{subject.text} {rng.choice(quiet)}"
    return None


def absent_look(facts: Facts, rng: random.Random) -> str | None:
    """A colour and shape that are both in the scene, or nearly, but never on one thing."""
    present = {(item.colour, item.shape) for item in facts.scene.things}
    colours = [item.colour for item in facts.scene.things] or list(COLOURS)
    for _ in range(8):
        pair = (rng.choice(colours), rng.choice(SHAPES)) if rng.random() < 0.7 else (rng.choice(tuple(COLOURS)), rng.choice(SHAPES))
        if pair not in present:
            return " ".join(pair)
    return None


def caption(facts: Facts) -> str:
    """A dense caption: every thing from left to right with look, place, motion and events."""
    if facts.scene.candy is not None:
        colour = facts.scene.things[0].colour
        return f"three {colour} cups are shuffled. the candy is under the {_cup_place(facts)} cup."
    order = sorted(range(len(facts.scene.things)), key=lambda i: float(facts.scene.things[i].path_xy[ASKED_FRAME, 0]))
    sentences = []
    for thing in order:
        parts = [f"a {describe(facts, thing, _ATTRIBUTES)}"]
        if facts.is_seen(thing):
            parts.append(f"at the {facts.place(thing)}")
        parts.append(motion_phrase(facts, thing) or "")
        for event in facts.events:
            if event.thing == thing:
                parts.append(f"and {event_phrase(facts, event)} {facts.when(event)}")
        sentences.append(" ".join(part for part in parts if part) + ".")
    return " ".join(sentences)


def _cup_place(facts: Facts) -> str:
    assert facts.scene.candy is not None
    x = float(facts.scene.things[facts.scene.candy].path_xy[ASKED_FRAME, 0])
    return ("left", "middle", "right")[min(int(x * 3 / 64), 2)]


def questions(facts: Facts, rng: random.Random) -> list[Question]:
    """Every kind of question that the scene allows, in random order, with one exact answer each."""
    things = range(len(facts.scene.things))
    asked: list[Question] = []
    if facts.scene.candy is not None:
        asked.append(Question("cup", "Which cup hides the candy?", _cup_place(facts)))
        asked.append(Question("count", "How many cups are there?", "three"))
        return asked
    for thing in things:
        asked += _about_one(facts, thing, rng)
    asked += _counts(facts, rng)
    asked += _existence(facts, rng)
    asked += _relations(facts, rng)
    asked += _order(facts, rng)
    rng.shuffle(asked)
    return asked


def _about_one(facts: Facts, thing: int, rng: random.Random) -> list[Question]:
    item = facts.scene.things[thing]
    asked: list[Question] = []
    for attribute, text in (("colour", "What colour is {}?"), ("shape", "What shape is {}?"), ("material", "Is {} plain, striped or dotted?")):
        subject = _by_attributes(facts, thing, rng, without=attribute)
        if subject is None and attribute == "colour":
            subject = refer(facts, thing, rng, ("relation",))
            if subject is not None and item.colour in subject.text:
                subject = None
        if subject is not None:
            asked.append(Question(attribute, text.format(subject.text), getattr(item, attribute)))
    subject = _by_attributes(facts, thing, rng, without="size")
    if subject is not None:
        asked.append(Question("size", f"Is {subject.text} small or large?", item.size))
    subject = refer(facts, thing, rng)
    if subject is not None and facts.is_seen(thing):
        asked.append(Question("position", f"Where is {subject.text} at the end?", facts.place(thing)))
    subject = _by_attributes(facts, thing, rng)
    if subject is None:
        return asked
    if facts.is_seen(thing, 0):
        asked.append(Question("position", f"Where is {subject.text} at the start?", facts.place(thing, 0)))
    motion = motion_phrase(facts, thing)
    if motion is not None:
        asked.append(Question("motion", f"How does {subject.text} move?", motion))
    if item.motion in ("straight", "stop-and-go") and item.heading is not None:
        asked.append(Question("direction", f"Which way does {subject.text} move?", item.heading))
    mine = [event for event in facts.events if event.thing == thing]
    if len(mine) <= 1:
        asked.append(Question("event", f"What happens to {subject.text}?", event_phrase(facts, mine[0]) if mine else "nothing"))
    for event in mine:
        if len(event.windows) == 1:
            asked.append(Question("when", f"When is it that {subject.text} {event_phrase(facts, event)}?", facts.when(event)))
    return asked


def _counts(facts: Facts, rng: random.Random) -> list[Question]:
    things = facts.scene.things
    asked = [Question("count", "How many things are there?", NUMBER_WORDS[len(things)])]
    shape = rng.choice([item.shape for item in things] + [rng.choice(SHAPES)])
    asked.append(Question("count", f"How many {_plural(shape)} are there?", NUMBER_WORDS[sum(item.shape == shape for item in things)]))
    colour = rng.choice([item.colour for item in things] + [rng.choice(tuple(COLOURS))])
    asked.append(Question("count", f"How many {colour} things are there?", NUMBER_WORDS[sum(item.colour == colour for item in things)]))
    return asked


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def plural(facts: Facts, rng: random.Random) -> tuple[str, tuple[int, ...]] | None:
    """A phrase for several things that are seen at the end, e.g. ("all red things", (0, 2)), or None."""
    options: list[tuple[str, tuple[int, ...]]] = []
    for attribute in ("colour", "shape"):
        for value in sorted({str(getattr(item, attribute)) for item in facts.scene.things}):
            group = tuple(i for i, item in enumerate(facts.scene.things) if getattr(item, attribute) == value)
            if len(group) >= 2 and all(facts.is_seen(i) for i in group) and value != "cup":
                options.append((f"all {value} things" if attribute == "colour" else f"all {_plural(value)}", group))
    return rng.choice(options) if options else None


def _existence(facts: Facts, rng: random.Random) -> list[Question]:
    item = rng.choice(facts.scene.things)
    asked = [Question("existence", f"Is there a {item.colour} {item.shape}?", "yes")]
    missing = absent_look(facts, rng)
    if missing is not None:
        asked.append(Question("existence", f"Is there a {missing}?", "no"))
    return asked


def _relations(facts: Facts, rng: random.Random) -> list[Question]:
    things = facts.scene.things
    seen = [i for i in range(len(things)) if facts.is_seen(i) and len(_matching(facts, i, ("colour", "shape"))) == 1]
    if len(seen) < 2:
        return []
    one, other = rng.sample(seen, 2)
    (x1, y1), (x2, y2) = things[one].path_xy[ASKED_FRAME], things[other].path_xy[ASKED_FRAME]
    word, gap = rng.choice((("left of", x2 - x1), ("right of", x1 - x2), ("above", y2 - y1), ("below", y1 - y2)))
    if abs(gap) < _MARGIN:
        return []
    names = [describe(facts, i, ("colour", "shape")) for i in (one, other)]
    return [Question("relation", f"Is the {names[0]} {word} the {names[1]} at the end?", "yes" if gap > 0 else "no")]


def _order(facts: Facts, rng: random.Random) -> list[Question]:
    events = [event for event in facts.events if len(event.windows) == 1]
    if len(events) < 2:
        return []
    one, other = rng.sample(events, 2)
    if abs(one.start - other.start) < 3:
        return []
    first, second = event_query(facts, one, rng), event_query(facts, other, rng)
    if first is None or second is None:
        return []
    return [Question("order", f"Is it true that {first} before {second}?", "yes" if one.start < other.start else "no")]
