"""`tpo_lab.probe`: one step and one answer, measured from outside a model that is left as it was."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tpo_lab import freeze
from tpo_lab.answer import Answerer
from tpo_lab.errors import UsageError
from tpo_lab.evaluation import answer_rows
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.probes.layers import chosen_layers, decoder_layers
from tpo_lab.probes.one_sample import Measured, measure
from tpo_lab.probes.parts import added_tokens, parts_of
from tpo_lab.probes.step import step_of
from tpo_lab.probes.trace import Activations, Trace
from tpo_lab.probes.untouched import untouched
from tpo_lab.sample import Sample
from tpo_lab.stages import Stage

MOST_SAMPLES = 64
"""In one trace: the step holds the graph of all of them at once."""
MAX_TOKENS = 32
"""Of an answer that the model writes."""


def probe(
    model: TPOModel,
    samples: Sequence[Sample],
    *,
    stage: Stage | None = None,
    gradients: bool = True,
    attention: bool | Sequence[int] = True,
    words: bool = False,
) -> Trace:
    """Measure what one step of training, and the model's own answers, make of a few samples.

    Everything is caught by hooks and by separate backward passes, in evaluation mode: weights, gradients, modes, `requires_grad` and random
    numbers stay as they are. The step holds all samples as one batch; what is said of a single sample is measured in a batch of its own.

    Args:
        samples: at most `MOST_SAMPLES`.
        stage: its plan decides what learns and its losses how much each term weighs, as in training. Without one, the model's own
            `requires_grad` does, and every term weighs 1.
        gradients: whether to measure them; each owner of loss terms takes one backward pass, and one copy of all that learns.
        attention: whether to keep where slots and routes look, or in which layers; one more forward pass of the language model.
        words: whether to map where in the clip each word is seen, of the model's own answer and of the true one; one more forward pass of
            the language model for each sample.

    Raises:
        UsageError: no samples or too many, a marker without an annotation, a layer that the model has not, or a stage of another model.
    """
    if not 0 < len(samples) <= MOST_SAMPLES:
        raise UsageError("samples", expected=f"1 to {MOST_SAMPLES}", got=len(samples), hint="A probe looks at a few of them.")
    layers = chosen_layers(len(decoder_layers(model.backbone)), attention)
    weights = None if stage is None else stage.losses
    with untouched(model):
        torch.manual_seed(0)
        open_before = {name: parameter.requires_grad for name, parameter in model.named_parts().items()}
        if stage is not None:
            freeze.apply(freeze.FreezePlan.of(stage), model.named_parts())
        frames = Frames(model.backbone, features=model.feature_files)
        rows = [frames.row([sample]) for sample in samples]
        answerer = Answerer(model, max_tokens=MAX_TOKENS)
        step = step_of(model, rows, weights, gradients=gradients)
        records = [answer_rows(model, answerer, [row])[0] for row in rows]
        measured = [
            measure(model, row, record, place, weights=weights, layers=layers, words=words)
            for place, (row, record) in enumerate(zip(rows, records, strict=True))
        ]
        parts = parts_of(model, open_before, staged=stage is not None)
        return Trace(
            samples=tuple(each.trace for each in measured),
            losses=step.losses,
            gradients=step.gradients,
            activations=_activations(measured, layers),
            parts=parts,
            added=added_tokens(model),
            heads=tuple(model.heads),
            stage=None if stage is None else stage.name,
        )


def _activations(measured: Sequence[Measured], layers: tuple[int, ...]) -> Activations:
    slots = [(place, slot.head, slot.token) for place, each in enumerate(measured) for slot in each.trace.slots]
    states = torch.cat([each.states for each in measured])
    return Activations(tuple(slots), states, layers, tuple(found for each in measured for found in each.attention))
