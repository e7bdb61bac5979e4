"""`python -m tpo_lab` is the command `tpo-lab`."""

from __future__ import annotations

from tpo_lab.cli import main

main()
