"""Gradients of all modules at once: the same numbers as one by one, from the record and from its JSON, and of groups of modules."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from tpo_lab.errors import UsageError
from tpo_lab.probes.gradient_table import GradientTable
from tpo_lab.probes.trace import Gradients

OWNERS = ("mlm", "region", "temporal")


def gradients(vectors: dict[str, list[list[float]]]) -> Gradients:
    """From each owner's gradient in each module."""
    products = {
        module: torch.tensor(rows, dtype=torch.float64) @ torch.tensor(rows, dtype=torch.float64).T for module, rows in vectors.items()
    }
    return Gradients(OWNERS, products, {module: len(rows[0]) for module, rows in vectors.items()})


@pytest.fixture
def found() -> Gradients:
    """Two layers and a head that one owner reaches; no two axes alike."""
    return gradients(
        {
            "llm.lora.0": [[3.0, 0.0], [-4.0, 3.0], [0.0, 0.0]],
            "llm.lora.1": [[1.0, 2.0], [2.0, 1.0], [-1.0, 0.5]],
            "heads.region": [[0.0] * 3, [1.0, 2.0, 2.0], [0.0] * 3],
            "connector": [[0.0], [0.0], [0.0]],
        }
    )


def one_by_one(found: Gradients) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Norms, cosines and shares as `Gradients` gives them, NaN for None."""
    pairs = [(one, other) for place, one in enumerate(found.owners) for other in found.owners[place + 1 :]]
    norms = [[found.norm(owner, module) for owner in found.owners] for module in found.modules]
    cosines = [[found.cosine(*pair, module) for pair in pairs] for module in found.modules]
    shares = [[found.share(owner, module) for owner in found.owners] for module in found.modules]
    return tuple(np.array(each, dtype=float) for each in (norms, cosines, shares))


@pytest.mark.parametrize("through_json", [False, True])
def test_a_table_has_the_numbers_of_the_record(found: Gradients, through_json: bool):
    table = GradientTable.read(json.loads(json.dumps(found.to_dict()))) if through_json else GradientTable.of(found)
    assert (table.owners, table.modules, table.parameters) == (OWNERS, found.modules, (2, 2, 3, 1))
    assert table.pairs == (("mlm", "region"), ("mlm", "temporal"), ("region", "temporal"))
    for mine, wanted in zip((table.norms, table.cosines, table.shares), one_by_one(found), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)
    assert table.cosines[0, 0] == pytest.approx(-12 / 15) and math.isnan(table.cosines[0, 1])
    assert table.shares[0].tolist() == pytest.approx([-3 / 10, 13 / 10, 0.0]) and np.isnan(table.shares[3]).all()


def test_a_group_is_its_members_one_behind_the_other(found: Gradients):
    table = GradientTable.of(found).with_groups({"llm.lora": ["llm.lora.0", "llm.lora.1"]})
    joined = {"llm.lora": [[3.0, 0.0, 1.0, 2.0], [-4.0, 3.0, 2.0, 1.0], [0.0, 0.0, -1.0, 0.5]]}
    wanted = GradientTable.of(gradients(joined))
    assert (table.modules[-1], table.parameters[-1]) == ("llm.lora", 4)
    for name in ("norms", "cosines", "shares"):
        np.testing.assert_allclose(getattr(table, name)[-1], getattr(wanted, name)[0], rtol=1e-12)
    assert GradientTable.of(found).with_groups({}).modules == found.modules


def test_what_is_not_finite_spoils_only_what_it_touches(found: Gradients):
    products = {module: each.clone() for module, each in found.products.items()}
    products["llm.lora.1"][2, :] = products["llm.lora.1"][:, 2] = math.nan
    broken = Gradients(OWNERS, products, found.parameters)
    record = json.loads(json.dumps(broken.to_dict()).replace("NaN", "null"))
    for table in (GradientTable.of(broken), GradientTable.read(record)):
        assert np.isfinite(table.norms[1]).tolist() == [True, True, False]
        assert np.isfinite(table.cosines[1]).tolist() == [True, False, False] and table.cosines[1, 0] == pytest.approx(0.8)
        assert np.isnan(table.shares[1]).all() and np.isfinite(table.shares[0]).all()
    infinite = Gradients(("a", "b"), {"x": torch.tensor([[math.inf, 1.0], [1.0, 4.0]])}, {"x": 1})
    assert np.isnan(GradientTable.of(infinite).cosines).all() and infinite.cosine("a", "b", "x") is None


def test_nothing_that_learns_is_an_empty_table():
    table = GradientTable.of(Gradients(OWNERS, {}, {}))
    assert table.norms.shape == (0, 3) and table.cosines.shape == (0, 3)
    single = GradientTable.of(Gradients(("mlm",), {"x": torch.tensor([[4.0]])}, {"x": 2}))
    assert single.norms.tolist() == [[2.0]] and single.cosines.shape == (1, 0) and single.shares.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("document", "got"),
    [
        ({}, "KeyError: 'owners'"),
        ({"owners": ["a"], "modules": 3}, "TypeError"),
        ({"owners": ["a"], "modules": {"x": {"parameters": 1, "norms": {}, "cosines": {}}}}, "KeyError: 'a'"),
        ({"owners": ["a", "b"], "modules": {"x": {"parameters": 1, "norms": {"a": 1, "b": 1}, "cosines": {}}}}, r"KeyError: 'a\|b'"),
    ],
)
def test_other_documents_are_refused(document: dict, got: str):
    with pytest.raises(UsageError, match=f"gradients: expected owners, and by module .*{got}"):
        GradientTable.read(document)
