"""Traces and run folders with gradients that are known, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.probes.sample_trace import Routes, SampleTrace, TermLoss
from tpo_lab.probes.step_trace import Activations
from tpo_lab.probes.trace import Gradients, Trace
from tpo_lab.records import Record

# gradients of mlm, region and temporal in each module, of different sizes
VECTORS: dict[str, list[list[float]]] = {
    "connector": [[0.02, 0.0], [0.0, 0.004], [0.0, 0.0]],
    "llm.lora.0": [[0.0, 0.1], [3.0, 0.0], [-4.0, 3.0]],
    "llm.lora.10": [[0.1, 0.1], [1.0, 2.0], [2.0, 1.0]],
    "llm.lora.2": [[0.3, 0.1], [2.0, 1.0], [0.0, -2.0]],
    "heads.region": [[0.0] * 3, [1.0, 2.0, 2.0], [0.0] * 3],
    "heads.temporal": [[0.0], [0.0], [5.0]],
}
OWNERS = ("mlm", "region", "temporal")


def gradients(vectors: Mapping[str, Sequence[Sequence[float]]] = VECTORS, owners: Sequence[str] = OWNERS) -> Gradients:
    """From each owner's gradient in each module."""
    rows = {module: torch.tensor(found, dtype=torch.float64) for module, found in vectors.items()}
    products = {module: found @ found.T for module, found in rows.items()}
    return Gradients(tuple(owners), products, {module: found.shape[1] for module, found in rows.items()})


def random_gradients(owners: Sequence[str], modules: Sequence[str], seed: int = 0) -> Gradients:
    """Of many modules; each head's own reach nobody else's."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for module in modules:
        size = 10 ** (3 * torch.rand(len(owners), 1, generator=chance) - 3)
        vectors = size * torch.randn(len(owners), 7, generator=chance)
        if module.startswith("heads."):
            vectors[[owner != module.partition(".")[2] for owner in owners]] = 0.0
        found[module] = vectors.tolist()
    return gradients(found, owners)


def trace(found: Gradients | None, losses: Sequence[Mapping[str, float]] | None = None) -> Trace:
    """With a sample for each dict of losses by term."""
    losses = losses if losses is not None else [{"mlm": 1.0}, {"mlm": 0.5, "region/l1": 0.25}, {"region/l1": 2.0, "temporal/span": 0.75}]
    taught = tuple(sample(f"s{place}", terms) for place, terms in enumerate(losses))
    heads = tuple(owner for owner in (found.owners if found else OWNERS) if owner not in ("mlm", "assign"))
    return Trace(taught, {}, found, Activations((), torch.zeros(0, 5, 8)), (), (), heads, "3a")


def sample(name: str, terms: Mapping[str, float]) -> SampleTrace:
    """One that is taught by some terms."""
    given = samples_of(sample_scene(1), ("conversation",))[0].model_copy(update={"id": name})
    record: Any = Record.__new__(Record)
    object.__setattr__(record, "question", f"What about {name}?")
    object.__setattr__(record, "expected_text", "so")
    weighed = {term: TermLoss(value, 1.0) for term, value in terms.items()}
    return SampleTrace(given, record, (64, 48), 4.0, (0.0, 2.0), (), Routes((), (), "", {}, ()), (), {}, weighed)


def line(stage: str, step: int, found: Gradients, samples: Sequence[str] = ("a", "b")) -> dict[str, Any]:
    """Of probes.jsonl; what is not finite is None."""
    measured = json.loads(json.dumps(found.to_dict()).replace("NaN", "null").replace("Infinity", "null"))
    return {"stage": stage, "step": step, "seconds": 0.25, "samples": list(samples), "losses": {}, "gradients": measured, "routes": {}}


def run_folder(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """A folder with these measurements."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "probes.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return folder


def turning(count: int) -> list[dict[str, Any]]:
    """Two stages: one with two losses, then one in which region and temporal turn from together to against each other."""
    first = [
        line("1", 1 + 10 * place, gradients({"tokens.rows.output": [[3.0, place], [1.0, 1.0]]}, ("mlm", "region"))) for place in range(3)
    ]
    second = []
    for place in range(count):
        share = place / max(count - 1, 1)
        vectors = {**VECTORS, "llm.lora.2": [[0.3, 0.1], [2.0 + place, 0.0], [2.0 - 4.0 * share, 1.0]]}
        second.append(line("3a", max(1, 50 * place), gradients(vectors), ("c", "d", "e")))
    return first + second
