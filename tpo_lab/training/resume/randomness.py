"""Every source of random numbers that training may use, as it is now."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """Of one process.

    Attributes:
        tensors: the states of "torch", "cuda" (of this process's device, where there is one), "python" and "numpy".
        plain: the few numbers of python's and numpy's that are no part of a table; JSON-ready.
    """

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]

    @classmethod
    def now(cls) -> RandomState:
        """As it is."""
        version, words, normal = random.getstate()
        state = np.random.get_state(legacy=False)
        assert isinstance(state, dict)
        tensors = {
            "torch": torch.get_rng_state(),
            "python": torch.tensor(words, dtype=torch.int64),
            "numpy": torch.from_numpy(state["state"]["key"].astype(np.int64)),
        }
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        rest = {"place": state["state"]["pos"], "has_gauss": state["has_gauss"], "gauss": state["gauss"]}
        return cls(tensors, {"python": {"version": version, "normal": normal}, "numpy": rest})

    def put_back(self) -> None:
        """Make it so again; a device's only where the state has one and there is a device."""
        torch.set_rng_state(self.tensors["torch"])
        python, numpy = self.plain["python"], self.plain["numpy"]
        random.setstate((python["version"], tuple(self.tensors["python"].tolist()), python["normal"]))
        keys = self.tensors["numpy"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, numpy["place"], numpy["has_gauss"], numpy["gauss"]))
        if "cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["cuda"])


def seed_everything(seed: int) -> None:
    """Begin every source anew."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
