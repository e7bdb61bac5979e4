"""Charts of a trace: every number is where it belongs, and what is not there is not drawn."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.probes.symptoms import Symptom
from tpo_lab.probes.trace import Attention, Gradients, Routes, Token
from tpo_lab.report.probing import (
    AGREE,
    CONFLICT,
    KINDS,
    conflict_chart,
    gradient_chart,
    route_chart,
    share_chart,
    symptom_chart,
    token_strip,
)

SVG = "{http://www.w3.org/2000/svg}"
# gradients of a, b, c: (3, 0), (-4, 3), 0 in the first module; in the second only c has one
PRODUCTS = {
    "llm.lora.0": torch.tensor([[9.0, -12.0, 0.0], [-12.0, 25.0, 0.0], [0.0, 0.0, 0.0]]),
    "heads.c": torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]),
}
GRADIENTS = Gradients(("a", "b", "c"), PRODUCTS, {"llm.lora.0": 2, "heads.c": 1})


def texts(chart: str) -> list[tuple[float, float, str]]:
    return [(float(t.get("x", 0)), float(t.get("y", 0)), t.text or "") for t in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def cells(chart: str) -> dict[tuple[str, str], tuple[str, str, float]]:
    """(row, column) -> text, colour and opacity of each cell of a table."""
    root = ElementTree.fromstring(chart)
    words = texts(chart)
    heads = {x: text for x, y, text in words if y == 38}
    rows = {y: text for x, y, text in words if y > 38 and x < min(heads)}
    fills = {}
    for rect in root.iter(f"{SVG}rect"):
        if rect.get("fill-opacity"):
            middle = float(rect.get("x", 0)) + float(rect.get("width", 0)) / 2
            column = min(heads, key=lambda x, middle=middle: abs(x - middle))
            fills[float(rect.get("y", 0)) + 13, column] = (rect.get("fill", ""), float(rect.get("fill-opacity", 0)))
    return {(rows[y], heads[x]): (text, *fills[y, x]) for x, y, text in words if y in rows and x in heads}


def test_gradient_chart_has_norms_and_zeros():
    found = cells(gradient_chart(GRADIENTS))
    assert {key: text for key, (text, _, _) in found.items()} == {
        ("llm.lora.0", "a"): "3",
        ("llm.lora.0", "b"): "5",
        ("llm.lora.0", "c"): "0",
        ("heads.c", "a"): "0",
        ("heads.c", "b"): "0",
        ("heads.c", "c"): "2",
    }
    assert found["llm.lora.0", "a"][1:] == (AGREE, 0.7) and found["heads.c", "a"][2] == 0


def test_smaller_norms_are_paler():
    products = {"x": torch.tensor([[1e4]]), "y": torch.tensor([[1.0]]), "z": torch.tensor([[1e-12]])}
    found = cells(gradient_chart(Gradients(("a",), products, dict.fromkeys(products, 1))))
    assert [found[row, "a"][2] for row in "xyz"] == pytest.approx([0.7, 0.4, 0.1])


def test_conflict_chart_leaves_out_pairs_and_modules_that_do_not_meet():
    found = cells(conflict_chart(GRADIENTS))
    assert found == {("llm.lora.0", "a / b"): ("-0.80", CONFLICT, 0.64)}


def test_share_chart_is_one_in_sum_and_shows_who_works_against():
    found = cells(share_chart(GRADIENTS))
    assert found["llm.lora.0", "a"] == ("-30%", CONFLICT, 0.3)
    assert found["llm.lora.0", "b"][:2] == ("130%", AGREE)
    with pytest.raises(UsageError, match=r"got 'llm\.base'"):
        share_chart(GRADIENTS, "llm.base")


def sample(first: dict[str, float], expected: tuple[str, ...], emitted: tuple[str, ...], tokens: tuple[Token, ...] = ()) -> Any:
    return SimpleNamespace(routes=Routes(expected, emitted, "", first, ()), tokens=tokens)


def test_route_chart_has_a_bar_per_sample():
    trace: Any = SimpleNamespace(
        heads=("region", "temporal"),
        samples=(
            sample({"region": 0.75, "temporal": 0.05, "none": 0.2}, ("region", "region"), ()),
            sample({"region": 0.0, "temporal": 0.0, "none": 1.0}, (), ("temporal",)),
        ),
    )
    chart = route_chart(trace)
    words = [text for *_, text in texts(chart)]
    assert "0: region + region" in words and "1: words" in words and words.count("words") == 1
    assert [word for word in words if word.endswith("%")] == ["75%", "20%", "100%"]
    bars = [rect for rect in ElementTree.fromstring(chart).iter(f"{SVG}rect") if rect.get("height") == "18"]
    assert [float(bar.get("width", 0)) for bar in bars] == [225.0, 15.0, 60.0, 0.0, 0.0, 300.0]
    assert float(bars[1].get("x", 0)) == float(bars[0].get("x", 0)) + 225


TOKENS = (
    Token(0, "<user>", "CONTEXT", False),
    Token(1, "<video>", "VIDEO", False, frame=0, cell=0),
    Token(2, "<video>", "VIDEO", False, frame=0, cell=1),
    Token(3, "<video>", "VIDEO", False, frame=1, cell=0),
    Token(4, " a<b", "TEXT", True),
    Token(5, "<region:slot>", "SLOT", False, head="region"),
)


def test_token_strip_folds_frames_and_underlines_what_is_learned():
    chart = token_strip(sample({}, (), (), TOKENS))
    words = [text for *_, text in texts(chart)]
    assert words[-5:] == ["<user>", "frame 0", "frame 1", "a<b", "<region:slot>"]
    assert len(re.findall("<line", chart)) == 1 and KINDS["TEXT"] in chart


def test_token_strip_shows_shares_of_attention():
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    looks = Attention(0, "region", "SLOT", 5, weights, 0.0)
    one = [text for *_, text in texts(token_strip(sample({}, (), (), TOKENS), looks, layer=0))]
    assert one[-5:] == ["<user> 10%", "frame 0 50%", "frame 1 0%", "a<b 40%", "<region:slot> 0%"]
    mean = [text for *_, text in texts(token_strip(sample({}, (), (), TOKENS), looks))]
    assert mean[-4:] == ["frame 0 25%", "frame 1 0%", "a<b 70%", "<region:slot> 0%"]
    assert one[0] == "Where the region slot looks"
    with pytest.raises(UsageError, match="shares of 5 tokens, got 6"):
        token_strip(sample({}, (), (), TOKENS[:5]), looks)


def test_token_strip_breaks_lines_inside_the_picture():
    many = tuple(Token(place, "something", "TEXT", True) for place in range(40))
    chart = token_strip(sample({}, (), (), many))
    root = ElementTree.fromstring(chart)
    edges = [float(rect.get("x", 0)) + float(rect.get("width", 0)) for rect in root.iter(f"{SVG}rect")]
    assert max(edges) <= float(root.get("width", 0))
    assert len({y for _, y, text in texts(chart) if text == "something"}) > 2


def test_symptom_chart_marks_what_is_shown():
    shown, silent = (Symptom("lost", "probability", "below 0.5", value, value == 0.25) for value in (0.25, 0.75))
    unknown = Symptom("lost", "probability", "below 0.5", None, False)
    found = cells(symptom_chart({"A": [shown], "B": [silent], "C": [unknown]}))
    row = "probability (lost)"
    assert [found[row, name][0] for name in "ABC"] == ["0.25", "0.75", "-"]
    assert [found[row, name][2] > 0 for name in "ABC"] == [True, False, False]
