"""The words of the synthetic world: what things look like, how they move, what happens to them, and which pairs are held out."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "green": (45, 185, 70),
    "blue": (50, 85, 235),
    "yellow": (240, 215, 50),
    "purple": (165, 60, 205),
    "cyan": (65, 220, 225),
    "white": (245, 245, 245),
}
SHAPES: tuple[str, ...] = ("ball", "square", "triangle", "cross", "ring")
MATERIALS: tuple[str, ...] = ("plain", "striped", "dotted")
SIZES: dict[str, tuple[float, float]] = {"small": (6.0, 7.0), "large": (9.5, 11.0)}
"""Half the extent of a thing in pixels of the 64 x 64 frame."""

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS: tuple[str, ...] = ("still", "straight", "bounce", "orbit", "stop-and-go", "enter", "leave", "approach")
EVENTS: tuple[str, ...] = ("blinks", "changes colour", "stops", "meets", "is hidden")

GRID_WORDS: tuple[tuple[str, str, str], ...] = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
WHEN_WORDS: tuple[str, str, str] = ("early", "midway", "late")

HELD_OUT_LOOKS: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "ring"),
        ("green", "cross"),
        ("blue", "triangle"),
        ("yellow", "ball"),
        ("purple", "square"),
        ("cyan", "ring"),
        ("white", "ball"),
    }
)
"""Colour x shape pairs that no thing of a train, val or test scene has: the zero-shot analogue.

A thing may still turn to such a colour for a moment; the datasheet counts how often.
"""
HELD_OUT_EVENTS: frozenset[tuple[str, str]] = frozenset({("blinks", "triangle"), ("changes colour", "square"), ("stops", "ring")})
"""Event x shape pairs that no train, val or test scene contains."""
