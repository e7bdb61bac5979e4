"""Probes: one step and one answer measured from outside the model, as a record that every view and test draws from.

`probe` makes a `Trace`; `compare` sets a model's parts beside another's; `symptoms` says which quantity of a trace points to which fault;
`plant` puts a known fault into a model, with a way back.
"""

from __future__ import annotations

from tpo_lab.probes.faults import FAULTS, Planted, plant
from tpo_lab.probes.mysteries import Mystery, mysteries, wrong_letters
from tpo_lab.probes.parts import Difference, compare
from tpo_lab.probes.probing import probe
from tpo_lab.probes.symptoms import Symptom, diagnosis, symptom, symptoms
from tpo_lab.probes.trace import Trace

__all__ = [
    "FAULTS",
    "Difference",
    "Mystery",
    "Planted",
    "Symptom",
    "Trace",
    "compare",
    "diagnosis",
    "mysteries",
    "plant",
    "probe",
    "symptom",
    "symptoms",
    "wrong_letters",
]
