"""Scenes to words: captions, questions with answers, and clauses about what happens. Every sentence is checked against the facts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tpo_lab.datasets.world.expressions import (
    ATTRIBUTES,
    LOOK,
    MARGIN,
    alike,
    by_attributes,
    describe,
    event_phrase,
    is_unmistakable,
    motion_phrase,
    pluralise,
    refer,
)
from tpo_lab.datasets.world.facts import ASKED_FRAME, Event, Facts
from tpo_lab.datasets.world.scene import FRAME_SIZE
from tpo_lab.datasets.world.words import COLOURS, HELD_OUT_EVENTS, HELD_OUT_LOOKS, SHAPES

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
_ABOUT_ITS_LOOK = {"colour": "What colour is {}?", "shape": "What shape is {}?", "material": "Is {} plain, striped or dotted?"}
_COMES_OR_GOES = ("enter", "leave", "approach")
_NEVER_PAUSES = ("still", "straight", "bounce", "orbit")


@dataclass(frozen=True)
class Question:
    """A question with its short answer; `kind` groups questions in reports."""

    kind: str
    text: str
    answer: str


def event_query(facts: Facts, event: Event, rng: random.Random) -> str | None:
    """A clause for the event whose subject is unique without mentioning the event, e.g. "the red ball blinks"."""
    subject = refer(facts, event.thing, rng, ("attribute", "relation"))
    if subject is None or not is_unmistakable(facts, event):
        return None
    return f"{subject.text} {event_phrase(facts, event)}"


def absent_query(facts: Facts, rng: random.Random) -> str | None:
    """A clause about something that exists but to which this plainly does not happen; held-out pairs are not even denied."""
    if facts.scene.candy is not None:
        return None
    things = list(range(len(facts.scene.things)))
    rng.shuffle(things)
    for thing in things:
        item = facts.scene.things[thing]
        happening = {event.kind for event in facts.happenings if event.thing == thing}
        if item.motion not in _NEVER_PAUSES:
            happening.add("stops")
        if facts.is_ever_covered(thing):
            happening.add("is hidden")
        quiet = [kind for kind in ("blinks", "stops", "is hidden") if kind not in happening]
        if facts.scene.split != "compositions":
            quiet = [kind for kind in quiet if (kind, item.shape) not in HELD_OUT_EVENTS]
        subject = refer(facts, thing, rng, ("attribute",))
        if quiet and subject is not None:
            return f"{subject.text} {rng.choice(quiet)}"
    return None


def absent_look(facts: Facts, rng: random.Random) -> str | None:
    """A colour and shape, mostly of a colour that is there, which no thing has and none turns to; held-out pairs are not even denied."""
    taken = {(item.colour, item.shape) for item in facts.scene.things}
    taken |= {(item.turns[0], item.shape) for item in facts.scene.things if item.turns is not None}
    if facts.scene.split != "compositions":
        taken |= HELD_OUT_LOOKS
    colours = [item.colour for item in facts.scene.things]
    for _ in range(8):
        pair = (rng.choice(colours if rng.random() < 0.7 else tuple(COLOURS)), rng.choice(SHAPES))
        if pair not in taken:
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
        parts = [f"a {describe(facts, thing, ATTRIBUTES)}"]
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
    return ("left", "middle", "right")[min(int(x * 3 / FRAME_SIZE), 2)]


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
    for attribute, text in _ABOUT_ITS_LOOK.items():
        if attribute == "colour" and item.turns is not None:
            continue
        subject = by_attributes(facts, thing, rng, without=attribute)
        if subject is None and attribute == "colour":
            subject = refer(facts, thing, rng, ("relation",))
            if subject is not None and item.colour in subject.text:
                subject = None
        if subject is not None:
            asked.append(Question(attribute, text.format(subject.text), getattr(item, attribute)))
    subject = by_attributes(facts, thing, rng, without="size")
    if subject is not None:
        asked.append(Question("size", f"Is {subject.text} small or large?", item.size))
    subject = refer(facts, thing, rng)
    if subject is not None and facts.is_seen(thing):
        asked.append(Question("position", f"Where is {subject.text} at the end?", facts.place(thing)))
    subject = by_attributes(facts, thing, rng)
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
    about_it = [event for event in facts.happenings if thing in (event.thing, event.partner)]
    if len(about_it) == len(mine) == 1 and is_unmistakable(facts, mine[0]):
        asked.append(Question("event", f"What happens to {subject.text}?", event_phrase(facts, mine[0])))
    elif not about_it and item.motion not in _COMES_OR_GOES:
        asked.append(Question("event", f"What happens to {subject.text}?", "nothing"))
    for event in mine:
        if len(event.windows) == 1 and is_unmistakable(facts, event):
            asked.append(Question("when", f"When is it that {subject.text} {event_phrase(facts, event)}?", facts.when(event)))
    return asked


def _counts(facts: Facts, rng: random.Random) -> list[Question]:
    things = facts.scene.things
    asked = [Question("count", "How many things are there?", NUMBER_WORDS[len(things)])]
    shape = rng.choice([item.shape for item in things] + [rng.choice(SHAPES)])
    asked.append(Question("count", f"How many {pluralise(shape)} are there?", NUMBER_WORDS[sum(item.shape == shape for item in things)]))
    colour = rng.choice([item.colour for item in things] + [rng.choice(tuple(COLOURS))])
    asked.append(Question("count", f"How many {colour} things are there?", NUMBER_WORDS[sum(item.colour == colour for item in things)]))
    return asked


def _existence(facts: Facts, rng: random.Random) -> list[Question]:
    item = rng.choice(facts.scene.things)
    asked = [Question("existence", f"Is there a {item.colour} {item.shape}?", "yes")]
    missing = absent_look(facts, rng)
    if missing is not None:
        asked.append(Question("existence", f"Is there a {missing}?", "no"))
    return asked


def relations(facts: Facts, rng: random.Random) -> list[Question]:
    """One question about each pair of things that have a look of their own and lie plainly apart, in random order."""
    pairs = list(itertools.combinations(_with_own_look(facts), 2))
    rng.shuffle(pairs)
    asked = (_relation(facts, rng.sample(pair, 2), rng) for pair in pairs)
    return [question for question in asked if question is not None]


def _with_own_look(facts: Facts) -> list[int]:
    return [i for i in range(len(facts.scene.things)) if facts.is_seen(i) and len(alike(facts, i, LOOK)) == 1]


def _relations(facts: Facts, rng: random.Random) -> list[Question]:
    seen = _with_own_look(facts)
    if len(seen) < 2:
        return []
    question = _relation(facts, rng.sample(seen, 2), rng)
    return [] if question is None else [question]


def _relation(facts: Facts, pair: Sequence[int], rng: random.Random) -> Question | None:
    (x1, y1), (x2, y2) = (facts.scene.things[i].path_xy[ASKED_FRAME] for i in pair)
    word, gap = rng.choice((("left of", x2 - x1), ("right of", x1 - x2), ("above", y2 - y1), ("below", y1 - y2)))
    if abs(gap) < MARGIN:
        return None
    names = [describe(facts, i, LOOK) for i in pair]
    return Question("relation", f"Is the {names[0]} {word} the {names[1]} at the end?", "yes" if gap > 0 else "no")


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
