"""TPO Lab: the open workbench for Task Preference Optimization (arXiv 2412.19326)."""

from __future__ import annotations

from tpo_lab._version import __version__

__all__ = ["__version__"]
