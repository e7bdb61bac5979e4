"""The numbers of a GradientView are those of autograd, module by module, and it says how many backward passes they took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import tpo_lab as tpo
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.probes.trace import Trace
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora
from tpo_widgets import GradientView

EXACT = 1e-6


@pytest.fixture(scope="module")
def model(build_tiny: Any) -> TPOModel:
    """Region and temporal head behind a language model with LoRA that already does something."""
    made: TPOModel = build_tiny()
    made.add_lora(Lora(rank=2, alpha=4.0, dropout=0.5))
    with torch.no_grad():
        for name, parameter in made.named_parts().items():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def samples(say: Any) -> list[Sample]:
    window = {"windows_sec": [[1.0, 2.5]], "saliency": {"step_sec": 1.0, "scores": [0.0, 4.0, 2.0, 0.0]}}
    return [
        say(0, "How many squares are there?", "zero"),
        say(1, "Where is the red ball?", "<region>", region=[{"time_sec": 1.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]),
        say(2, "When does the small ball stop, after it has moved down?", "<temporal>", temporal=window),
    ]


@pytest.fixture(scope="module")
def trace(model: TPOModel, samples: list[Sample]) -> Trace:
    return tpo.probe(model, samples, attention=False)


def module_named(parameter: str) -> str:
    """The name of a parameter's module, worked out here anew."""
    part, _, rest = parameter.partition(".")
    if part == "llm":
        lora, _, path = rest.partition(".")
        pieces = path.split(".")
        layer = pieces[pieces.index("layers") + 1] if "layers" in pieces else "other"
        return f"llm.{lora}.{layer}"
    if part == "tokens":
        return ".".join(parameter.split(".")[:3])
    return ".".join(parameter.split(".")[:2]) if part == "heads" else part


@pytest.fixture(scope="module")
def autograd(model: TPOModel, samples: list[Sample]) -> dict[str, dict[str, Tensor]]:
    """By module and loss, the gradient as one vector, zeros where the loss does not reach."""
    frames = Frames(model.backbone)
    batch = model.collate([frames.row([sample]) for sample in samples])
    losses = model.losses(batch, model(batch)).per_head()
    named = {name: parameter for name, parameter in model.named_parts().items() if parameter.requires_grad}
    found: dict[str, dict[str, list[Tensor]]] = {}
    for owner in ("mlm", "assign", "region", "temporal"):
        gradients = torch.autograd.grad(losses[owner], list(named.values()), retain_graph=True, allow_unused=True)
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            vector = torch.zeros_like(parameter) if gradient is None else gradient
            found.setdefault(module_named(name), {}).setdefault(owner, []).append(vector.detach().double().flatten())
    return {module: {owner: torch.cat(parts) for owner, parts in each.items()} for module, each in found.items()}


def shown(view: GradientView) -> Iterator[tuple[str, dict[str, float | None], dict[str, float | None], dict[str, float | None]]]:
    """Module, norms, shares and cosines, as the front end reads them out of the document."""
    document = view.document
    owners, segment = document["owners"], document["segments"][0]
    pairs = [(one, other) for place, one in enumerate(owners) for other in owners[place + 1 :]]
    columns = 2 * len(owners) + len(pairs)
    values = document["values"]
    for place, module in enumerate(segment["modules"]):
        row = values[place * columns : (place + 1) * columns]
        norms, shares, cosines = row[: len(owners)], row[len(owners) : 2 * len(owners)], row[2 * len(owners) :]
        name = document["modules"][module]
        yield name, dict(zip(owners, norms, strict=True)), dict(zip(owners, shares, strict=True)), dict(zip(pairs, cosines, strict=True))


def test_norms_cosines_and_shares_are_those_of_autograd(trace: Trace, autograd: dict[str, dict[str, Tensor]]):
    leaves = {name: rest for name, *rest in shown(GradientView(trace)) if name in autograd}
    assert set(leaves) == set(autograd) and len(leaves) > 8
    met = 0
    for module, (norms, shares, cosines) in leaves.items():
        vectors = autograd[module]
        total = sum(vectors.values())
        for owner, vector in vectors.items():
            assert norms[owner] == pytest.approx(float(vector.norm()), rel=EXACT), (module, owner)
            assert (norms[owner] == 0) == (not bool(vector.any()))
            if bool(total.any()):
                assert shares[owner] == pytest.approx(float(vector @ total / (total @ total)), rel=EXACT, abs=EXACT), (module, owner)
            else:
                assert shares[owner] is None
        for (one, other), cosine in cosines.items():
            length = float(vectors[one].norm() * vectors[other].norm())
            if not length:
                assert cosine is None, (module, one, other)
                continue
            met += 1
            assert cosine == pytest.approx(float(vectors[one] @ vectors[other]) / length, rel=EXACT, abs=EXACT), (module, one, other)
    assert met > 20, "the losses hardly meet: nothing was compared"


def test_a_group_is_all_of_its_layers(trace: Trace, autograd: dict[str, dict[str, Tensor]]):
    name, norms, shares, cosines = next(each for each in shown(GradientView(trace)) if each[0] == "llm.lora")
    layers = [module for module in autograd if module.startswith(f"{name}.")]
    whole = {owner: torch.cat([autograd[layer][owner] for layer in layers]) for owner in norms}
    total = sum(whole.values())
    assert len(layers) >= 3
    for owner, vector in whole.items():
        assert norms[owner] == pytest.approx(float(vector.norm()), rel=EXACT)
        assert shares[owner] == pytest.approx(float(vector @ total / (total @ total)), rel=EXACT, abs=EXACT)
    wanted = float(whole["region"] @ whole["temporal"]) / float(whole["region"].norm() * whole["temporal"].norm())
    assert cosines["region", "temporal"] == pytest.approx(wanted, rel=EXACT)


def test_a_probe_takes_one_backward_pass_a_loss_and_the_view_says_so(
    model: TPOModel, samples: list[Sample], trace: Trace, monkeypatch: pytest.MonkeyPatch
):
    passes: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **keywords: Any) -> Any:
            passes[name] += 1
            return real(*args, **keywords)

        monkeypatch.setattr(owner, name, call)

    counted(torch.autograd, "grad")
    counted(torch.autograd, "backward")
    counted(Tensor, "backward")
    # whatever calls the engine in some other way is counted here
    counted(torch.autograd.graph, "_engine_run_backward")
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", torch.autograd.graph._engine_run_backward)
    found = tpo.probe(model, samples)
    losses = len(found.gradients.owners)
    assert losses == 4
    assert 0 < passes["_engine_run_backward"] <= losses + 1 and passes["grad"] + passes["backward"] <= losses + 1
    view = GradientView(found)
    numbers = sum(parameter.numel() for parameter in model.named_parts().values() if parameter.requires_grad)
    cost = view.document["segments"][0]["cost"]
    assert cost.startswith(f"4 losses, {passes['_engine_run_backward']} backward passes · {numbers:,} parameters in ")
    passes.clear()
    tpo.probe(model, samples, gradients=False)
    assert not passes, "no gradients, no backward pass"


def test_per_parameter_is_by_the_root_of_their_number(trace: Trace):
    segment, modules = GradientView(trace).document["segments"][0], GradientView(trace).document["modules"]
    counts = {modules[module]: count for module, count in zip(segment["modules"], segment["parameters"], strict=True)}
    assert counts["heads.region"] == trace.gradients.parameters["heads.region"]
    assert counts["llm.lora"] == sum(count for name, count in trace.gradients.parameters.items() if name.startswith("llm.lora."))
    assert math.isclose(
        sum(count for name, count in counts.items() if name in trace.gradients.modules), sum(trace.gradients.parameters.values())
    )


def test_samples_behind_a_pair_are_those_of_the_trace(trace: Trace):
    document = GradientView(trace).document
    assert document["ranked"]["region|temporal"] == list(trace.samples_of("region", "temporal"))
    assert set(document["ranked"]["region|temporal"]) == {1, 2} and document["segments"][0]["samples"] == ["s0", "s1", "s2"]
    assert document["samples"]["s1"]["losses"]["region"] == pytest.approx(trace.samples[1].loss_of({"region"}), rel=1e-5)
