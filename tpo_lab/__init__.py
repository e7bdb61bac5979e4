"""TPO Lab: the open workbench for Task Preference Optimization (arXiv 2412.19326).

The names below are imported when they are first used, so that `import tpo_lab` is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpo_lab._version import __version__

if TYPE_CHECKING:
    from tpo_lab.answer import Answer
    from tpo_lab.api import build, load
    from tpo_lab.evaluation import Evaluation, evaluate
    from tpo_lab.model import TPOModel
    from tpo_lab.probes import Trace, probe
    from tpo_lab.recipes import Recipe, recipe
    from tpo_lab.sample import Sample, read, validate, write
    from tpo_lab.serving import ask_many
    from tpo_lab.tracking import track
    from tpo_lab.training import TrainingOptions, fit

_HOME = {
    "Answer": "answer",
    "Evaluation": "evaluation",
    "Recipe": "recipes",
    "Sample": "sample",
    "TPOModel": "model",
    "Trace": "probes",
    "TrainingOptions": "training",
    "ask_many": "serving",
    "build": "api",
    "evaluate": "evaluation",
    "fit": "training",
    "load": "api",
    "probe": "probes",
    "read": "sample",
    "recipe": "recipes",
    "track": "tracking",
    "validate": "sample",
    "write": "sample",
}

__all__ = [
    "Answer",
    "Evaluation",
    "Recipe",
    "Sample",
    "TPOModel",
    "Trace",
    "TrainingOptions",
    "__version__",
    "ask_many",
    "build",
    "evaluate",
    "fit",
    "load",
    "probe",
    "read",
    "recipe",
    "track",
    "validate",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tpo_lab' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(f"tpo_lab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
