"""The notebooks of a sweep, found and read: their order, what they declare, and which of them a name of the sweep reaches.

The more specific wins: what a link sets or takes itself is not touched by a name that goes to every link.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tpo_lab import notebooks
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.notebooks import Parameter
from tpo_lab.reruns.plan.sweep import Link, Sweep
from tpo_lab.reruns.plan.values import typed

OUT, SEED = "out", "seed"


@dataclass(frozen=True)
class ReadLink:
    """A link whose notebook was found and read.

    Attributes:
        link: as the sweep has it.
        field: where it stands in the sweep file: "chain[1]", or "" for a single notebook.
        path: of its notebook.
        declared: the notebook's parameters.
        after: label of the link that must be done before, or None.
    """

    link: Link
    field: str
    path: Path
    declared: Mapping[str, Parameter]
    after: str | None

    @property
    def own(self) -> set[str]:
        """Parameters that the link sets or takes itself."""
        return {*self.link.parameters, *self.link.takes}


class Chain:
    """The links of a sweep by label, each after the one that it follows.

    Raises:
        UsageError: a notebook is missing or unreadable, two links share a name, links form a cycle, or a link's own parameters are not
            what its notebook declares.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        _check_labels(sweep)
        read = {link.label: _read(sweep, place) for place, link in enumerate(sweep.links)}
        self.links = _in_order(sweep, read)
        for link in self.links.values():
            self._check(link)

    @cached_property
    def declared(self) -> set[str]:
        """Every parameter that a sweep may set."""
        return {name for link in self.links.values() for name in link.declared} - {OUT}

    def reached(self, name: str, field: str, beside: Collection[str] = ()) -> dict[str, str]:
        """Label -> parameter, for the links that a fixed or swept name goes to.

        Args:
            name: a parameter, or `link.parameter`.
            field: of the sweep file, for messages.
            beside: names that are set with it: `a.steps` takes the link `a` away from `steps`.

        Raises:
            UsageError: no link declares it, or each link that does has a value of its own.
        """
        self._refuse_out(name.rpartition(".")[2], field)
        if "." in name:
            return self._qualified(name, field)
        if name not in self.declared:
            raise unknown_name(f"{self.sweep.file}: {field}", name, self.declared)
        found = {label: name for label, link in self.links.items() if name in link.declared and name not in link.own}
        if not found:
            owners = " and ".join(label for label, link in self.links.items() if name in link.own)
            raise self.sweep.wrong(field, expected="a parameter that is not fixed", got=name, hint=f"The link {owners} sets it itself.")
        return {label: name for label in found if f"{label}.{name}" not in beside}

    def _qualified(self, name: str, field: str) -> dict[str, str]:
        label, _, parameter = name.rpartition(".")
        if label not in self.links:
            raise unknown_name(f"{self.sweep.file}: {field}: link", label, self.links)
        link = self.links[label]
        if parameter not in link.declared:
            raise unknown_name(f"{self.sweep.file}: {field}", name, (f"{label}.{each}" for each in link.declared if each != OUT))
        if parameter in link.own:
            raise self.sweep.wrong(field, expected="a parameter that is not fixed", got=name, hint=f"The link {label} sets it itself.")
        return {label: parameter}

    def typed(self, name: str, value: Any, field: str) -> Any:
        """A value for a fixed or swept name, as the type that the links declare.

        Raises:
            UsageError: a link that gets it declares another type.
        """
        types = {self.links[label].declared[parameter] for label, parameter in self.reached(name, field).items()}
        # int before float: a name that goes to both must be whole
        for parameter in sorted(types, key=lambda each: each.type == "float"):
            checked = typed(f"{self.sweep.file}: {field}", parameter, value)
            value = value if parameter.type == "float" and len({each.type for each in types}) > 1 else checked
        return value

    def type_of(self, name: str, field: str) -> str:
        """The declared type of a name: "int" where one of the links that get it wants whole numbers."""
        types = {self.links[label].declared[parameter].type for label, parameter in self.reached(name, field).items()}
        return "int" if "int" in types else sorted(types)[0]

    def seeded(self) -> set[str]:
        """The links that the sweep's seeds go to."""
        if self.sweep.seeds is None:
            return set()
        found = self.reached(SEED, "seeds")
        for label in found:
            if self.links[label].declared[SEED].type != "int":
                raise self.sweep.wrong("seeds", expected="a parameter `seed` of type int", got=self.links[label].declared[SEED].type)
        return set(found)

    def _refuse_out(self, parameter: str, field: str) -> None:
        if parameter == OUT:
            raise self.sweep.wrong(field, expected="any parameter but `out`", got=OUT, hint="Each run gets a folder of its own.")

    def _check(self, link: ReadLink) -> None:
        field, sweep = f"{link.field}.".removeprefix("."), self.sweep
        if OUT not in link.declared or link.declared[OUT].type != "str":
            raise sweep.wrong(f"{field}notebook", expected="a notebook with the parameter `out: str`", got=link.link.notebook)
        for kind, names in (("parameters", link.link.parameters), ("takes", link.link.takes)):
            for name in names:
                self._refuse_out(name, f"{field}{kind}")
                if name not in link.declared:
                    raise unknown_name(f"{sweep.file}: {field}{kind}", name, set(link.declared) - {OUT})
        for name, value in link.link.parameters.items():
            typed(f"{sweep.file}: {field}parameters.{name}", link.declared[name], value)
            if name in link.link.takes:
                raise sweep.wrong(f"{field}takes", expected="a parameter that is not fixed", got=name)
        if link.link.takes and link.after is None:
            raise sweep.wrong(f"{field}takes", expected="nothing, since no link stands before", got=link.link.takes)


def _check_labels(sweep: Sweep) -> None:
    labels = [link.label for link in sweep.links]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise sweep.wrong(f"chain[{place}]", expected="a name of its own", got=label, hint="Give the link a `name:`.")


def _read(sweep: Sweep, place: int) -> ReadLink:
    link, field = sweep.links[place], "" if sweep.chain is None else f"chain[{place}]"
    path = _found(sweep, link.notebook, f"{field}.notebook".removeprefix("."))
    return ReadLink(link, field, path, _declared(sweep, path, f"{field}.notebook".removeprefix(".")), _predecessor(sweep, place))


def _found(sweep: Sweep, name: str, field: str) -> Path:
    if not (name.endswith(".ipynb") or "/" in name or "\\" in name):
        try:
            return notebooks.find(name)
        except UsageError as error:
            raise UsageError(f"{sweep.file}: {field}", expected=error.expected, got=name, hint=error.hint) from None
    path = sweep.folder / name
    if not path.is_file():
        beside = [each.name for each in path.parent.glob("*.ipynb")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else "Shipped notebooks are named without .ipynb."
        raise sweep.wrong(field, expected=f"a notebook in {path.parent}", got=name, hint=hint)
    return path


def _declared(sweep: Sweep, path: Path, field: str) -> dict[str, Parameter]:
    try:
        return notebooks.parameters(path)
    except UsageError as error:
        raise UsageError(f"{sweep.file}: {field}: {error.argument}", expected=error.expected, got=error.got) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        hint = f"{type(error).__name__}: {error}."
        raise sweep.wrong(field, expected="a notebook (.ipynb) with a cell of parameters", got=path.name, hint=hint) from None


def _predecessor(sweep: Sweep, place: int) -> str | None:
    link, labels = sweep.links[place], [each.label for each in sweep.links]
    if not link.after:
        return labels[place - 1] if place else None
    if link.after not in labels:
        raise unknown_name(f"{sweep.file}: chain[{place}].after", link.after, labels)
    return link.after


def _in_order(sweep: Sweep, links: Mapping[str, ReadLink]) -> dict[str, ReadLink]:
    ordered: dict[str, ReadLink] = {}
    while len(ordered) < len(links):
        ready = {label: link for label, link in links.items() if label not in ordered and (link.after is None or link.after in ordered)}
        if not ready:
            raise sweep.wrong("chain", expected="links without a cycle", got=_cycle({k: v for k, v in links.items() if k not in ordered}))
        ordered |= ready
    return ordered


def _cycle(links: Mapping[str, ReadLink]) -> str:
    path = [next(iter(links))]
    while path.count(path[-1]) < 2:
        path.append(str(links[path[-1]].after))
    return " after ".join(path[path.index(path[-1]) :])
