"""The main job, offline: make data, take the nano base through every stage by running the notebooks, evaluate, write a report."""

from __future__ import annotations

from tpo_lab.demo.job import run
from tpo_lab.demo.settings import FULL, LONG, SMOKE, DemoSettings
from tpo_lab.demo.world import world_data

__all__ = ["FULL", "LONG", "SMOKE", "DemoSettings", "run", "world_data"]
