"""A witness: reads phrases about a scene and says of which things they are true. Written apart from the code that makes phrases.

It knows the scene's list of things, their paths and their masks, and derives every motion from the paths; labels are not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tpo_lab.datasets.world.render import masks
from tpo_lab.datasets.world.scene import Scene

LOOKS = {
    "size": {"small", "large"},
    "material": {"plain", "striped", "dotted"},
    "colour": {"red", "green", "blue", "yellow", "purple", "cyan", "white"},
    "shape": {"ball", "square", "triangle", "cross", "ring", "cup"},
}
WAYS = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
SIDES = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
EXTREMES = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "lowest": (1, -1)}
CLAUSE = re.compile(r"(the .+?) (blinks|stops|is hidden|turns \w+|meets the \w+ \w+)")


class Witness:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.count = len(scene.things)
        amodal, visible = masks(scene)
        self.visible, self.area = visible, amodal.sum((2, 3))
        self.seen = visible.sum((2, 3)) / self.area.max(1, keepdims=True)
        self.world = [thing.path_xy.astype(float) - scene.pan_xy for thing in scene.things]

    def look(self, thing: int) -> dict[str, str]:
        item = self.scene.things[thing]
        return {"size": "small" if item.radius < 8 else "large", "material": item.material, "colour": item.colour, "shape": item.shape}

    def nouns(self, phrase: str) -> list[int]:
        """Things that a bare noun phrase like "small red ball" fits."""
        wanted = {}
        for word in phrase.split():
            if word != "thing":
                (name,) = (name for name, words in LOOKS.items() if word in words)
                wanted[name] = word
        return [i for i in range(self.count) if wanted.items() <= self.look(i).items()]

    def rests(self, thing: int) -> list[tuple[int, int]]:
        """Spells [start, end) of two or more steps without displacement."""
        still = [bool(np.abs(step).max() < 1e-3) for step in np.diff(self.world[thing], axis=0)]
        return [run for run in _runs(still) if run[1] - run[0] >= 2]

    def motion(self, thing: int) -> str:
        path, steps = self.world[thing], np.diff(self.world[thing], axis=0)
        reach = self.scene.things[thing].radius
        outside = (path < -reach).any(1) | (path > 64 + reach).any(1)
        if np.abs(steps).max() < 1e-3:
            return "stays still"
        if outside[0] or outside[-1]:
            return "enters" if outside[0] else "leaves"
        for word, (axis, sign) in WAYS.items():
            along, across = steps[:, axis] * sign, steps[:, 1 - axis]
            if along.min() > -1e-3 and np.abs(across).max() < 1e-3:
                return f"moves {word}"
        round_trip = np.abs(path[0] - path[-1]).max() < 1e-2
        centre = path[:-1].mean(0)
        distances = np.linalg.norm(path - centre, axis=1)
        if round_trip and np.ptp(distances) < 1e-2:
            return "moves in a circle"
        return "comes and goes" if self.rests(thing) else "moves back and forth"

    def windows(self, thing: int, verb: str) -> list[tuple[int, int]]:
        """When a verb phrase is true of a thing, as frames [start, end)."""
        item = self.scene.things[thing]
        if verb == "blinks":
            return list(item.blinks)
        if verb.startswith("turns "):
            return [item.turns[1:]] if item.turns is not None and item.turns[0] == verb.split()[1] else []
        if verb == "stops":
            return [run for run in self.rests(thing) if np.abs(np.diff(self.world[thing][: run[0] + 1], axis=0)).sum() > 1e-3]
        if verb == "is hidden":
            return [run for run in _runs(list(self.seen[thing] < 0.15)) if run[1] - run[0] >= 3]
        assert verb.startswith("meets the ")
        (other,) = self.nouns(verb.removeprefix("meets the "))
        if other == thing:
            return []
        reach = 1.12 * (item.radius + self.scene.things[other].radius)
        return [
            run
            for run in _runs([bool(np.abs(a - b).max() < reach) for a, b in zip(self.world[thing], self.world[other], strict=True)])
            if run[1] - run[0] >= 3
        ]

    def does(self, thing: int, verb: str) -> bool:
        if verb.startswith(("moves", "stays", "enters", "leaves", "comes")):
            return self.motion(thing) == verb
        return bool(self.windows(thing, verb))

    def fits(self, phrase: str) -> set[int]:
        """The things of which a referring expression is true."""
        assert phrase.startswith("the "), phrase
        if phrase == "the cup with the candy":
            return {self.scene.candy}
        body = phrase.removeprefix("the ")
        for side, (axis, sign) in SIDES.items():
            if f" {side} the " in body:
                noun, anchor = body.split(f" {side} the ")
                (fixed,) = self.nouns(anchor)
                at = self.scene.things[fixed].path_xy[-1, axis] * sign
                return {i for i in self.nouns(noun) if self.scene.things[i].path_xy[-1, axis] * sign < at}
        if (word := body.split()[0]) in EXTREMES:
            axis, sign = EXTREMES[word]
            places = {i: self.scene.things[i].path_xy[-1, axis] * sign for i in self.nouns(body.removeprefix(word + " "))}
            return {i for i, place in places.items() if place == min(places.values())}
        if " that " not in body:
            return set(self.nouns(body))
        noun, verb = body.split(" that ")
        if verb.endswith((" first", " last")):
            verb, rank = verb.rsplit(" ", 1)
            when = {i: self.windows(i, verb) for i in self.nouns(noun)}
            keys = {i: found[0][0] if rank == "first" else -found[-1][0] for i, found in when.items() if found}
            return {i for i, key in keys.items() if key == min(keys.values())}
        return {i for i in self.nouns(noun) if self.does(i, verb)}

    def clause(self, text: str) -> tuple[int, list[tuple[int, int]]]:
        """The subject of "the red ball blinks" and when it does."""
        found = CLAUSE.fullmatch(text)
        assert found, text
        (thing,) = self.fits(found[1])
        return thing, self.windows(thing, found[2])


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = [i for i, (a, b) in enumerate(pairwise([False, *flags, False])) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.fixture(scope="session")
def witness() -> Callable[[Scene], Witness]:
    """Calls the witness of a scene; one per scene, since its masks cost more than all its answers."""
    called: dict[str, Witness] = {}

    def call(scene: Scene) -> Witness:
        if scene.reference not in called:
            called[scene.reference] = Witness(scene)
        return called[scene.reference]

    return call
