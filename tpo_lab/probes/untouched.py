"""A model is left exactly as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tpo_lab.model import TPOModel


@contextmanager
def untouched(model: TPOModel) -> Iterator[None]:
    """Inside: evaluation mode. Afterwards every module's mode, all gradients, `requires_grad` and random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, learns, gradient in states:
                parameter.requires_grad_(learns)
                parameter.grad = gradient
            np.random.set_state(numpy_state)
            random.setstate(python_state)
