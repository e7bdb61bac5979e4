"""One sample in a batch of its own: its tokens, routes, slots, answers and losses, and the states of its task tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch, Row
from tpo_lab.heads import Head
from tpo_lab.model import Forward, TPOModel
from tpo_lab.objective import LossReport
from tpo_lab.probes import sequence
from tpo_lab.probes.layers import attention_read, decoder_layers, states_kept
from tpo_lab.probes.overlaps import matches_of, partners_of, readings_of, targets_of
from tpo_lab.probes.trace import NONE, Attention, HeadTrace, RouteDue, Routes, SampleTrace, Slot, TermLoss, Token, WordMap
from tpo_lab.probes.word_maps import emitted_word_maps, word_maps
from tpo_lab.records import Record


@dataclass(frozen=True)
class Measured:
    """One sample's share of a trace.

    Attributes:
        trace: the sample's own.
        states: of its slots [slot, layer + 2, d].
        attention: of its slots, and of the tokens that its routes are predicted from.
    """

    trace: SampleTrace
    states: Tensor
    attention: tuple[Attention, ...]


@torch.no_grad()
def measure(
    model: TPOModel,
    row: Row,
    record: Record,
    place: int,
    *,
    weights: Mapping[str, float] | None,
    layers: Sequence[int],
    words: bool = False,
) -> Measured:
    """Measure one sample.

    Args:
        row: of this sample alone.
        record: of the same sample.
        place: of the sample in the trace.
        weights: the stage's, as in `TPOModel.losses`.
        layers: whose attention is kept; none runs no pass for it.
        words: whether to map the words of its answers.
    """
    batch = model.collate([row]).to(model.backbone.device)
    video = model.encode_video(batch.rows)
    tokens = sequence.tokens_of(model, row)
    decoder, slots = decoder_layers(model.backbone), [token for token in tokens if token.kind == sequence.SLOT]
    with states_kept(decoder, [token.index for token in slots]) as kept:
        forward = model(batch, video)
    due = routes_due(model, batch, forward, tokens)
    after_norm = forward.hidden[0, [token.index for token in slots]].detach().float().cpu()
    trace = SampleTrace(
        sample=row.samples[0],
        record=record,
        size_wh=(row.clip.width, row.clip.height),
        duration_sec=row.clip.duration_sec,
        times_sec=tuple(row.clip.times_sec),
        tokens=tokens,
        routes=Routes(record.expected, record.emitted, record.text, _with_none(record.route_probability), due),
        slots=slots_read(forward, slots),
        heads=_heads(model, batch, forward, record),
        losses=terms_of(model.losses(batch, forward, weights), batch),
        words=_words(model, batch, video, forward, tokens, record) if words else (),
    )
    attention = _attention(model, batch, video, trace, place, [decoder[layer] for layer in layers]) if layers else ()
    return Measured(trace, torch.stack([*kept, after_norm], 1), attention)


def routes_due(model: TPOModel, batch: Batch, forward: Forward, tokens: Sequence[Token]) -> tuple[RouteDue, ...]:
    """How probable every route is where one is due, in a batch of one sample."""
    routes = model.tokens.ids.route
    predictors = batch.predictor[batch.is_route, 1].tolist()
    probability = forward.logits[batch.is_route].float().softmax(-1)[:, list(routes.values())].tolist()
    places = [token for token in tokens if token.kind == sequence.ROUTE]
    return tuple(
        RouteDue(str(token.head), token.index, source, _with_none(dict(zip(routes, values, strict=True))))
        for token, source, values in zip(places, predictors, probability, strict=True)
    )


def _with_none(probability: Mapping[str, float]) -> dict[str, float]:
    return {**probability, NONE: max(0.0, 1.0 - sum(probability.values()))}


def slots_read(forward: Forward, slots: Sequence[Token]) -> tuple[Slot, ...]:
    """Which token's state each head is given, in a batch of one sample.

    Args:
        slots: the tokens of kind "SLOT", in order.
    """
    given = {head: list(embeddings) for head, embeddings in forward.task_embeddings.items()}
    states = nn.functional.normalize(forward.hidden[0].float(), dim=-1)
    found = []
    for token in slots:
        embedding = nn.functional.normalize(given[str(token.head)].pop(0).float(), dim=-1)
        cosines = states @ embedding
        found.append(Slot(str(token.head), token.index, int(cosines.argmax()), float(cosines[token.index])))
    return tuple(found)


def _heads(model: TPOModel, batch: Batch, forward: Forward, record: Record) -> dict[str, HeadTrace]:
    annotated = [name for name, slots in batch.slots.items() if all(each is not None for each in slots.annotations)]
    targets = model.targets(batch, annotated)
    names = [name for name in model.heads if name in batch.slots or name in record.routed]
    return {name: _head(model.head(name), forward.predictions.get(name), targets.get(name), record) for name in names}


def _head(head: Head[Any, Any], prediction: Any, target: Any, record: Record) -> HeadTrace:
    """What a head made of the sample; prediction and target are None where it is not due."""
    name, due = head.name, target is not None
    partners = partners_of(head, prediction, target) if due else None
    return HeadTrace(
        routed=record.routed.get(name),
        forced=record.forced.get(name),
        target=targets_of(record, name),
        matches={"routed": matches_of(record, name, "routed"), "forced": matches_of(record, name, "forced", partners)} if due else {},
        readings=readings_of(head, prediction, target) if due else {},
    )


def _words(
    model: TPOModel, batch: Batch, video: Sequence[VideoFeatures], forward: Forward, tokens: Sequence[Token], record: Record
) -> tuple[WordMap, ...]:
    emitted = emitted_word_maps(model, batch.rows[0], video, record.text)
    return (*emitted, *word_maps(model, batch, forward.hidden[0], tokens, "expected"))


def terms_of(report: LossReport, batch: Batch) -> dict[str, TermLoss]:
    """The terms of a batch that something in it teaches."""
    taught = {
        "assign": bool(batch.is_route.any()),
        "mlm": len(batch.target) > (int(batch.is_route.sum()) if "assign" in report.terms else 0),
    }
    return {name: TermLoss(float(value.detach()), report.weights[name]) for name, value in report.terms.items() if taught.get(name, True)}


def may_see(tokens: Sequence[Token]) -> Tensor:
    """Who may look at whom in a row of one conversation, from the meaning of its tokens: bool [token, key].

    Every token sees what is before it and itself; slots are seen by nobody else. The batch's own mask is not asked.
    """
    count = len(tokens)
    slot = torch.tensor([token.kind == sequence.SLOT for token in tokens], dtype=torch.bool)
    return (torch.ones(count, count, dtype=torch.bool).tril() & ~slot[None]) | torch.eye(count, dtype=torch.bool)


def _attention(
    model: TPOModel, batch: Batch, video: Sequence[VideoFeatures], trace: SampleTrace, place: int, layers: Sequence[nn.Module]
) -> tuple[Attention, ...]:
    readers: list[tuple[str, str, int]] = [(due.head, sequence.ROUTE, due.predicted_from) for due in trace.routes.due]
    readers += [(slot.head, sequence.SLOT, slot.token) for slot in trace.slots]
    rows = [token for *_, token in readers]
    kept: list[Tensor] = []
    with attention_read(layers, lambda weights: kept.append(weights[rows].cpu())):
        inputs, _ = model.inputs(batch, video)
        model.backbone.language_model(inputs, mask=batch.attention_mask())
    weights = torch.stack(kept, 1) if rows else torch.zeros(0, len(layers), len(trace.tokens))
    unseen = ~may_see(trace.tokens)[rows] if rows else torch.zeros(0, len(trace.tokens), dtype=torch.bool)
    stolen = (weights * unseen[:, None]).sum(-1).amax(1)
    return tuple(Attention(place, *reader, weights[i], float(stolen[i])) for i, reader in enumerate(readers))
