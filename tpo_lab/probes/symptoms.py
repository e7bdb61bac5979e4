"""What a trace says about faults: for each known one, the quantity that shows it, and the rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tpo_lab.errors import unknown_name
from tpo_lab.probes.faults import FROZEN_PART, LEAKING_LABEL, LOST_ROW, SWAPPED_BOX, WRONG_SLOT
from tpo_lab.probes.parts import MOVED
from tpo_lab.probes.trace import Trace

LEAST_PROBABILITY = 0.5
"""Of a route where it is due, in a model that has learned to route."""
LEAST_COSINE = 0.999
"""Between what a head is given and the state at its slot; rounding leaves more."""
READING_GAIN = 0.1
"""In mean IoU, by which another reading of the boxes has to be better than the one in use."""
MOST_HIDDEN = 1e-6
"""Share of attention on tokens that must not be seen; a sound mask leaves nothing."""


@dataclass(frozen=True)
class Symptom:
    """One quantity of a trace, held against its rule.

    Attributes:
        fault: which fault it would show.
        quantity: its name.
        rule: when it shows the fault.
        value: None where the trace cannot tell, e.g. because no sample asks a head.
        shown: whether the rule holds.
        where: the head or module with that value.
    """

    fault: str
    quantity: str
    rule: str
    value: float | None
    shown: bool
    where: str = ""


def symptoms(trace: Trace) -> list[Symptom]:
    """Every known fault's symptom; of a sound model that is trained none is shown."""
    return [rule(trace) for rule in SYMPTOMS.values()]


def symptom(trace: Trace, fault: str) -> Symptom:
    """The symptom of one fault.

    Raises:
        UsageError: an unknown fault.
    """
    if fault not in SYMPTOMS:
        raise unknown_name("fault", fault, SYMPTOMS)
    return SYMPTOMS[fault](trace)


def diagnosis(trace: Trace) -> str | None:
    """The fault whose symptom is shown and that no other shown one explains; None where nothing is shown."""
    shown = {found.fault for found in symptoms(trace) if found.shown}
    return next((fault for fault in SYMPTOMS if fault in shown and not shown & EXPLAINED_BY.get(fault, frozenset())), None)


def lost_token_row(trace: Trace) -> Symptom:
    """A route that is due has next to no probability, and its output row is where it was before training."""
    rule = f"below {LEAST_PROBABILITY} where it is due, with an output row that moved by less than {MOVED:.0%}"
    moved = {token.head: token.output_moved for token in trace.added if token.kind == "ROUTE"}
    found = {head: probability for head in trace.heads if (probability := trace.route_probability(head)) is not None}
    lost = {head: value for head, value in found.items() if value < LEAST_PROBABILITY and moved[head] < MOVED}
    value, where = _lowest(lost or found)
    return Symptom(LOST_ROW, "probability of the due route", rule, value, bool(lost), where)


def wrong_slot(trace: Trace) -> Symptom:
    """What a head is given is not the state at its slot."""
    slots = [slot for sample in trace.samples for slot in sample.slots]
    worst = {head: min(slot.cosine for slot in slots if slot.head == head) for head in {slot.head for slot in slots}}
    value, where = _lowest(worst)
    shown = value is not None and value < LEAST_COSINE
    return Symptom(WRONG_SLOT, "cosine of task embedding and state at the slot", f"below {LEAST_COSINE}", value, shown, where)


def swapped_box_convention(trace: Trace) -> Symptom:
    """The numbers of the boxes fit the true boxes better if they are read in another way."""
    found = {}
    for head in trace.heads:
        readings = [sample.heads[head].readings for sample in trace.samples if head in sample.heads and sample.heads[head].readings]
        if readings:
            mean = {name: sum(reading[name] for reading in readings) / len(readings) for name in readings[0]}
            best = max(mean, key=lambda name: mean[name])
            found[f"{head}, read as {best}"] = mean[best] - mean["xyxy"]
    gain, where = _highest(found)
    shown = gain is not None and gain > READING_GAIN
    return Symptom(SWAPPED_BOX, "IoU gained by another reading", f"above {READING_GAIN}", gain, shown, where)


def frozen_part(trace: Trace) -> Symptom:
    """A head's loss gives no gradient to a part that should learn from it: its token, the head itself, or LoRA."""
    found: dict[str, float] = {}
    if trace.gradients is not None:
        for head in trace.heads:
            if head in trace.gradients.owners:
                found |= {f"{head} in {part}": norm for part, norm in _reached(trace, head).items()}
    value, where = _lowest(found)
    return Symptom(FROZEN_PART, "gradient norm of a head's loss", "exactly 0 in a part that should learn", value, value == 0, where)


def _reached(trace: Trace, head: str) -> dict[str, float]:
    """Norm of a head's gradient in each part that should learn from it; parts that the stage leaves alone are none."""
    assert trace.gradients is not None
    learning = trace.gradients.modules
    norms = {}
    for prefix in (f"tokens.task.{head}", f"heads.{head}", "llm.lora."):
        meant = [part for part in trace.parts if part.name == prefix or (prefix.endswith(".") and part.name.startswith(prefix))]
        wanted = [part for part in meant if part.trained is None or part.trained > 0]
        if wanted:
            norms[prefix.rstrip(".")] = max(trace.gradients.norm(head, part.name) if part.name in learning else 0.0 for part in wanted)
    return norms


def leaking_label(trace: Trace) -> Symptom:
    """A slot, or the token that a route is predicted from, looks at tokens that it must not see."""
    found: dict[str, float] = {}
    for each in trace.activations.attention:
        name = f"{each.head} {each.kind}"
        found[name] = max(found.get(name, 0.0), each.hidden)
    share, where = _highest(found)
    shown = share is not None and share > MOST_HIDDEN
    return Symptom(LEAKING_LABEL, "attention on tokens that must not be seen", f"above {MOST_HIDDEN:g}", share, shown, where)


SYMPTOMS: Mapping[str, Callable[[Trace], Symptom]] = MappingProxyType(
    {
        LOST_ROW: lost_token_row,
        WRONG_SLOT: wrong_slot,
        SWAPPED_BOX: swapped_box_convention,
        FROZEN_PART: frozen_part,
        LEAKING_LABEL: leaking_label,
    }
)
"""Fault -> what looks for it in a trace."""

EXPLAINED_BY: Mapping[str, frozenset[str]] = MappingProxyType({FROZEN_PART: frozenset({WRONG_SLOT})})
"""A symptom that may be the consequence of another fault: a head that reads another token's state gives its own task token no gradient."""


def _lowest(values: Mapping[str, float]) -> tuple[float | None, str]:
    """The lowest value and its name; None and "" of nothing."""
    if not values:
        return None, ""
    where = min(values, key=lambda name: values[name])
    return values[where], where


def _highest(values: Mapping[str, float]) -> tuple[float | None, str]:
    """The highest value and its name; None and "" of nothing."""
    value, where = _lowest({name: -each for name, each in values.items()})
    return (None, "") if value is None else (values[where], where)
