"""What is true of a scene: boxes, visibility, places, directions and event windows, all exact. No words are chosen here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.world.render import Mask, masks
from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_RATE, FRAME_SIZE, Scene
from tpo_lab.datasets.world.words import GRID_WORDS, WHEN_WORDS

Box = tuple[int, int, int, int]
_WHEN_EDGES = (6, 9)
Window = tuple[int, int]
ASKED_FRAME = FRAME_COUNT - 1
"""Questions about "where" mean the end of the clip: the last frame."""
SALIENCY_STEP_FRAMES = 2
_HIDDEN_BELOW, _WATCHED_FROM, _SEEN_FROM = 0.15, 0.35, 0.5
_SHORTEST_EVENT = 3


@dataclass(frozen=True)
class Event:
    """Something that happens to a thing, possibly several times.

    Args:
        thing: index of the thing.
        kind: one of `words.EVENTS`.
        windows: frames [start, end), ascending, disjoint.
        detail: the other colour ("changes colour") or None.
        partner: index of the other thing ("meets") or None.
    """

    thing: int
    kind: str
    windows: tuple[Window, ...]
    detail: str | None = None
    partner: int | None = None

    @property
    def start(self) -> int:
        """First frame of the first window."""
        return self.windows[0][0]


class Facts:
    """Exact ground truth of one scene, computed when first asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @cached_property
    def _masks(self) -> tuple[Mask, Mask]:
        return masks(self.scene)

    @property
    def amodal(self) -> Mask:
        """Masks that ignore occlusion, bool [thing, frame, y, x]."""
        return self._masks[0]

    @property
    def visible(self) -> Mask:
        """Masks of what can be seen, bool [thing, frame, y, x]."""
        return self._masks[1]

    @cached_property
    def visibility(self) -> NDArray[np.float64]:
        """Visible share of the whole thing (also of what lies outside the frame), [thing, frame]."""
        amodal = self.amodal.sum((2, 3)).astype(float)
        whole = np.maximum(amodal.max(1, keepdims=True), 1.0)
        visible: NDArray[np.float64] = self.visible.sum((2, 3)) / whole
        return visible

    @cached_property
    def occluded(self) -> bool:
        """Whether some thing inside the frame loses a third of itself behind others in some frame."""
        amodal = self.amodal.sum((2, 3)).astype(float)
        inside = amodal > 0.8 * np.maximum(amodal.max(1, keepdims=True), 1.0)
        return bool((inside & (self.visible.sum((2, 3)) < 0.67 * amodal)).any())

    def box(self, thing: int, frame: int, *, amodal: bool = False) -> Box | None:
        """Tight box in pixels (x1, y1, x2, y2), edges exclusive on the right and below; None where nothing is visible."""
        mask = (self.amodal if amodal else self.visible)[thing, frame]
        if not mask.any():
            return None
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def is_seen(self, thing: int, frame: int = ASKED_FRAME) -> bool:
        """Whether at least half of it can be seen in that frame."""
        return bool(self.visibility[thing, frame] >= _SEEN_FROM)

    def place(self, thing: int, frame: int = ASKED_FRAME) -> str:
        """Which ninth of the frame its centre is in."""
        x, y = self.scene.things[thing].path_xy[frame]
        column, row = (min(max(int(value * 3 / FRAME_SIZE), 0), 2) for value in (x, y))
        return GRID_WORDS[row][column]

    @cached_property
    def happenings(self) -> tuple[Event, ...]:
        """Everything that happens, ordered by start; also what is too far out of sight to be asked about."""
        found: list[Event] = []
        for index, thing in enumerate(self.scene.things):
            if thing.blinks:
                found.append(Event(index, "blinks", thing.blinks))
            if thing.turns is not None:
                found.append(Event(index, "changes colour", (thing.turns[1:],), detail=thing.turns[0]))
            if thing.stop is not None:
                found.append(Event(index, "stops", (thing.stop,)))
            if thing.partner is not None:
                windows = self.contact(index, thing.partner)
                if windows:
                    found.append(Event(index, "meets", windows, partner=thing.partner))
            hidden = [w for w in _runs(self.visibility[index] < _HIDDEN_BELOW) if w[1] - w[0] >= _SHORTEST_EVENT]
            if thing.motion not in ("enter", "leave") and hidden and self.visibility[index].max() > _SEEN_FROM:
                found.append(Event(index, "is hidden", tuple(hidden)))
        return tuple(sorted(found, key=lambda event: (event.start, event.thing)))

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """What happens in plain sight, ordered by start: all that is ever asked about."""
        return tuple(event for event in self.happenings if event.kind == "is hidden" or self._can_be_watched(event))

    def _can_be_watched(self, event: Event) -> bool:
        return all(self.visibility[event.thing, start:end].min() >= _WATCHED_FROM for start, end in event.windows)

    def contact(self, one: int, other: int) -> tuple[Window, ...]:
        """Spells of three or more frames in which two things touch, or almost."""
        first, second = self.scene.things[one], self.scene.things[other]
        distance = np.abs(first.path_xy - second.path_xy).max(1)
        return tuple(w for w in _runs(distance < 1.12 * (first.radius + second.radius)) if w[1] - w[0] >= _SHORTEST_EVENT)

    def is_ever_covered(self, thing: int) -> bool:
        """Whether less than half of it can be seen in some frame, for whatever reason."""
        return bool(self.visibility[thing].min() < _SEEN_FROM)

    def when(self, event: Event) -> str:
        """Early, midway or late: where the middle of its first window lies.

        Events rarely touch the ends of a clip, so the three parts are cut to hold about a third of all events each.
        """
        middle = sum(event.windows[0]) / 2
        return WHEN_WORDS[sum(middle >= edge for edge in _WHEN_EDGES)]

    def windows_sec(self, event: Event) -> list[list[float]]:
        """Windows in seconds, [[start, end], ...]."""
        return [[start / FRAME_RATE, end / FRAME_RATE] for start, end in event.windows]

    def saliency(self, event: Event) -> list[int]:
        """Score 0-4 per step of two frames: how much of the step the event fills."""
        inside = np.zeros(FRAME_COUNT)
        for start, end in event.windows:
            inside[start:end] = 1.0
        shares = inside.reshape(-1, SALIENCY_STEP_FRAMES).mean(1)
        return [round(4 * share) for share in shares]


def _runs(flags: NDArray[np.bool_]) -> list[Window]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(edges[i]), int(edges[i + 1])) for i in range(0, len(edges), 2)]
