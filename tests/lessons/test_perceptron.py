"""The smallest notebook worth a sweep: it declares its parameters, and its training learns, repeats itself and refuses nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpo_lab import notebooks
from tpo_lab.errors import UsageError
from tpo_lab.lessons.perceptron import LOSSES, fit_boxes, write_notebook


def test_the_notebook_declares_its_parameters_and_runs(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "deep" / "small.ipynb")
    declared = notebooks.parameters(path)
    assert set(declared) == {"rate", "loss", "hidden", "steps", "out", "seed"}
    with pytest.raises(UsageError, match="rate"):
        notebooks.checked(path, {"rate": "fast"})
    run = notebooks.execute(path, tmp_path / "run.ipynb", {"steps": 10, "out": str(tmp_path / "out")})
    assert run.result["headline"] == {"iou": fit_boxes(rate=0.01, steps=10)[-1]}


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_and_a_seed_repeats_it(loss: str) -> None:
    curve = fit_boxes(rate=0.01, loss=loss, hidden=16, steps=42, seed=5)
    assert len(curve) == 5 and curve[-1] > curve[0]
    again, other = (fit_boxes(rate=0.01, loss=loss, hidden=16, steps=42, seed=seed) for seed in (5, 6))
    assert again == curve != other


@pytest.mark.parametrize(("wrong", "told"), [({"rate": 0.0}, "rate: expected a number above 0"), ({"rate": 0.1, "loss": "l2"}, "loss")])
def test_wrong_calls_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        fit_boxes(**wrong)  # type: ignore[arg-type]
