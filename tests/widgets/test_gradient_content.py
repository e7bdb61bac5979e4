"""What a GradientView shows, without a browser: its document, its numbers along a run, its picture, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.widgets.gradient_fixtures import OWNERS, VECTORS, gradients, line, random_gradients, run_folder, trace, turning
from tpo_lab.errors import MissingExtraError, UsageError
from tpo_lab.probes.trace import Gradients
from tpo_lab.runs import RunFolder, read_probes
from tpo_widgets import GradientView
from tpo_widgets.content import Moment
from tpo_widgets.gradients.content import GradientContent, most_interesting
from tpo_widgets.gradients.figure import along
from tpo_widgets.gradients.measurements import evenly, in_order


def values_at(content: GradientContent, line_number: int) -> dict[str, list[float]]:
    """By module, the numbers that the front end reads for a measurement of a run."""
    for number, segment in enumerate(content.document["segments"]):
        if line_number in segment["lines"]:
            place = segment["lines"].index(line_number)
            found = content.resource(f"values/{number}/{place // segment['chunk']}")
            values = np.frombuffer(found.data, "<f4").reshape(found.about["shape"])[place % segment["chunk"]]
            return {content.document["modules"][module]: row.tolist() for module, row in zip(segment["modules"], values, strict=True)}
    raise AssertionError(line_number)


def test_modules_go_outwards_and_layers_by_number():
    given = [
        "vision",
        "connector",
        "llm.lora.10",
        "llm.lora.other",
        "llm.lora.2",
        "tokens.rows.input",
        "heads.region",
        "llm.lora",
        "strange",
    ]
    wanted = [
        "llm.lora",
        "llm.lora.2",
        "llm.lora.10",
        "llm.lora.other",
        "tokens.rows.input",
        "heads.region",
        "connector",
        "vision",
        "strange",
    ]
    assert in_order(given) == wanted


def test_document_of_a_trace():
    content = GradientContent.of(trace(gradients()))
    document = json.loads(json.dumps(content.document, allow_nan=False))
    leaves = ["llm.lora.0", "llm.lora.2", "llm.lora.10", "heads.region", "heads.temporal"]
    assert document["modules"] == ["llm.lora", *leaves[:3], "heads", *leaves[3:], "connector"]
    assert document["groups"] == {"llm.lora": [1, 2, 3], "heads": [5, 6]} and document["owners"] == list(OWNERS)
    row = dict(zip(document["modules"], np.array(document["values"], dtype=float).reshape(8, -1).tolist(), strict=True))
    assert row["llm.lora.0"][:3] == pytest.approx([0.1, 3.0, 5.0]) and row["llm.lora.0"][8] == pytest.approx(-0.8)
    assert row["heads.region"][:3] == [0.0, 3.0, 0.0] and all(math.isnan(value) for value in row["heads.region"][6:])
    assert sum(row["llm.lora"][3:6]) == pytest.approx(1.0)
    segment = document["segments"][0]
    assert segment["cost"] == "3 losses, 3 backward passes · 12 parameters in 6 modules · 3 samples"
    assert (segment["title"], segment["lines"], segment["steps"]) == ("Gradients of stage 3a", [-1], [None])
    assert document["ranked"]["region|temporal"] == [2, 1] and document["samples"]["s1"]["losses"] == {"mlm": 0.5, "region": 0.25}
    assert document["samples"]["s2"]["question"] == "What about s2?"


def test_conflicts_in_plain_words_without_groups():
    content = GradientContent.of(trace(gradients()))
    found = content.conflicts(content.start)
    assert str(found[0]) == "region and temporal pull against each other in llm.lora.0: cosine -0.80"
    assert [(each.module, each.one, each.other) for each in found[:2]] == [
        ("llm.lora.0", "region", "temporal"),
        ("llm.lora.2", "region", "temporal"),
    ]
    assert [each.cosine for each in found] == sorted(each.cosine for each in found) and all(each.cosine < 0 for each in found)
    assert "llm.lora" not in {each.module for each in found}


def test_a_run_has_the_numbers_of_its_lines(tmp_path: Path):
    folder = run_folder(tmp_path / "run", turning(7))
    content = GradientContent.of(run=folder)
    document = json.loads(json.dumps(content.document, allow_nan=False))
    assert [(each["stage"], each["lines"], each["steps"]) for each in document["segments"]] == [
        ("1", [0, 1, 2], [1, 11, 21]),
        ("3a", [3, 4, 5, 6, 7, 8, 9], [1, 50, 100, 150, 200, 250, 300]),
    ]
    assert document["start"] == 9 and document["measured"] == 10 and document["owners"] == ["mlm", "region", "temporal"]
    for number, probed in enumerate(read_probes(folder)):
        shown = values_at(content, number)
        own = probed["gradients"]
        assert set(own["modules"]) == {name for name in shown if name not in content.groups}
        for module, record in own["modules"].items():
            norms, shares, cosines = shown[module][:3], shown[module][3:6], shown[module][6:]
            for place, owner in enumerate(OWNERS):
                if owner not in own["owners"]:
                    assert norms[place] == -1 and math.isnan(shares[place])
                    continue
                assert norms[place] == pytest.approx(record["norms"][owner], rel=1e-6)
                assert shares[place] == pytest.approx(record["shares"][owner], rel=1e-5, abs=1e-6)
            pairs = [f"{one}|{other}" for place, one in enumerate(OWNERS) for other in OWNERS[place + 1 :]]
            for place, pair in enumerate(pairs):
                wanted = record["cosines"].get(pair)
                assert math.isnan(cosines[place]) if wanted is None else cosines[place] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_owners_in_another_order_keep_their_numbers(tmp_path: Path):
    turned = gradients({module: rows[::-1] for module, rows in VECTORS.items()}, OWNERS[::-1])
    content = GradientContent.of(run=run_folder(tmp_path, [line("3a", 1, gradients()), line("3a", 2, turned)]))
    assert len(content.segments) == 2
    np.testing.assert_allclose(np.array(list(values_at(content, 0).values())), np.array(list(values_at(content, 1).values())), rtol=1e-6)


def test_a_trace_and_a_run_together(tmp_path: Path):
    content = GradientContent.of(trace(gradients()), run_folder(tmp_path, turning(2)))
    assert [each.line for each in content.measurements] == [-1, 0, 1, 2, 3, 4] and content.start.line == -1
    assert content.at(-1).line == -1 and content.at(3).line == 3 and content.at(99).line == 4
    assert RunFolder(tmp_path, {}).path == tmp_path
    assert GradientContent.of(run=RunFolder(tmp_path, {})).start.line == 4


def test_very_many_measurements_are_thinned_evenly(tmp_path: Path):
    assert evenly(5, 9) == [0, 1, 2, 3, 4] and evenly(10, 4) == [0, 3, 6, 9]
    lines = [line("3a", 1 + place, gradients({"llm.lora.0": [[1.0 + place], [2.0], [0.0]]})) for place in range(1203)]
    view = GradientView(run=run_folder(tmp_path, lines))
    kept = view.document["segments"][0]["lines"]
    assert view.document["measured"] == 1203 and len(kept) == 1000 and (kept[0], kept[-1]) == (0, 1202)
    assert len(str(view.get_state())) <= 100_000
    assert values_at(view.content, 1202)["llm.lora.0"][0] == pytest.approx(1203.0)
    assert [view.content.at(place).line for place in kept[:3]] == kept[:3]


def test_chunks_hold_every_measurement_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tpo_widgets.gradients.content._CHUNK_BYTES", 700)
    content = GradientContent.of(run=run_folder(tmp_path, turning(7)))
    names = list(content.names())
    assert len(names) > 4 and names[0].startswith("values/1/") and len(set(names)) == len(names)
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name.split("/")[1]] = sizes.get(name.split("/")[1], 0) + content.resource(name).about["shape"][0]
    assert sizes == {"0": 3, "1": 7}
    assert values_at(content, 9)["llm.lora.2"][:3] == pytest.approx([math.hypot(0.3, 0.1), 8.0, math.hypot(2, 1)])
    with pytest.raises(UsageError, match=r"got 'values/9/0'"):
        content.resource("values/9/0")


def seven_billion() -> Gradients:
    """As many modules as a 7B model has with its base and its LoRA."""
    layers = [f"llm.{part}.{layer}" for part in ("base", "lora") for layer in range(32)]
    more = [f"strange.{number}" for number in range(160)]
    rest = ["connector", *(f"heads.{owner}" for owner in ("region", "temporal", "mask"))]
    return random_gradients(("mlm", "assign", "region", "temporal", "mask"), [*layers, *more, *rest])


def test_hundreds_of_modules_stay_small(tmp_path: Path):
    found = seven_billion()
    view = GradientView(trace(found, [{"mlm": 1.0}] * 5))
    assert not view.problem and len(view.document["modules"]) > 230 and view.document["values"] is None
    assert len(str(view.get_state())) <= 100_000
    assert list(view.content.names()) == ["values/0/0"]
    picture = view.content.picture(Moment(), dark=False, width=900)
    assert picture.size[1] < 1300 and len(most_interesting(view.content, view.content.start, 24)) == 24
    run = GradientView(run=run_folder(tmp_path, [line("3a", 1 + step, found) for step in range(4)]))
    assert not run.problem and len(str(run.get_state())) <= 100_000


def test_the_most_interesting_rows_have_the_strongest_conflicts():
    content = GradientContent.of(trace(seven_billion(), [{"mlm": 1.0}]))
    chosen = most_interesting(content, content.start, 24)
    worst = [each.module for each in content.conflicts(content.start)]
    assert set(chosen) == set(list(dict.fromkeys(worst))[:24])
    assert chosen == [module for module in content.modules if module in chosen]
    small = GradientContent.of(trace(gradients()))
    assert len(most_interesting(small, small.start, 24)) == 6 and most_interesting(small, small.start, 1) == ["llm.lora.0"]


@pytest.mark.parametrize("width", [480, 900])
@pytest.mark.parametrize("dark", [False, True])
def test_picture_shows_conflicts_where_they_are(width: int, dark: bool):
    content = GradientContent.of(trace(gradients()))
    picture = np.asarray(content.picture(Moment(), dark=dark, width=width)).astype(int)
    assert picture.shape[1] == width
    warm = (picture[..., 0] - picture[..., 2] > 40).nonzero()
    friends = GradientContent.of(trace(gradients({"llm.lora.0": [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]})))
    none = np.asarray(friends.picture(Moment(), dark=dark, width=width))
    assert len(warm[0]) > 200 and not (none[..., 0].astype(int) - none[..., 2] > 40).any()
    blue = (picture[..., 2] - picture[..., 0] > 40).nonzero()
    assert blue[0].min() < warm[0].min(), "norms stand above conflicts"


def test_per_parameter_changes_the_picture():
    view = GradientView(trace(gradients()))
    before = view.to_png()
    view.per_parameter = True
    assert view.to_png() != before


def test_one_owner_has_no_pairs(tmp_path: Path):
    alone = gradients({"llm.lora.0": [[1.0, 2.0]], "connector": [[0.5]]}, ("mlm",))
    view = GradientView(trace(alone, [{"mlm": 1.0}]))
    assert not view.problem and view.content.pairs == [] and view.document["ranked"] == {}
    assert view.document["segments"][0]["cost"].startswith("1 loss, 1 backward pass · 3 parameters in 2 modules · 1 sample")
    assert view.to_png() and view.to_html() and view.to_plotly()
    with pytest.raises(UsageError, match="pair"):
        view.pair = "mlm|region"


def test_norms_that_are_not_finite_are_null(tmp_path: Path):
    found = gradients()
    products = {module: each.clone() for module, each in found.products.items()}
    products["llm.lora.0"][1, :] = products["llm.lora.0"][:, 1] = math.nan
    products["heads.temporal"][2, 2] = math.inf
    broken = dataclasses.replace(found, products=products)
    RunFolder(tmp_path, {}).log_probe(stage="3a", step=1, seconds=0.1, samples=["a"], gradients=broken.to_dict())
    for view in (GradientView(trace(broken)), GradientView(run=tmp_path)):
        assert not view.problem
        document = json.loads(json.dumps(view.document, allow_nan=False))
        rows = dict(zip(document["modules"], np.array(document["values"], dtype=object).reshape(8, -1).tolist(), strict=True))
        assert rows["llm.lora.0"][:3] == [pytest.approx(0.1), None, pytest.approx(5.0)] and rows["heads.temporal"][2] is None
        assert rows["llm.lora"][1] is None and rows["llm.lora.2"][1] is not None and rows["llm.lora.0"][3:6] == [None] * 3
        assert view.to_png() and view.to_plotly()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda folder: GradientView(), "trace, run: expected one of them or both"),
        (lambda folder: GradientView("runs/first"), "trace: expected what tpo.probe(model, samples) gives, got 'str'"),
        (lambda folder: GradientView(trace(None)), "trace: expected gradients in it, got 'none'. Measure again with tpo.probe"),
        (lambda folder: GradientView(trace(gradients({}, ()), [{}])), "samples with an answer to learn from"),
        (lambda folder: GradientView(trace(gradients({}))), "expected a model of which some part can learn"),
        (lambda folder: GradientView(run=folder / "nowhere"), "run: expected the folder of a run"),
        (lambda folder: GradientView(run=folder), "Train with TrainingOptions(probe_every=50), or tpo-lab train --probe-every 50."),
        (lambda folder: GradientView(run=run_folder(folder, [])), "Train with TrainingOptions(probe_every=50)"),
        (
            lambda folder: GradientView(run=run_folder(folder, [{"stage": "1", "step": 1}])),
            "line 1 of probes.jsonl: expected a measurement",
        ),
        (
            lambda folder: GradientView(run=run_folder(folder, [line("1", 1, gradients()), {}])),
            "line 2 of probes.jsonl: expected a measurement",
        ),
        (
            lambda folder: GradientView(run=run_folder(folder, [line("1", 1, gradients({}))])),
            "line 1 of probes.jsonl: expected a model of which",
        ),
        (lambda folder: GradientView(run=3), "run: expected the folder of a run, or what tpo.fit gives, got 3"),
    ],
)
def test_bad_input_is_a_sentence(given: Any, sentence: str, tmp_path: Path):
    view = given(tmp_path)
    assert sentence in view.problem and "\n" not in view.problem and view.document == {}
    assert view.to_png() and view.problem.split(":")[0] in view.to_html()
    view.pair, view.module = "anything", "anything"
    with pytest.raises(Exception, match="expected"):
        view.to_plotly()


def test_damaged_lines(tmp_path: Path):
    folder = run_folder(tmp_path, turning(3))
    whole = (folder / "probes.jsonl").read_text()
    (folder / "probes.jsonl").write_text(whole + '{"stage": "3a", "st')
    assert not GradientView(run=folder).problem, "a line that is being written is left out"
    lines = whole.splitlines()
    (folder / "probes.jsonl").write_text("\n".join([lines[0], lines[1][:50], *lines[2:]]) + "\n")
    assert "line 2: expected JSON" in GradientView(run=folder).problem


def test_selection_is_checked(tmp_path: Path):
    view = GradientView(run=run_folder(tmp_path, turning(2)))
    view.pair = "temporal|region"
    assert view.pair == "region|temporal"
    with pytest.raises(UsageError, match=r"Did you mean 'region\|temporal'"):
        view.pair = "region|temporl"
    with pytest.raises(UsageError, match=r"Did you mean .*'llm\.lora\.2'"):
        view.module = "llm.lora2"
    with pytest.raises(UsageError, match=r"GradientView keyword.*Did you mean 'run'"):
        GradientView(runs="x")
    assert view.measurement == 4 and view.module == ""


def test_curves_over_steps_for_plotly(tmp_path: Path):
    folder = run_folder(tmp_path, turning(5))
    view = GradientView(run=folder)
    view.module = "llm.lora.2"
    figure = view.to_plotly()
    names = [curve.name for curve in figure.data]
    assert names == ["mlm", "region", "temporal", "mlm and region", "mlm and temporal", "region and temporal"]
    region = figure.data[1]
    assert list(region.x) == [1, 11, 21, 22, 71, 121, 171, 221]
    assert list(region.y) == [None, None, None, *(pytest.approx(2.0 + place) for place in range(5))]
    assert region.text[-1] == "stage 3a, step 200"
    turn = figure.data[5].y
    assert turn[3] == pytest.approx(2 / math.hypot(2, 1)) and turn[-1] == pytest.approx(-2 / math.hypot(2, 1))
    assert {(shape.x0, shape.x1) for shape in figure.layout.shapes} == {(0, 21), (21, 221)}
    assert {note.text for note in figure.layout.annotations} >= {"1", "3a"}
    view.pair = "region|temporal"
    assert [curve.name for curve in view.to_plotly().data][3:] == ["region and temporal"]


def test_stages_follow_one_another():
    content_lines = [("1", 1), ("1", 50), ("2", 1), ("2", 30), ("2", 1), ("2", 7)]
    fakes: Any = [type("M", (), {"stage": stage, "step": step}) for stage, step in content_lines]
    places, bands = along(fakes)
    assert places == [1, 50, 51, 80, 81, 87]
    assert [(start, end) for start, end, _ in bands] == [(0, 50), (50, 80), (80, 87)]


def test_shares_by_layer_for_plotly():
    figure = GradientView(trace(gradients())).to_plotly()
    assert [bar.name for bar in figure.data] == list(OWNERS) and list(figure.data[0].y) == ["llm.lora.0", "llm.lora.2", "llm.lora.10"]
    sums = [sum(bar.x[place] for bar in figure.data) for place in range(3)]
    assert sums == pytest.approx([1.0, 1.0, 1.0]) and figure.layout.barmode == "relative"
    without = GradientView(trace(gradients({"connector": VECTORS["connector"]})))
    with pytest.raises(UsageError, match="layers of the language model learn"):
        without.to_plotly()


def test_plotly_is_optional(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingExtraError, match=r"tpo-lab\[widgets\]"):
        GradientView(trace(gradients())).to_plotly()


def test_ordinary_state_is_small(tmp_path: Path):
    owners = ("mlm", "assign", "region", "temporal", "mask")
    modules = [f"llm.lora.{layer}" for layer in range(28)] + ["connector", "tokens.rows.input", *(f"heads.{owner}" for owner in owners[2:])]
    lines = [line("3a", 1 + step, random_gradients(owners, modules, step)) for step in range(40)]
    view = GradientView(run=run_folder(tmp_path, lines))
    assert view.document["values"] is not None and len(json.dumps(view.document, allow_nan=False)) < 30_000
    assert len(str(view.get_state())) <= 100_000
    assert len(view._esm) <= 55_000


def test_tensors_elsewhere_than_in_double_are_read():
    halves = Gradients(("mlm",), {"x": torch.tensor([[4.0]], dtype=torch.float32)}, {"x": 1})
    assert GradientContent.of(trace(halves, [{"mlm": 1.0}])).start.table.norms.tolist() == [[2.0]]
