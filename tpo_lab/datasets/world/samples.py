"""Scenes to samples of the JSONL schema: what a conversation, region or temporal sample of the world asks and what is right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets import templates
from tpo_lab.datasets.world import language
from tpo_lab.datasets.world.expressions import Expression, refer, refer_to_several
from tpo_lab.datasets.world.facts import ASKED_FRAME, SALIENCY_STEP_FRAMES, Facts
from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, Scene
from tpo_lab.datasets.world.words import HELD_OUT_EVENTS, HELD_OUT_LOOKS
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.rle import encode_rle
from tpo_lab.sample import Sample

DURATION_SEC = FRAME_COUNT / FRAME_RATE
TASKS: tuple[str, ...] = ("conversation", "region", "temporal", "mask", "track")
PLACES = "places"
"""Conversation that asks only where things are at the end, in words; for a backbone's pretraining."""
RELATIONS = "relations"
"""Conversation that asks only which of two things lies further to a side; for a backbone's pretraining."""
TOLD_BY = {"box": 0.6, "point": 0.2, "scribble": 0.2}
"""How things to follow are pointed at, and how often."""
SCRIBBLED = 3
"""Pixels of a thing that a scribble goes through."""
NOT_THERE, NOT_HAPPENING = "It is not there.", "It does not happen."


def samples_of(
    scene: Scene, tasks: Sequence[str] = TASKS, *, rng: random.Random | None = None, questions: int = 4, media: str | None = None
) -> list[Sample]:
    """Samples about one scene, several per task.

    Each sample's `meta` holds its `task` and `kind`, the `scene` it asks about as a "world://" reference, and the `things` (indices
    into the scene's) that its targets show, and its `difficulty`, the number of the scene's things.

    Args:
        tasks: which of `TASKS`, or `PLACES`, or `RELATIONS`.
        rng: chooses wording and questions; seeded by the scene's name where None.
        questions: at most so many samples per task, at least 1.
        media: the media path to write; where None a reference that is rendered on demand.

    Raises:
        UsageError: for an unknown task, or fewer than one question.
    """
    if questions < 1:
        raise UsageError("questions", expected="at least 1", got=questions)
    rng = rng or random.Random(scene.name)
    facts = Facts(scene)
    made: list[dict[str, Any]] = []
    makers = {
        "conversation": _conversation,
        "region": _region,
        "temporal": _temporal,
        "mask": _mask,
        "track": _track,
        PLACES: _places,
        RELATIONS: _relations,
    }
    for task in tasks:
        if task not in makers:
            raise unknown_name("tasks", task, TASKS)
        made += makers[task](facts, rng, questions)
    return [
        Sample.model_validate(
            {
                "id": f"{scene.name}-{number}",
                "source": "world",
                "split": scene.split,
                "media": {"path": media or scene.reference, "start_sec": 0.0, "end_sec": DURATION_SEC},
                **record,
                "meta": {**record["meta"], "scene": scene.reference, "difficulty": len(scene.things)},
            }
        )
        for number, record in enumerate(made)
    ]


def _record(question: str, answer: str, kind: str, task: str, *, things: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    meta = {"kind": kind, "task": task, **({"things": list(things)} if things else {})}
    return {"conversation": [{"role": "user", "text": question}, {"role": "assistant", "text": answer}], "meta": meta, **more}


def _conversation(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    made = [_record(rng.choice(templates.CAPTION), language.caption(facts), "caption", "conversation")]
    asked = language.questions(facts, rng)
    for question in _balanced(asked, count - 1, rng):
        made.append(_record(question.text, question.answer, question.kind, "conversation"))
    return made


def _places(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    named = _named(facts, rng, count)[:count]
    return [_record(f"Where is {words.text} at the end?", facts.place(thing), "position", "conversation") for thing, words in named]


def _relations(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    asked = language.relations(facts, rng)[:count]
    return [_record(question.text, question.answer, question.kind, "conversation") for question in asked]


def _named(facts: Facts, rng: random.Random, count: int) -> list[tuple[int, Expression]]:
    """Every thing that can be seen at the end with words that mean it alone, and then again in other words; more often for many."""
    seen = _targets_of_split(facts)
    rng.shuffle(seen)
    found: dict[str, tuple[int, Expression]] = {}
    for thing in seen * max(2, count // 3):
        expression = refer(facts, thing, rng)
        if expression is not None:
            found.setdefault(expression.text, (thing, expression))
    return list(found.values())


def _balanced(asked: list[language.Question], count: int, rng: random.Random) -> list[language.Question]:
    """Draw questions kind by kind, so that the many questions about colours do not drown the few about order."""
    by_kind: dict[str, list[language.Question]] = {}
    for question in asked:
        by_kind.setdefault(question.kind, []).append(question)
    chosen: list[language.Question] = []
    while by_kind and len(chosen) < count:
        for kind in rng.sample(sorted(by_kind), len(by_kind)):
            if len(chosen) < count:
                chosen.append(by_kind[kind].pop())
            if not by_kind[kind]:
                del by_kind[kind]
    return chosen


def _box(facts: Facts, thing: int, frame: int) -> dict[str, Any]:
    box = facts.box(thing, frame)
    assert box is not None
    return {"time_sec": frame / FRAME_RATE, "xyxy": list(box)}


def _targets_of_split(facts: Facts) -> list[int]:
    """Things that may be asked for; in the composition split those whose look was never trained on."""
    seen = [i for i in range(len(facts.scene.things)) if facts.is_seen(i) and facts.box(i, ASKED_FRAME) is not None]
    if facts.scene.split != "compositions":
        return seen
    things = facts.scene.things
    return [i for i in seen if (things[i].colour, things[i].shape) in HELD_OUT_LOOKS]


def _region(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    named = _named(facts, rng, count)
    # the more questions name a thing, the more often these three are among them
    often = max(1.0, count / 8)
    for thing, words in named:
        question = rng.choice(templates.REGION).format(query=words.text)
        targets = {"region": [_box(facts, thing, ASKED_FRAME)]}
        made.append(_record(question, "<region>", words.kind, "region", things=[thing], targets=targets))
    several = refer_to_several(facts, rng) if facts.scene.split != "compositions" else None
    if several is not None and rng.random() < 0.3 * often:
        question = rng.choice(templates.REGION).format(query=several[0])
        boxes = [_box(facts, thing, ASKED_FRAME) for thing in several[1]]
        answer = " ".join(["<region>"] * len(boxes))
        made.insert(rng.randrange(2), _record(question, answer, "plural", "region", things=several[1], targets={"region": boxes}))
    missing = language.absent_look(facts, rng) if facts.scene.split != "compositions" else None
    if missing is not None and rng.random() < 0.2 * often:
        question = rng.choice(templates.REGION).format(query=f"the {missing}")
        made.insert(rng.randrange(2), _record(question, NOT_THERE, "absent", "region"))
    pointed = [
        i
        for i in dict.fromkeys(thing for thing, _ in named)
        if facts.is_seen(i, 0) and facts.scene.things[i].motion not in ("enter", "leave")
    ]
    if pointed and rng.random() < 0.4 * often:
        made.insert(rng.randrange(2), _follow(facts, pointed[0], rng))
    return made[:count]


def _follow(facts: Facts, thing: int, rng: random.Random) -> dict[str, Any]:
    """Something that the user points at in the first frame: where is it at the end?"""
    question = rng.choice(("Where is <prompt:0> at the end?", "Where does <prompt:0> go?", "Find <prompt:0> at the end."))
    prompt = {"type": "box", **_box(facts, thing, 0)}
    targets = {"region": [_box(facts, thing, ASKED_FRAME)]}
    return _record(question, "<region>", "pointed", "region", things=[thing], prompts=[prompt], targets=targets)


def _mask(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Referring segmentation: the thing that words mean alone, in every frame."""
    made = []
    for thing, words in _named(facts, rng, count)[:count]:
        question = rng.choice(templates.SEGMENTATION).format(query=words.text)
        rle = [encode_rle(mask) if mask.any() else None for mask in facts.visible[thing]]
        targets = {"mask": {"times_sec": _frame_times(), "rle": rle}}
        made.append(_record(question, "<mask>", words.kind, "mask", things=[thing], targets=targets))
    return made


def _track(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Tracking: a thing in the first frame, told by a box, a point or a scribble, and where it is in every one."""
    seen = [thing for thing in range(len(facts.scene.things)) if facts.is_seen(thing, 0)]
    made = []
    for thing in rng.sample(seen, min(count, len(seen))):
        told = rng.choices(tuple(TOLD_BY), tuple(TOLD_BY.values()))[0]
        if told == "box":
            question = rng.choice(templates.TRACKING).format(box="<prompt:0>")
            prompt = {"type": "box", **_box(facts, thing, 0)}
        else:
            question = rng.choice(templates.FOLLOWING).format(thing="<prompt:0>")
            prompt = _drawn(facts.visible[thing, 0], told, rng)
        boxes = [facts.box(thing, frame) for frame in range(FRAME_COUNT)]
        targets = {"track": {"times_sec": _frame_times(), "xyxy": [None if box is None else list(box) for box in boxes]}}
        made.append(_record(question, "<track>", told, "mask", things=[thing], prompts=[prompt], targets=targets))
    return made


def _drawn(mask: NDArray[np.bool_], told: str, rng: random.Random) -> dict[str, Any]:
    """A point in a mask [y, x], or a scribble through three of its pixels from left to right."""
    rows, columns = np.nonzero(mask)
    chosen = sorted(rng.sample(range(len(rows)), min(len(rows), SCRIBBLED)), key=lambda place: int(columns[place]))
    points = [[float(columns[place]) + 0.5, float(rows[place]) + 0.5] for place in chosen]
    return {"type": "point", "xy": rng.choice(points)} if told == "point" or len(points) < 2 else {"type": "scribble", "xys": points}


def _frame_times() -> list[float]:
    return [frame / FRAME_RATE for frame in range(FRAME_COUNT)]


def _temporal(facts: Facts, rng: random.Random, count: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    events = list(facts.events)
    rng.shuffle(events)
    if facts.scene.split == "compositions":
        events = [event for event in events if (event.kind, facts.scene.things[event.thing].shape) in HELD_OUT_EVENTS]
    asked: set[str] = set()
    # many questions: the same again in other words, and more often for what does not happen
    often = max(1.0, count / 8)
    for event in events * (count // 4 if count > 8 else 1):
        query = language.event_query(facts, event, rng)
        if query is None or query in asked:
            continue
        asked.add(query)
        target = {
            "windows_sec": facts.windows_sec(event),
            "saliency": {"step_sec": SALIENCY_STEP_FRAMES / FRAME_RATE, "scores": [float(score) for score in facts.saliency(event)]},
        }
        question = rng.choice(templates.TEMPORAL).format(query=query)
        made.append(_record(question, "<temporal>", event.kind, "temporal", things=[event.thing], targets={"temporal": target}))
    absent = language.absent_query(facts, rng) if facts.scene.split != "compositions" else None
    if absent is not None and rng.random() < 0.15 * often:
        question = rng.choice(templates.TEMPORAL).format(query=absent)
        made.append(_record(question, NOT_HAPPENING, "absent", "temporal"))
    return made[:count]
