"""What the notebooks of the course compute and the library needs nowhere else: parts switched off, and what that does."""

from __future__ import annotations
