"""The pointing game: how often a predicted point lies inside the true box."""

from __future__ import annotations

from collections.abc import Sequence

from tpo_lab.errors import UsageError


def pointing_game(points_xy: Sequence[Sequence[float] | None], boxes_xyxy: Sequence[Sequence[float]]) -> dict[str, float]:
    """Share of points inside their box, and how far they lie from its middle.

    Args:
        points_xy: (x, y) each, in pixels; None where nothing was predicted, which is a miss.
        boxes_xyxy: the true box of each, in pixels, its edges included.

    Returns:
        "hits", from 0 to 1, and "distance", the mean in pixels over the points that there are (NaN without any).

    Raises:
        UsageError: there is none, or not one box for each point.

    Source: Zhang et al., Top-down Neural Attention by Excitation Backprop, section 4.2. Differs in: no margin around the box.
    """
    if not boxes_xyxy or len(points_xy) != len(boxes_xyxy):
        raise UsageError("points_xy", expected=f"one for each of the {len(boxes_xyxy)} boxes, at least one", got=len(points_xy))
    hits, distances = 0, []
    for point, (x0, y0, x1, y1) in zip(points_xy, boxes_xyxy, strict=True):
        if point is None:
            continue
        x, y = point
        hits += x0 <= x <= x1 and y0 <= y <= y1
        distances.append(((x - (x0 + x1) / 2) ** 2 + (y - (y0 + y1) / 2) ** 2) ** 0.5)
    return {"hits": hits / len(boxes_xyxy), "distance": sum(distances) / len(distances) if distances else float("nan")}
