"""Recipes by name or from a file; one module per preset, and `base` for what a recipe is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tpo_lab.errors import unknown_name
from tpo_lab.recipes.base import Recipe
from tpo_lab.recipes.nano import nano, nano_long
from tpo_lab.recipes.official import official
from tpo_lab.recipes.paper import paper, paper_text

__all__ = ["PRESETS", "Recipe", "recipe"]

PRESETS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {"paper": paper, "paper-text": paper_text, "official": official, "nano": nano, "nano-long": nano_long}
)


def recipe(name: str | Path) -> Recipe:
    """A preset by its name, or the recipe in a .json or .toml file.

    Raises:
        UsageError: neither a preset nor such a file; or the file holds what a recipe refuses.
    """
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]()
    if Path(name).suffix in (".json", ".toml"):
        return Recipe.load(name)
    raise unknown_name("recipe", str(name), [*PRESETS, "a .json or .toml file"])
