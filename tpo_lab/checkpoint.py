"""Checkpoints that lose nothing: what was trained, the heads, the token rows, and how to build the rest again.

A folder of safetensors and JSON; `tpo_lab.checkpoints.layout` says which files there are.
"""

from tpo_lab.checkpoints.audit import audit
from tpo_lab.checkpoints.config import read_config
from tpo_lab.checkpoints.contents import changed_parts, everything, fingerprint, restore
from tpo_lab.checkpoints.kept import latest
from tpo_lab.checkpoints.layout import FIRST_SCHEMA, SCHEMA
from tpo_lab.checkpoints.loading import load, read_weights
from tpo_lab.checkpoints.outputs import fixed_outputs
from tpo_lab.checkpoints.saving import save

__all__ = [
    "FIRST_SCHEMA",
    "SCHEMA",
    "audit",
    "changed_parts",
    "everything",
    "fingerprint",
    "fixed_outputs",
    "latest",
    "load",
    "read_config",
    "read_weights",
    "restore",
    "save",
]
