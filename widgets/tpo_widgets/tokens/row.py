"""A sample's row of tokens, and the places in it where a route is decided, as a view lays them out. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_lab.errors import UsageError

if TYPE_CHECKING:
    from tpo_lab.probes.sample_trace import SampleTrace, Token


def grid_side(tokens: Sequence[Token]) -> int:
    """Rows, and columns, of the square grid of patches that each frame has; 0 where no patch belongs to a frame.

    Raises:
        UsageError: the patches of a frame make no square.
    """
    cells = 1 + max((token.cell for token in tokens if token.cell is not None), default=-1)
    side = math.isqrt(cells)
    if side * side != cells:
        raise UsageError("trace.samples.tokens", expected="a square grid of patches in each frame", got=f"{cells} patches")
    return side


def runs_of(tokens: Sequence[Token]) -> list[list[Any]]:
    """The row in reading order.

    Neighbouring patches of a frame are one run: ["VIDEO", index of the first, frame, its cell, how many]; frame and cell are None for
    patches of no frame. Every other token stands alone: [kind, index, text, whether it is learned, head].
    """
    runs: list[list[Any]] = []
    for token in tokens:
        if token.kind != "VIDEO":
            runs.append([token.kind, token.index, token.text, token.learned, token.head])
        elif runs and _goes_on(runs[-1], token):
            runs[-1][4] += 1
        else:
            runs.append(["VIDEO", token.index, token.frame, token.cell, 1])
    return runs


def _goes_on(run: list[Any], token: Token) -> bool:
    kind, _, frame, cell, count = run
    return kind == "VIDEO" and frame == token.frame and (None if cell is None else cell + count) == token.cell


def places_of(sample: SampleTrace) -> list[dict[str, Any]]:
    """Where a route is decided: at each route of the true answers, and where the model's own answer begins, which is the last.

    Each has the route's `token` in the row, the token that it is predicted `from` (both None for the model's own answer), the `probability`
    of every route and of "none", in the record's order, which one is `expected`, and which the model has `written` there. Two answers are
    set side by side by their routes' order; None where there is nothing to set beside, as in answers before the last.
    """
    from tpo_lab.probes.sample_trace import NONE
    from tpo_lab.probes.word_maps import last_answer

    last, routes = last_answer(sample.tokens), sample.routes
    own = {token.index for token in last}
    ranks = {due.token: rank for rank, due in enumerate(due for due in routes.due if due.token in own)}
    places = [
        {
            "token": due.token,
            "from": due.predicted_from,
            "probability": _bars(due.probability),
            "expected": due.head,
            "written": [*routes.emitted, NONE][min(ranks[due.token], len(routes.emitted))] if due.token in ranks else None,
        }
        for due in routes.due
    ]
    begins = bool(routes.emitted) and routes.text.lstrip().startswith(f"<{routes.emitted[0]}>")
    start = {
        "token": None,
        "from": None,
        "probability": _bars(routes.first),
        "expected": (last[0].head if last[0].kind == "ROUTE" else NONE) if last else None,
        "written": routes.emitted[0] if begins else NONE,
    }
    return [*places, start]


def finite(value: float) -> float | None:
    """A number as JSON can hold it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _bars(probability: Mapping[str, float]) -> list[list[Any]]:
    return [[name, finite(value)] for name, value in probability.items()]
