"""Scenes of the synthetic world: what is in a clip and how it moves, drawn from a seed. Nothing is rendered here."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.world.words import COLOURS, DIRECTIONS, HELD_OUT_EVENTS, HELD_OUT_LOOKS, MATERIALS, SHAPES, SIZES
from tpo_lab.errors import UsageError, unknown_name

Array = NDArray[np.float32]
FRAME_COUNT = 16
FRAME_RATE = 4.0
FRAME_SIZE = 64
SPLITS: tuple[str, ...] = ("train", "val", "test", "compositions")
WORLD = "world://"
"""Scheme of the references that stand for a scene instead of a file."""


@dataclass(frozen=True)
class Level:
    """How hard a scene is; `standard` is what every reported figure refers to.

    Args:
        things: smallest and largest number of things.
        motions: motions that may occur, with their weights.
        distractors: share of scenes with a same-shape and a same-colour distractor.
        twins: share of scenes of three or more things in which two look the same.
        occluder: share of scenes with a panel that hides what passes behind it.
        event: chance that a thing blinks or changes its colour.
        camera: largest camera pan over the clip in pixels.
        shell_games: share of clips that are the shell game of the paper's Figure 1.
    """

    things: tuple[int, int]
    motions: tuple[tuple[str, float], ...]
    distractors: float
    twins: float
    occluder: float
    event: float
    camera: float
    shell_games: float


_MOTIONS = (("still", 2.0), ("straight", 3.0), ("bounce", 1.0), ("orbit", 1.0), ("stop-and-go", 1.5), ("enter", 0.7), ("leave", 0.7))
LEVELS: dict[str, Level] = {
    "easy": Level((1, 2), (("still", 1.0), ("straight", 2.0)), 0.0, 0.0, 0.0, 0.4, 0.0, 0.0),
    "standard": Level((2, 5), _MOTIONS, 0.85, 0.35, 0.2, 0.45, 5.0, 0.06),
    "hard": Level((4, 7), _MOTIONS, 0.95, 0.6, 0.45, 0.6, 10.0, 0.1),
}
LEVELS["growing"] = replace(LEVELS["standard"], things=(1, 5))
"""As standard, from one thing on: what a curriculum trains on."""


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Args:
        radius: half the extent in pixels.
        path_xy: centre per frame in pixels, [frame, 2].
        blinks: frames [start, end) of each blinking spell.
        turns: colour, start and end frame of a spell in another colour, or None.
        stop: frames [start, end) of a pause in the motion, or None.
        partner: index of the thing that it meets, or None.
        heading: the word for where it goes ("left", ...), or None where it goes nowhere in particular.
    """

    shape: str
    colour: str
    material: str
    size: str
    radius: float
    motion: str
    path_xy: Array
    heading: str | None = None
    blinks: tuple[tuple[int, int], ...] = ()
    turns: tuple[str, int, int] | None = None
    stop: tuple[int, int] | None = None
    partner: int | None = None

    @property
    def look(self) -> tuple[str, str, str, str]:
        """What can be seen of it in a single frame."""
        return self.size, self.material, self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """Everything a clip shows; rendering and questions are pure functions of it.

    Args:
        drawn_from: the range that the number of things was drawn from; with the other four it draws the same scene again.
        things: drawn in this order, so that later ones are in front.
        pan_xy: camera offset per frame in pixels, [frame, 2]; already inside every path.
        light: gain per frame, [frame].
        panel_x: left and right edge in pixels of the panel in front of everything, or None.
        candy: index of the cup with the candy (shell game), or None.
        background: seed of the background.
    """

    level: str
    split: str
    seed: int
    index: int
    drawn_from: tuple[int, int]
    things: tuple[Thing, ...]
    pan_xy: Array
    light: Array
    panel_x: tuple[float, float] | None
    candy: int | None
    background: int

    @property
    def name(self) -> str:
        """A file-safe identifier, the same for every `drawn_from`."""
        return f"{self.split}-{self.level}-{self.seed}-{self.index:06d}"

    @property
    def reference(self) -> str:
        """What `scene_at` draws the same scene from: "world://split/level/seed/index/lowest-highest"."""
        lowest, highest = self.drawn_from
        return f"{WORLD}{self.split}/{self.level}/{self.seed}/{self.index}/{lowest}-{highest}"


def scene_at(reference: str) -> Scene:
    """The scene that a `Scene.reference` stands for.

    Raises:
        UsageError: the reference has another form, or names an unknown split or level.
    """
    found = re.fullmatch(rf"{WORLD}([^/]+)/([^/]+)/(-?\d+)/(\d+)/(\d+)-(\d+)", reference)
    if found is None:
        raise UsageError("media.path", expected=f"{WORLD}split/level/seed/index/lowest-highest", got=reference)
    split, level, *numbers = found.groups()
    seed, index, lowest, highest = map(int, numbers)
    return sample_scene(index, seed=seed, split=split, level=level, things=(lowest, highest))


def sample_scene(
    index: int, *, seed: int = 0, split: str = "train", level: str = "standard", things: tuple[int, int] | None = None
) -> Scene:
    """Draw scene number `index` of a split; equal arguments give equal scenes on every machine.

    Args:
        things: overrides the level's number of things (used by curricula).

    Raises:
        UsageError: for an unknown split or level, or an impossible number of things.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    setting = LEVELS[level]
    lowest, highest = things or setting.things
    if not 1 <= lowest <= highest <= 8:
        raise UsageError("things", expected="1 <= lowest <= highest <= 8", got=(lowest, highest))
    rng = random.Random(f"tpo-lab/{seed}/{split}/{level}/{index}/{lowest}-{highest}")
    pan = _camera(rng, setting.camera)
    light = np.ones(FRAME_COUNT, np.float32)
    if rng.random() < 0.3:
        light = np.linspace(1.0, rng.uniform(0.75, 1.2), FRAME_COUNT, dtype=np.float32)
    panel = None
    if rng.random() < setting.occluder:
        left = rng.uniform(14, 38)
        panel = (left, left + rng.uniform(11, 14))
    candy = None
    if rng.random() < setting.shell_games:
        placed, candy = _shell_game(rng), rng.randrange(3)
        pan, panel = np.zeros_like(pan), None
    else:
        placed = _things(rng, setting, rng.randint(lowest, highest), split)
    placed = [_moved(thing, pan) for thing in placed]
    return Scene(level, split, seed, index, (lowest, highest), tuple(placed), pan, light, panel, candy, rng.getrandbits(32))


def _moved(thing: Thing, pan: Array) -> Thing:
    return replace(thing, path_xy=(thing.path_xy + pan).astype(np.float32))


def _camera(rng: random.Random, largest: float) -> Array:
    pan = np.zeros((FRAME_COUNT, 2), np.float32)
    if largest and rng.random() < 0.25:
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.0) * largest
        ramp = np.linspace(-0.5, 0.5, FRAME_COUNT, dtype=np.float32)
        pan[:, 0], pan[:, 1] = ramp * length * math.cos(angle), ramp * length * math.sin(angle)
    return pan


def _looks(rng: random.Random, setting: Level, count: int, split: str) -> list[tuple[str, str, str, str]]:
    """Looks of the things: the first is the one whose distractors follow."""
    held_out = split == "compositions"

    def draw(colour: str | None = None, shape: str | None = None, novel: bool = False) -> tuple[str, str, str, str]:
        while True:
            pair = (colour or rng.choice(tuple(COLOURS)), shape or rng.choice(SHAPES))
            # a distractor shares one thing with the first, never both
            twin = bool(colour or shape) and pair == first[2:]
            if (pair in HELD_OUT_LOOKS) == novel and not twin:
                return rng.choice(tuple(SIZES)), rng.choice(MATERIALS), *pair

    first = draw(novel=held_out)
    looks = [first]
    if count >= 3 and rng.random() < setting.distractors:
        looks.append(draw(colour=first[2]))
        looks.append(draw(shape=first[3]))
    if len(looks) < count and count >= 3 and rng.random() < setting.twins:
        looks.insert(1, first)
    while len(looks) < count:
        looks.append(draw())
    return looks


def _things(rng: random.Random, setting: Level, count: int, split: str) -> list[Thing]:
    looks = _looks(rng, setting, count, split)
    names, weights = zip(*setting.motions, strict=True)
    placed: list[Thing] = []
    for position, look in enumerate(looks):
        motion = rng.choices(names, weights)[0]
        if position and look == looks[0]:
            motion = rng.choice([m for m in ("still", "straight", "bounce", "stop-and-go", "orbit") if m != placed[0].motion])
        if motion == "stop-and-go" and ("stops", look[3]) in HELD_OUT_EVENTS and split != "compositions":
            motion = "straight"
        best: Thing | None = None
        best_gap = -math.inf
        for _ in range(12):
            thing = _one(rng, look, motion)
            gap = min((_gap(thing, other) for other in placed), default=math.inf)
            if gap > best_gap:
                best, best_gap = thing, gap
            if gap > 1.0:
                break
        assert best is not None
        placed.append(best)
    if len(placed) >= 2 and len(setting.motions) > 2 and rng.random() < 0.2:
        _let_meet(rng, placed)
    placed = [_with_event(rng, thing, setting.event, split) for thing in placed]
    order = list(range(len(placed)))
    rng.shuffle(order)
    rank = {old: new for new, old in enumerate(order)}
    return [replace(thing, partner=None if thing.partner is None else rank[thing.partner]) for thing in (placed[old] for old in order)]


def _gap(one: Thing, other: Thing) -> float:
    """Free space in pixels between two things at the end of the clip, less at its start (things may cross on their way)."""
    reach = one.radius + other.radius
    end = float(np.abs(one.path_xy[-1] - other.path_xy[-1]).max()) - 0.85 * reach
    start = float(np.abs(one.path_xy[0] - other.path_xy[0]).max()) - 0.5 * reach
    return min(end, start)


def _one(rng: random.Random, look: tuple[str, str, str, str], motion: str) -> Thing:
    size, material, colour, shape = look
    radius = rng.uniform(*SIZES[size])
    low, high = radius + 1.0, FRAME_SIZE - radius - 1.0
    steps = np.arange(FRAME_COUNT, dtype=np.float32)
    path = np.zeros((FRAME_COUNT, 2), np.float32)
    x, y = rng.uniform(low, high), rng.uniform(low, high)
    heading: str | None = None
    stop: tuple[int, int] | None = None
    progress = steps / (FRAME_COUNT - 1)
    if motion in ("straight", "stop-and-go", "bounce", "enter", "leave"):
        heading = rng.choice(tuple(DIRECTIONS))
        dx, dy = DIRECTIONS[heading]
        travel = rng.uniform(20.0, min(34.0, high - low))
        if motion == "stop-and-go":
            start = rng.randint(3, 7)
            stop = (start, start + rng.randint(4, 7))
            moving = np.ones(FRAME_COUNT, np.float32)
            moving[stop[0] : stop[1]] = 0.0
            progress = np.concatenate([np.zeros(1, np.float32), np.cumsum(moving[:-1])])
            progress = progress / progress[-1]
        elif motion == "bounce":
            progress = 1.0 - np.abs(1.0 - 2.0 * progress)
        elif motion == "enter":
            start = rng.randint(2, 8)
            travel = rng.uniform(18.0, 30.0) + 2 * radius
            progress = np.clip((steps - start) / (13 - start), 0.0, 1.0)
        elif motion == "leave":
            start = rng.randint(3, 8)
            travel = rng.uniform(18.0, 30.0) + 2 * radius
            progress = np.clip((steps - start) / (14 - start), 0.0, 1.0)
        along_x = dx != 0
        sign = dx + dy
        if motion == "enter":
            begin = -radius - 1.0 if sign > 0 else FRAME_SIZE + radius + 1.0
        elif motion == "leave":
            begin = (FRAME_SIZE + radius + 1.0 - travel) if sign > 0 else (travel - radius - 1.0)
        else:
            begin = rng.uniform(low, high - travel) if sign > 0 else rng.uniform(low + travel, high)
        line = begin + sign * travel * progress
        path[:, 0], path[:, 1] = (line, y) if along_x else (x, line)
        if motion == "bounce":
            heading = None
    elif motion == "orbit":
        reach = rng.uniform(6.0, 9.0)
        x, y = rng.uniform(low + reach, high - reach), rng.uniform(low + reach, high - reach)
        angle = rng.uniform(0, 2 * math.pi) + rng.choice((-1, 1)) * 2 * math.pi * progress
        path[:, 0], path[:, 1] = x + reach * np.cos(angle), y + reach * np.sin(angle)
    else:
        path[:, 0], path[:, 1] = x, y
    return Thing(shape, colour, material, size, radius, motion, path, heading=heading, stop=stop)


def _let_meet(rng: random.Random, placed: list[Thing]) -> None:
    """Let one thing walk to a thing at rest, touch it for a while, and walk back."""
    hosts = [i for i, thing in enumerate(placed) if thing.motion == "still"]
    if not hosts:
        return
    host = rng.choice(hosts)
    guest = rng.choice([i for i in range(len(placed)) if i != host])
    rest, mover = placed[host], placed[guest]
    side = 1.0 if rest.path_xy[0, 0] < FRAME_SIZE / 2 else -1.0
    touch = rest.path_xy[0] + np.array([side * (rest.radius + mover.radius - 1.0), 0.0], np.float32)
    home = touch + np.array([side * rng.uniform(14, 20), rng.uniform(-8, 8)], np.float32)
    home = np.clip(home, mover.radius + 1, FRAME_SIZE - mover.radius - 1)
    arrive = rng.randint(3, 7)
    depart = min(arrive + rng.randint(4, 6), 13)
    steps = np.arange(FRAME_COUNT, dtype=np.float32)
    toward = np.clip(steps / arrive, 0, 1) * np.clip((15.0 - steps) / (15.0 - (depart - 1)), 0, 1)
    path = home + (touch - home) * toward[:, None]
    placed[guest] = replace(mover, motion="approach", path_xy=path.astype(np.float32), partner=host, heading=None, stop=None)


def _with_event(rng: random.Random, thing: Thing, chance: float, split: str) -> Thing:
    if rng.random() >= chance:
        return thing
    kind = rng.choice(("blinks", "changes colour"))
    if split != "compositions" and (kind, thing.shape) in HELD_OUT_EVENTS:
        kind = "changes colour" if kind == "blinks" else "blinks"
    start = rng.randint(0, 9)
    end = min(start + rng.randint(4, 8), FRAME_COUNT - 2)
    if kind == "blinks":
        spells = [(start, end)]
        if end <= 7 and rng.random() < 0.6:
            again = rng.randint(end + 3, 10)
            spells.append((again, again + 4))
        return replace(thing, blinks=tuple(spells))
    # nor may a thing turn into a look that is held out
    turns = [c for c in COLOURS if c != thing.colour and (split == "compositions" or (c, thing.shape) not in HELD_OUT_LOOKS)]
    colour = rng.choice(turns)
    return replace(thing, turns=(colour, start, end))


def _shell_game(rng: random.Random) -> list[Thing]:
    """Three equal cups that swap places; which one hides the candy is chosen by the caller."""
    colour = rng.choice(("red", "blue", "purple"))
    slots = (13.0, 32.0, 51.0)
    y = rng.uniform(30, 42)
    place = [0, 1, 2]
    paths = np.full((3, FRAME_COUNT, 2), y, np.float32)
    swaps = {start: rng.sample(range(3), 2) for start in sorted(rng.sample((4, 8, 12), rng.randint(1, 2)))}
    for frame in range(FRAME_COUNT):
        for cup in range(3):
            paths[cup, frame, 0] = slots[place[cup]]
        started = frame - frame % 4
        if started in swaps and frame % 4 < 3:
            first, second = swaps[started]
            share = (frame % 4 + 1) / 4
            for cup, other, lift in ((first, second, -8.0), (second, first, 8.0)):
                paths[cup, frame, 0] += (slots[place[other]] - slots[place[cup]]) * share
                paths[cup, frame, 1] += lift * math.sin(math.pi * share)
        elif started in swaps:
            first, second = swaps[started]
            place[first], place[second] = place[second], place[first]
            for cup in (first, second):
                paths[cup, frame, 0] = slots[place[cup]]
    return [Thing("cup", colour, "plain", "large", 8.0, "shuffle", path) for path in paths]
