from __future__ import annotations

import random
import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from tpo_lab.datasets.world.facts import Facts
from tpo_lab.datasets.world.language import absent_look, absent_query, caption, event_query, questions
from tpo_lab.datasets.world.scene import Scene, sample_scene
from tpo_lab.datasets.world.words import HELD_OUT_EVENTS, HELD_OUT_LOOKS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
GRID = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))
EVENT_VERBS = ("blinks", "stops", "is hidden")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "white")


@pytest.fixture(scope="module")
def scenes():
    plan = (("train", "standard", 60), ("test", "standard", 60), ("compositions", "standard", 20), ("test", "hard", 30))
    return [Facts(sample_scene(i, seed=6, split=split, level=level)) for split, level, count in plan for i in range(count)]


@pytest.fixture(scope="module")
def asked(scenes):
    """Every question about every scene."""
    return [(facts, question) for facts in scenes for question in questions(facts, random.Random(facts.scene.index))]


def cell(xy) -> str:
    return GRID[min(max(int(xy[1] // (64 / 3)), 0), 2)][min(max(int(xy[0] // (64 / 3)), 0), 2)]


def third(start: int, end: int) -> str:
    return ("early", "midway", "late")[sum(start + end >= edge for edge in (12, 18))]


def verbs_of(reader, thing: int) -> list[str]:
    """Every event that the witness sees happen to a thing."""
    others = {
        f"meets the {look['colour']} {look['shape']}"
        for look in map(reader.look, range(reader.count))
        if len(reader.nouns(f"{look['colour']} {look['shape']}")) == 1
    }
    verbs = [*EVENT_VERBS, *(f"turns {colour}" for colour in COLOURS), *sorted(others)]
    return [verb for verb in verbs if reader.windows(thing, verb)]


def one(reader, phrase: str) -> int:
    (thing,) = reader.fits(phrase)
    return thing


def answer_of(reader, text: str) -> str:
    """The right answer to a question, from the witness alone."""
    scene = reader.scene
    if found := re.fullmatch(r"What (colour|shape) is (the .+)\?", text):
        return reader.look(one(reader, found[2]))[found[1]]
    if found := re.fullmatch(r"Is (the .+) (plain, striped or dotted|small or large)\?", text):
        return reader.look(one(reader, found[1]))["material" if "plain" in found[2] else "size"]
    if found := re.fullmatch(r"How many (.+) are there\?", text):
        words = found[1].split()
        singular = {"things": "thing", "crosses": "cross"}.get(words[-1], words[-1].removesuffix("s"))
        return NUMBERS[len(reader.nouns(" ".join([*words[:-1], singular])))]
    if found := re.fullmatch(r"Where is (the .+) at the (start|end)\?", text):
        return cell(scene.things[one(reader, found[1])].path_xy[0 if found[2] == "start" else -1])
    if found := re.fullmatch(r"Which way does (the .+) move\?", text):
        return reader.motion(one(reader, found[1])).removeprefix("moves ")
    if found := re.fullmatch(r"How does (the .+) move\?", text):
        return reader.motion(one(reader, found[1]))
    if found := re.fullmatch(r"Is there a (\w+ \w+)\?", text):
        return "yes" if reader.nouns(found[1]) else "no"
    if found := re.fullmatch(r"Is (the \w+ \w+) (left of|right of|above|below) (the \w+ \w+) at the end\?", text):
        a, b = (scene.things[one(reader, found[place])].path_xy[-1] for place in (1, 3))
        return "yes" if {"left of": a[0] < b[0], "right of": a[0] > b[0], "above": a[1] < b[1], "below": a[1] > b[1]}[found[2]] else "no"
    if found := re.fullmatch(r"Is it true that (.+) before (.+)\?", text):
        (_, first), (_, second) = reader.clause(found[1]), reader.clause(found[2])
        return "yes" if first[0][0] < second[0][0] else "no"
    if found := re.fullmatch(r"When is it that (.+)\?", text):
        _, ((start, end),) = reader.clause(found[1])
        return third(start, end)
    assert text == "Which cup hides the candy?", text
    return ("left", "middle", "right")[int(candy_by_watching(scene)[0] // (64 / 3))]


def candy_by_watching(scene: Scene) -> np.ndarray:
    """Where the candy ends up for somebody who sees three equal cups: each frame's cups are matched to the nearest of the last frame."""
    frames = np.stack([thing.path_xy for thing in scene.things], 1).astype(float)
    at = frames[0, scene.candy]
    places = frames[0]
    for frame in frames[1:]:
        unnamed = frame[np.argsort(frame[:, 0])]
        best = min(permutations(range(3)), key=lambda order: sum(np.linalg.norm(places[i] - unnamed[j]) for i, j in enumerate(order)))
        held = int(np.linalg.norm(places - at, axis=1).argmin())
        places = unnamed[list(best)]
        at = places[held]
    return at


@pytest.mark.parametrize(
    ("kind", "at_least"),
    [
        ("colour", 300), ("shape", 300), ("material", 300), ("size", 300), ("count", 400), ("position", 600), ("direction", 100),
        ("motion", 300), ("existence", 300), ("relation", 80), ("order", 15), ("when", 100),
    ],
)  # fmt: skip
def test_every_answer_is_the_one_that_a_witness_gives(kind, at_least, asked, witness):
    checked = 0
    for facts, question in asked:
        if question.kind == kind and facts.scene.candy is None:
            got = answer_of(witness(facts.scene), question.text)
            assert got == question.answer, (facts.scene.reference, question)
            checked += 1
    assert checked >= at_least


def test_what_happens_to_a_thing_is_the_only_thing_that_happens(asked, witness):
    """Apart from what is no event: others pass by, visitors pause where they meet, and who enters comes to rest."""
    answers = Counter()
    for facts, question in asked:
        if question.kind == "event":
            reader = witness(facts.scene)
            thing = one(reader, question.text.removeprefix("What happens to ").removesuffix("?"))
            motion = facts.scene.things[thing].motion
            happening = set(verbs_of(reader, thing))
            no_event = {"enter": {"stops", "is hidden"}, "leave": {"is hidden"}, "approach": {"stops"}}.get(motion, set())
            others = {verb for verb in happening - no_event if verb != question.answer and not verb.startswith("meets")}
            assert not others, (facts.scene.reference, question)
            assert question.answer in happening or (question.answer == "nothing" and motion not in ("enter", "leave", "approach"))
            answers[question.answer.split()[0]] += 1
    assert set(answers) >= {"nothing", "blinks", "turns", "stops", "meets"}


def test_answers_do_not_depend_on_chance(scenes, witness):
    for facts in scenes[:20]:
        reader = witness(facts.scene)
        for draw in range(3):
            for question in questions(facts, random.Random(draw)):
                if question.kind not in ("event", "cup"):
                    assert answer_of(reader, question.text) == question.answer


def test_questions_never_contain_their_answer(asked):
    for _, question in asked:
        if question.kind in ("colour", "shape"):
            assert question.answer not in re.findall(r"\w+", question.text), question


def test_the_colour_of_a_thing_that_changes_it_is_not_asked_for(asked, witness):
    for facts, question in asked:
        if question.kind == "colour":
            thing = one(witness(facts.scene), question.text.removeprefix("What colour is ").removesuffix("?"))
            assert facts.scene.things[thing].turns is None


@pytest.mark.parametrize("split", ["train", "test", "compositions"])
def test_the_candy_is_under_the_cup_that_a_watcher_follows(split, witness):
    games = [scene for scene in (sample_scene(i, split=split, seed=1) for i in range(400)) if scene.candy is not None]
    assert len(games) > 10
    ends = Counter()
    for scene in games:
        at = candy_by_watching(scene)
        np.testing.assert_allclose(at, scene.things[scene.candy].path_xy[-1], atol=1e-4)
        asked = {question.kind: question for question in questions(Facts(scene), random.Random(0))}
        assert set(asked) == {"cup", "count"} and asked["count"].answer == "three"
        assert asked["cup"].answer == answer_of(witness(scene), asked["cup"].text)
        assert f"the candy is under the {asked['cup'].answer} cup." in caption(Facts(scene))
        ends[asked["cup"].answer] += 1
    assert set(ends) == {"left", "middle", "right"}


def test_captions_mention_every_thing_once_from_left_to_right(scenes):
    for facts in scenes:
        if facts.scene.candy is not None:
            continue
        sentences = caption(facts).removesuffix(".").split(". ")
        ends = sorted(range(len(facts.scene.things)), key=lambda i: facts.scene.things[i].path_xy[-1, 0])
        assert [sentence.split()[1:5] for sentence in sentences] == [list(facts.scene.things[i].look) for i in ends]


def test_captions_say_what_is_so(scenes, witness):
    for facts in scenes[:100]:
        if facts.scene.candy is not None:
            continue
        reader = witness(facts.scene)
        ends = sorted(range(len(facts.scene.things)), key=lambda i: facts.scene.things[i].path_xy[-1, 0])
        for thing, sentence in zip(ends, caption(facts).removesuffix(".").split(". "), strict=True):
            place = re.search(r"at the ((?:top|bottom|left|right|middle)(?: left| right)?) ", sentence)
            assert (place is not None) == bool(reader.seen[thing, -1] >= 0.5)
            assert place is None or place[1] == cell(facts.scene.things[thing].path_xy[-1])
            assert reader.motion(thing) in sentence
            events = re.findall(r" and ((?:blinks|stops|is hidden|turns|meets).*?) (early|midway|late)\b", sentence)
            assert len(events) == sum(event.thing == thing for event in facts.events)
            for verb, when in events:
                if not verb.startswith("meets") or len(reader.nouns(verb.removeprefix("meets the "))) == 1:
                    assert third(*reader.windows(thing, verb)[0]) == when


def test_event_queries_are_true_of_their_thing_at_their_windows(scenes, witness):
    rng, checked = random.Random(0), 0
    for facts in scenes:
        reader = witness(facts.scene)
        for event in facts.events:
            query = event_query(facts, event, rng)
            if query is not None:
                assert reader.clause(query) == (event.thing, list(event.windows)), query
                checked += 1
    assert checked > 250


def test_absent_queries_are_about_something_that_is_there_and_does_not_do_it(scenes, witness):
    rng, verbs = random.Random(0), Counter()
    for facts in scenes:
        reader = witness(facts.scene)
        for _ in range(3):
            query = absent_query(facts, rng)
            if query is None:
                continue
            thing, windows = reader.clause(query)
            verb = next(verb for verb in EVENT_VERBS if query.endswith(verb))
            assert windows == [], query
            if verb == "stops":
                assert not reader.rests(thing) or reader.motion(thing) == "stays still"
            if verb == "is hidden":
                assert (reader.seen[thing] >= 0.5).all()
            if facts.scene.split != "compositions":
                assert (verb, facts.scene.things[thing].shape) not in HELD_OUT_EVENTS
            verbs[verb] += 1
    assert set(verbs) == set(EVENT_VERBS) and min(verbs.values()) > 50


def test_absent_looks_are_never_on_screen_and_keep_held_out_pairs_unnamed(scenes):
    rng, named = random.Random(0), Counter()
    for facts in scenes:
        for _ in range(5):
            missing = absent_look(facts, rng)
            if missing is None:
                continue
            pair = tuple(missing.split())
            for item in facts.scene.things:
                assert pair not in ((item.colour, item.shape), ((item.turns or [None])[0], item.shape))
            named[facts.scene.split, pair in HELD_OUT_LOOKS] += 1
    assert named["train", True] == named["test", True] == 0 < named["compositions", True]
    assert named.total() > 0.97 * 5 * len(scenes)


def test_held_out_pairs_are_not_even_denied_in_training():
    """Neither "Is there a yellow ball?" nor its "no": a model that learnt the "no" could not be asked about new pairs."""
    pairs = {" ".join(pair) for pair in HELD_OUT_LOOKS}
    for index in range(150):
        facts = Facts(sample_scene(index, split="train", seed=3))
        for question in questions(facts, random.Random(index)):
            assert not any(pair in question.text for pair in pairs), question


def test_nothing_is_asked_about_a_thing_that_cannot_be_told_apart():
    facts = next(
        f
        for f in (Facts(sample_scene(i, split="test")) for i in range(100))
        if len({t.look for t in f.scene.things}) < len(f.scene.things) and f.scene.candy is None
    )
    looks = [thing.look for thing in facts.scene.things]
    twin = next(look for look in looks if looks.count(look) == 2)
    for question in questions(facts, random.Random(0)):
        if question.kind in ("size", "material", "shape"):
            assert " ".join(twin) not in question.text
