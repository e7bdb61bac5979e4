from __future__ import annotations

import random
from collections import Counter

import pytest

from tpo_lab.datasets.world.expressions import KINDS, pluralise, refer, refer_to_several
from tpo_lab.datasets.world.facts import Facts
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.errors import UsageError


@pytest.fixture(scope="module")
def scenes():
    """Facts of scenes of every split and of the two full levels."""
    return [Facts(sample_scene(i, seed=5, split=split, level=level)) for split, level, count in PLAN for i in range(count)]


PLAN = (("train", "standard", 60), ("test", "standard", 60), ("compositions", "standard", 30), ("test", "hard", 40), ("test", "easy", 15))


@pytest.mark.parametrize("kind", KINDS)
def test_refer_is_true_of_exactly_the_thing_that_was_meant(kind, scenes, witness):
    rng, checked = random.Random(0), 0
    for facts in scenes:
        reader = witness(facts.scene)
        for thing in range(len(facts.scene.things)):
            for _ in range(3):
                expression = refer(facts, thing, rng, (kind,))
                if expression is not None:
                    assert expression.kind == kind
                    assert reader.fits(expression.text) == {thing}, (facts.scene.reference, expression.text)
                    checked += 1
    assert checked > {"order": 30}.get(kind, 500)


@pytest.mark.parametrize("kind", ["motion", "order"])
def test_refer_by_motion_or_order_needs_its_clause(kind, scenes, witness):
    rng, checked = random.Random(1), 0
    for facts in scenes:
        reader = witness(facts.scene)
        for thing in range(len(facts.scene.things)):
            expression = refer(facts, thing, rng, (kind,))
            if expression is not None and facts.scene.candy != thing:
                noun = expression.text.removeprefix("the ").split(" that ")[0]
                assert len(reader.nouns(noun)) >= 2, expression.text
                checked += 1
    assert checked > 10


def test_refer_by_attributes_never_depends_on_a_word_left_out(scenes, witness):
    from tpo_lab.datasets.world.expressions import by_attributes

    rng = random.Random(2)
    for facts in scenes[:100]:
        for thing, item in enumerate(facts.scene.things):
            for left_out in ("size", "material", "colour", "shape"):
                expression = by_attributes(facts, thing, rng, without=left_out)
                if expression is not None:
                    assert getattr(item, left_out) not in expression.text.split()
                    assert witness(facts.scene).fits(expression.text) == {thing}


def test_refer_finds_a_phrase_for_almost_everything(scenes):
    rng = random.Random(3)
    found = [refer(facts, thing, rng) is not None for facts in scenes for thing in range(len(facts.scene.things))]
    assert sum(found) / len(found) > 0.95


def test_refer_uses_every_kind(scenes):
    rng = random.Random(4)
    found = (refer(facts, thing, rng) for facts in scenes for thing in range(len(facts.scene.things)))
    kinds = Counter(expression.kind for expression in found if expression is not None)
    assert set(kinds) == set(KINDS)
    assert (kinds["motion"] + kinds["order"]) / kinds.total() > 0.2


def test_refer_names_the_candy():
    facts = next(f for f in (Facts(sample_scene(i)) for i in range(200)) if f.scene.candy is not None)
    assert refer(facts, facts.scene.candy, random.Random(0), ("motion",)).text == "the cup with the candy"
    others = [i for i in range(3) if i != facts.scene.candy]
    assert all("candy" not in refer(facts, i, random.Random(0)).text for i in others)


def test_refer_refuses_an_unknown_kind(scenes):
    with pytest.raises(UsageError, match="kinds: expected one of attribute, motion, order, relation, got 'colour'"):
        refer(scenes[0], 0, random.Random(0), ("colour",))


def test_refer_to_several_means_all_of_them_and_no_other(scenes, witness):
    rng, checked = random.Random(6), 0
    for facts in scenes:
        several = refer_to_several(facts, rng)
        if several is None:
            continue
        text, group = several
        singular = {pluralise(shape): shape for shape in ("ball", "square", "triangle", "cross", "ring")} | {"things": "thing"}
        words = text.removeprefix("all ").split()
        reader = witness(facts.scene)
        assert reader.nouns(" ".join([*words[:-1], singular[words[-1]]])) == list(group), text
        assert len(group) >= 2 and all(reader.seen[i, -1] >= 0.5 for i in group)
        checked += 1
    assert checked > 50


def test_pluralise():
    assert [pluralise(shape) for shape in ("ball", "cross")] == ["balls", "crosses"]
