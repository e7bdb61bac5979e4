"""Scenes to pixels and exact masks. Vectorised over frames: a sixteen-frame clip takes a few milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tpo_lab.datasets.world.scene import FRAME_COUNT, FRAME_SIZE, Array, Scene, Thing
from tpo_lab.datasets.world.words import COLOURS

Mask = NDArray[np.bool_]
_GRID = np.arange(FRAME_SIZE, dtype=np.float32) + 0.5
_PANEL_COLOUR = (88.0, 84.0, 92.0)
_CANDY_COLOUR = (255.0, 120.0, 200.0)


def _offsets(thing: Thing, frames: Sequence[int]) -> tuple[slice, slice, Array, Array]:
    """The part of the frame that the thing ever touches (rows, columns), and pixel offsets from its centre there."""
    centre = thing.path_xy[list(frames)]
    low, high = np.floor(centre.min(0) - thing.radius - 1.5), np.ceil(centre.max(0) + thing.radius + 1.5)
    columns, rows = (slice(*(int(min(max(edge, 0), FRAME_SIZE)) for edge in pair)) for pair in zip(low, high, strict=True))
    dx = _GRID[None, None, columns] - centre[:, 0, None, None]
    dy = _GRID[None, rows, None] - centre[:, 1, None, None]
    return rows, columns, dx, dy


def _coverage(thing: Thing, dx: Array, dy: Array) -> Array:
    """Share of each pixel that the thing covers, ignoring everything in front of it; float32 [frame, y, x] in [0, 1]."""
    r = np.float32(thing.radius)
    half = np.float32(0.5)
    cover: Array
    if thing.shape in ("ball", "ring"):
        square_distance = dx * dx + dy * dy
        cover = np.clip((r * r - square_distance) / (2 * r) + half, 0, 1)
        if thing.shape == "ring":
            inner = r * np.float32(0.5)
            cover *= 1 - np.clip((inner * inner - square_distance) / (2 * inner) + half, 0, 1)
        return cover
    box_x, box_y = np.clip(r - np.abs(dx) + half, 0, 1), np.clip(r - np.abs(dy) + half, 0, 1)
    if thing.shape == "square":
        edge = r * np.float32(0.9)
        cover = np.clip(edge - np.abs(dx) + half, 0, 1) * np.clip(edge - np.abs(dy) + half, 0, 1)
    elif thing.shape == "cross":
        arm = r * np.float32(0.36)
        arm_x, arm_y = np.clip(arm - np.abs(dx) + half, 0, 1), np.clip(arm - np.abs(dy) + half, 0, 1)
        cover = np.maximum(arm_x * box_y, box_x * arm_y)
    elif thing.shape == "triangle":
        cover = np.clip(((dy + r) * half - np.abs(dx)) * np.float32(0.9) + half, 0, 1) * box_y
    else:
        narrow = np.float32(0.62)  # a cup: upright trapezoid, wider at its rim below
        cover = np.clip(r * (narrow + (1 - narrow) * (dy + r) / (2 * r)) - np.abs(dx) + half, 0, 1) * box_y
    return cover


def _shade(thing: Thing, dx: Array, dy: Array) -> Array | np.float32:
    """Material as a brightness factor, [frame, y, x] or 1."""
    if thing.material == "plain":
        return np.float32(1.0)
    if thing.material == "striped":
        band = np.mod(dy + np.float32(100.0), np.float32(5.0)) < np.float32(2.3)
    else:
        band = (np.mod(dx + np.float32(100.0), np.float32(4.0)) < np.float32(2.0)) & (np.mod(dy + np.float32(100.0), np.float32(4.0)) < 2.0)
    return np.where(band, np.float32(0.45), np.float32(1.0))


def _is_dark(thing: Thing, frame: int) -> bool:
    return any(start <= frame < end and (frame - start) // 2 % 2 == 0 for start, end in thing.blinks)


def _colour(thing: Thing, frames: Sequence[int]) -> Array:
    """Colour per frame, [frame, 3]: blinking goes through black, so that it differs from every colour and every change of colour."""
    rgb = np.tile(np.array(COLOURS[thing.colour], np.float32), (len(frames), 1))
    for row, frame in enumerate(frames):
        if thing.turns is not None and thing.turns[1] <= frame < thing.turns[2]:
            rgb[row] = COLOURS[thing.turns[0]]
        if thing.blinks and _is_dark(thing, frame):
            rgb[row] *= np.float32(0.12)
    return rgb


def _background(scene: Scene, frames: Sequence[int]) -> Array:
    """A muted gradient or a smooth texture that moves with the camera, [3, frame, y, x]."""
    rng = np.random.default_rng(scene.background)
    margin = 12
    size = FRAME_SIZE + 2 * margin
    tint = rng.uniform(70, 150) + rng.uniform(-14, 14, size=3)
    if rng.random() < 0.5:
        slope = rng.uniform(-30, 30, size=2)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        canvas = slope[0] * ramp[None, :] + slope[1] * ramp[:, None]
    else:
        cells = rng.uniform(-28, 28, size=(size // 8, size // 8)).astype(np.float32)
        canvas = np.kron(cells, np.ones((8, 8), np.float32))
        for axis in (0, 1):
            canvas = (canvas + np.roll(canvas, 2, axis) + np.roll(canvas, 4, axis) + np.roll(canvas, -2, axis)) / 4
    moving = np.empty((len(frames), FRAME_SIZE, FRAME_SIZE), np.float32)
    for row, (x, y) in enumerate(np.rint(margin - scene.pan_xy[list(frames)]).astype(int).tolist()):
        moving[row] = canvas[y : y + FRAME_SIZE, x : x + FRAME_SIZE]
    return moving[None] + tint.astype(np.float32)[:, None, None, None]


def render(scene: Scene, frames: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Pixels of the given frames (all by default).

    Returns:
        uint8 [frame, y, x, 3], RGB.
    """
    chosen = list(range(FRAME_COUNT)) if frames is None else list(frames)
    picture = _background(scene, chosen)
    for index, thing in enumerate(scene.things):
        rows, columns, dx, dy = _offsets(thing, chosen)
        cover, shade, colour = _coverage(thing, dx, dy), _shade(thing, dx, dy), _colour(thing, chosen)
        if scene.candy == index:
            _draw_candy(picture, thing, chosen)
            cover = cover * _lid(chosen)[:, None, None]
        for channel in range(3):
            plane = picture[channel, :, rows, columns]
            plane += cover * (colour[:, channel, None, None] * shade - plane)
    if scene.panel_x is not None:
        left, right = (round(edge) for edge in scene.panel_x)
        picture[:, :, :, left:right] = np.array(_PANEL_COLOUR, np.float32)[:, None, None, None]
    light = scene.light[chosen]
    if (light != 1.0).any():
        picture *= light[None, :, None, None]
    np.minimum(picture, np.float32(255.0), out=picture)
    pixels = np.empty((len(chosen), FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    for channel in range(3):
        pixels[..., channel] = picture[channel]
    return pixels


def _lid(frames: Sequence[int]) -> Array:
    """Opacity of the cup over the candy: it is see-through at first, so that one sees where the candy is."""
    return np.array([0.25 if frame < 4 else 1.0 for frame in frames], np.float32)


def _draw_candy(picture: Array, cup: Thing, frames: Sequence[int]) -> None:
    for row, frame in enumerate(frames):
        if frame < 4:
            x, y = (round(float(value)) for value in cup.path_xy[frame])
            picture[:, row, y - 3 : y + 3, x - 3 : x + 3] = np.array(_CANDY_COLOUR, np.float32)[:, None, None]


def masks(scene: Scene, frames: Sequence[int] | None = None) -> tuple[Mask, Mask]:
    """Exact masks of every thing in the given frames (all by default).

    Returns:
        amodal and visible masks, bool [thing, frame, y, x]; amodal ones end at the frame's border.
    """
    chosen = list(range(FRAME_COUNT)) if frames is None else list(frames)
    amodal = np.zeros((len(scene.things), len(chosen), FRAME_SIZE, FRAME_SIZE), bool)
    for index, thing in enumerate(scene.things):
        rows, columns, dx, dy = _offsets(thing, chosen)
        amodal[index, :, rows, columns] = _coverage(thing, dx, dy) > 0.5
    visible = amodal.copy()
    hidden = np.zeros(amodal.shape[1:], bool)
    if scene.panel_x is not None:
        left, right = (round(edge) for edge in scene.panel_x)
        hidden[:, :, left:right] = True
    for index in range(len(scene.things) - 1, -1, -1):
        visible[index] &= ~hidden
        hidden |= amodal[index]
    return amodal, visible


def shown_colour(thing: Thing, frame: int) -> str:
    """The colour word for what a frame shows: its own, the one it turned to, or "dark" while it blinks."""
    if _is_dark(thing, frame):
        return "dark"
    if thing.turns is not None and thing.turns[1] <= frame < thing.turns[2]:
        return thing.turns[0]
    return thing.colour
