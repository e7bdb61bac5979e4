"""The views of TPO Lab: each draws one step record of `tpo_lab` in a notebook and computes nothing itself.

The room is built before its furniture. It will hold `HeadView` (what each head predicts over the frames, ground truth
beside it), `GradientView` (which loss moves which module, and where two heads pull against each other), a prompt
canvas for boxes, points and scribbles, and a view of the task tokens. `tpo_lab` never imports this package.
"""

from __future__ import annotations

__all__: list[str] = []
