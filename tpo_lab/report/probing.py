"""Charts of a step record: which loss moves which module, who pulls against whom, which route is how probable, who looks where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from tpo_lab.drawing import PALETTE
from tpo_lab.errors import UsageError
from tpo_lab.report.grids import Cell, shaded_grid
from tpo_lab.report.svg import FAINT, LETTER, Svg, document, legend, text

if TYPE_CHECKING:
    from tpo_lab.probes.symptoms import Symptom
    from tpo_lab.probes.trace import Attention, Gradients, SampleTrace, Token, Trace

AGREE, CONFLICT = PALETTE[2], PALETTE[1]
_LINE = 24
_WIDTH = 860
_DECADES = 4.0
"""From full colour to none: norms differ by powers of ten."""
KINDS = {"VIDEO": PALETTE[5], "CONTEXT": "#9aa3ad", "PROMPT": PALETTE[4], "TEXT": PALETTE[2], "ROUTE": PALETTE[1], "SLOT": PALETTE[0]}
"""Colour of each kind of token."""


def gradient_chart(gradients: Gradients, title: str = "Gradient norms") -> Svg:
    """A row per module, a column per owner of loss terms: the norm, shaded by its order of magnitude below the greatest of its column.

    A module that a loss does not reach is empty but for its "0".
    """
    greatest = {owner: max((gradients.norm(owner, module) for module in gradients.modules), default=0.0) for owner in gradients.owners}

    def cell(module: str, owner: str) -> Cell:
        norm = gradients.norm(owner, module)
        if not norm:
            return Cell("0", FAINT, 0.0)
        return Cell(f"{norm:.2g}", AGREE, 0.1 + 0.6 * max(0.0, 1 + math.log10(norm / greatest[owner]) / _DECADES))

    return _table(title, gradients.modules, gradients.owners, cell)


def conflict_chart(gradients: Gradients, title: str = "Cosine of gradients: below 0 they pull against each other") -> Svg:
    """A row per module, a column per pair of owners; blue where two agree, orange where they pull against each other, a dash where one of
    them does not reach the module. Pairs that meet nowhere are left out.
    """
    pairs = {f"{one} / {other}": (one, other) for one, other in combinations(gradients.owners, 2)}
    found = {(module, name): gradients.cosine(*pair, module) for module in gradients.modules for name, pair in pairs.items()}
    columns = [name for name in pairs if any(found[module, name] is not None for module in gradients.modules)]
    rows = [module for module in gradients.modules if any(found[module, name] is not None for name in columns)]

    def cell(module: str, name: str) -> Cell:
        cosine = found[module, name]
        if cosine is None:
            return Cell("-", FAINT, 0.0)
        return Cell(f"{cosine:+.2f}", AGREE if cosine > 0 else CONFLICT, 0.8 * abs(cosine))

    return _table(title, rows, columns, cell)


def share_chart(gradients: Gradients, prefix: str = "llm.lora.", title: str = "Share of the step in the language model's LoRA") -> Svg:
    """A row per module, a column per owner: its share of the step, in sum 1 over a row; orange where it works against the others.

    Raises:
        UsageError: no module has a name that begins so.
    """
    rows = [module for module in gradients.modules if module.startswith(prefix)]
    if not rows:
        raise UsageError("prefix", expected="how the name of a module that learns begins", got=prefix)

    def cell(module: str, owner: str) -> Cell:
        share = gradients.share(owner, module)
        if share is None:
            return Cell("-", FAINT, 0.0)
        return Cell(f"{share:.0%}", AGREE if share >= 0 else CONFLICT, min(0.8, abs(share)))

    return _table(title, rows, gradients.owners, cell)


def route_chart(trace: Trace, title: str = "How the answer begins") -> Svg:
    """A bar per sample: how probable each route and "none" is as the answer's first token; left what is due, right what is emitted."""
    colours = dict(zip((*trace.heads, "none"), (*PALETTE[: len(trace.heads)], FAINT), strict=False))
    left, right, bar = 210, 130, 300
    parts = [text(10, 18, title, "start", bold=True), text(left - 8, 40, "due", "end"), text(left + bar + 8, 40, "emitted", "start")]
    parts.append(legend(colours, left, 25)[0])
    for number, sample in enumerate(trace.samples):
        y, x = 50 + number * _LINE, float(left)
        parts.append(text(left - 8, y + 13, f"{number}: {_routes(sample.routes.expected)}", "end"))
        for name, share in sample.routes.first.items():
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{bar * share:.1f}" height="{_LINE - 6}" fill="{colours[name]}"/>')
            if share > 0.15:
                parts.append(text(x + bar * share / 2, y + 13, f"{share:.0%}", "middle"))
            x += bar * share
        parts.append(text(left + bar + 8, y + 13, _routes(sample.routes.emitted), "start"))
    return document((left + bar + right, 56 + len(trace.samples) * _LINE), title, "".join(parts))


def token_strip(sample: SampleTrace, attention: Attention | None = None, *, layer: int | None = None) -> Svg:
    """The row of a sample as chips in the colours of their kinds; the patches of a frame are one chip.

    Args:
        attention: who looks, so that every chip shows the share that it gets, the fuller the
            greater; a frame's share is the sum of its patches'.
        layer: which of the kept layers looks; their mean where None.

    Raises:
        UsageError: the attention is of a row with another number of tokens.
    """
    if attention is not None and attention.weights.shape[1] != len(sample.tokens):
        raise UsageError("attention", expected=f"shares of {len(sample.tokens)} tokens", got=attention.weights.shape[1])
    weights = None if attention is None else (attention.weights.mean(0) if layer is None else attention.weights[layer]).tolist()
    title = "Tokens" if attention is None else f"Where the {attention.head} {attention.kind.lower()} looks"
    parts = [text(10, 18, title, "start", bold=True), legend(KINDS, 10, 25)[0]]
    chips = _chips(sample.tokens)
    shares = [None if weights is None else sum(weights[token.index] for token in members) for _, members in chips]
    greatest = max([share for share in shares if share is not None], default=1.0)
    x, y = 10.0, 50
    for (label, members), share in zip(chips, shares, strict=True):
        shown = label if share is None else f"{label} {share:.0%}"
        width = LETTER * len(shown) + 10
        if x + width > _WIDTH:
            x, y = 10.0, y + _LINE
        looks = attention is not None and members[0].index == attention.token
        fill = 0.25 if share is None else 0.7 * share / greatest
        parts.append(_chip(x, y, width, shown, KINDS[members[0].kind], members[0].learned, fill, looks=looks))
        x += width + 4
    return document((_WIDTH, y + _LINE + 4), title, "".join(parts))


def symptom_chart(found: Mapping[str, Sequence[Symptom]], title: str = "Quantities that show a fault") -> Svg:
    """A row per quantity, a column per model: its value, in orange where it shows the fault that it looks for.

    Args:
        found: name of the model -> its symptoms, the same ones for each.
    """
    values = {(f"{each.quantity} ({each.fault})", name): each for name, some in found.items() for each in some}

    def cell(quantity: str, name: str) -> Cell:
        each = values[quantity, name]
        return Cell("-" if each.value is None else f"{each.value:.3g}", CONFLICT, 0.7 * each.shown)

    return _table(title, list(dict.fromkeys(quantity for quantity, _ in values)), list(found), cell)


def _chips(tokens: Sequence[Token]) -> list[tuple[str, list[Token]]]:
    """Label and tokens of each chip."""
    found: list[tuple[str, list[Token]]] = []
    for token in tokens:
        last = found[-1][1][-1] if found else None
        if last is not None and token.frame is not None and last.frame == token.frame:
            found[-1][1].append(token)
        else:
            found.append((f"frame {token.frame}" if token.frame is not None else token.text.strip() or "_", [token]))
    return found


def _chip(x: float, y: int, width: float, label: str, colour: str, learned: bool, fill: float, *, looks: bool) -> str:
    """One chip: its outline has the kind's colour, thick for who looks; learned tokens are underlined."""
    box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_LINE - 5}" rx="4"'
    line = f'<line x1="{x + 4:.1f}" x2="{x + width - 4:.1f}" y1="{y + 16}" y2="{y + 16}" stroke="{colour}" stroke-width="1.5"/>'
    outline = f'<rect {box} fill="{colour}" fill-opacity="{fill:.3f}" stroke="{colour}" stroke-width="{3 if looks else 1}"/>'
    return outline + text(x + width / 2, y + 13, label, "middle") + (line if learned else "")


def _routes(routes: Sequence[str]) -> str:
    return " + ".join(routes) or "words"


def _table(title: str, rows: Sequence[str], columns: Sequence[str], cell: Callable[[str, str], Cell]) -> Svg:
    """A grid whose cells are told by the names of row and column."""
    return shaded_grid(title, rows, columns, lambda row, column: cell(rows[row], columns[column]))
