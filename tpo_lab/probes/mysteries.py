"""Models with a fault each, under letters that do not tell which: the patients of the debugging notebook."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from string import ascii_uppercase

from tpo_lab.errors import unknown_name
from tpo_lab.model import TPOModel
from tpo_lab.probes.faults import FAULTS, Planted, plant


class Mystery:
    """A copy of a model with one fault in it.

    Attributes:
        letter: its name.
        model: to be looked at.
    """

    def __init__(self, letter: str, model: TPOModel, planted: Planted) -> None:
        self.letter, self.model, self._planted = letter, model, planted

    def has(self, fault: str) -> bool:
        """Whether this is the fault that was planted, repaired or not.

        Raises:
            UsageError: no fault of that name.
        """
        if fault not in FAULTS:
            raise unknown_name("fault", fault, FAULTS)
        return fault == self._planted.fault

    def treat(self, fault: str) -> bool:
        """Repair what this fault breaks, and say whether that was it; another fault's repair changes nothing.

        Raises:
            UsageError: no fault of that name.
        """
        right = self.has(fault)
        if right:
            self._planted.repair()
        return right

    def __repr__(self) -> str:
        return f"Mystery({self.letter})"


def mysteries(model: TPOModel, *, seed: int = 0) -> dict[str, Mystery]:
    """One copy of the model per fault, by letters in an order that the seed decides; the model itself stays sound."""
    faults = list(FAULTS)
    random.Random(f"{seed}/mysteries").shuffle(faults)
    patients = {}
    for letter, fault in zip(ascii_uppercase, faults, strict=False):
        twin = copy.deepcopy(model)
        patients[letter] = Mystery(letter, twin, plant(twin, fault))
    return patients


def wrong_letters(patients: Mapping[str, Mystery], diagnosis: Mapping[str, str]) -> list[str]:
    """The letters whose fault a diagnosis has not, or has wrong.

    Raises:
        UsageError: a letter that no patient has, or no fault of that name.
    """
    for letter in diagnosis:
        if letter not in patients:
            raise unknown_name("letter", letter, patients)
    return [letter for letter, patient in patients.items() if letter not in diagnosis or not patient.has(diagnosis[letter])]
