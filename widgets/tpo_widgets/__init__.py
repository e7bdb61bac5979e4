"""The views of TPO Lab: each draws a sample, an answer or a step record of `tpo_lab` in a notebook, and computes nothing itself.

`tpo_lab` never imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpo_widgets.gradients.view import GradientView
    from tpo_widgets.group import Together, together
    from tpo_widgets.heads.view import HeadView
    from tpo_widgets.playhead import Playhead
    from tpo_widgets.prompts.pad import PromptPad
    from tpo_widgets.runs.view import RunsView
    from tpo_widgets.stages.view import StageView
    from tpo_widgets.tokens.view import TokenView
    from tpo_widgets.view import View

_HOME = {
    "GradientView": "gradients.view",
    "HeadView": "heads.view",
    "Playhead": "playhead",
    "PromptPad": "prompts.pad",
    "RunsView": "runs.view",
    "StageView": "stages.view",
    "Together": "group",
    "TokenView": "tokens.view",
    "View": "view",
    "together": "group",
}

__all__ = ["GradientView", "HeadView", "Playhead", "PromptPad", "RunsView", "StageView", "Together", "TokenView", "View", "together"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tpo_widgets' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    return getattr(import_module(f"tpo_widgets.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
