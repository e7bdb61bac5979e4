"""The form of a sweep file: what it may say, and one clear sentence for everything else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tpo_lab import reruns
from tpo_lab.errors import UsageError
from tpo_lab.reruns.plan.job import Job, Limits
from tpo_lab.reruns.plan.sweep import Range, Sweep

WHOLE = """
name: region-rate
chain:
  - {notebook: one.ipynb, parameters: {steps: 4}}
  - {notebook: two.ipynb, name: second, takes: {checkpoint: best.checkpoint}, after: one}
parameters: {fast: true}
random: {points: 3, seed: 5, over: {steps: {low: 4, high: 64, log: true}, rate: {low: 1e-4, high: 1}, mode: [a, b]}}
seeds: [0, 1]
baseline: {mode: a}
inputs: [data/train.jsonl]
limits: {memory_gb: 8, minutes: 0.5}
trackers: [tensorboard]
"""


def test_every_field_is_read(write_sweep: Callable[..., Path], tmp_path: Path):
    sweep = Sweep.read(write_sweep(WHOLE))
    assert (sweep.name, sweep.folder, sweep.seeds, sweep.trackers) == ("region-rate", tmp_path, [0, 1], ["tensorboard"])
    assert [link.label for link in sweep.links] == ["one", "second"]
    assert sweep.links[1].takes == {"checkpoint": "best.checkpoint"}
    assert sweep.run_limits == Limits(memory_gb=8.0, minutes=0.5)
    assert sweep.random is not None and sweep.random.over["rate"] == Range(low=1e-4, high=1)
    assert sweep.random.over["mode"] == ["a", "b"]


def test_a_sweep_survives_a_round_trip_through_json(write_sweep: Callable[..., Path]):
    sweep = Sweep.read(write_sweep(WHOLE))
    assert Sweep.of(json.loads(json.dumps(sweep.to_dict()))) == sweep


def test_the_name_is_the_files_stem_and_a_notebook_is_a_chain_of_one(write_sweep: Callable[..., Path]):
    sweep = Sweep.read(write_sweep("notebook: folder/first.try.ipynb", "my sweep.yaml"))
    assert sweep.name == "my sweep" and [link.label for link in sweep.links] == ["first.try"]
    assert sweep.run_limits == Limits() and sweep.seeds is None


def test_a_job_survives_a_round_trip_through_json():
    job = Job("0" * 16, "n a=1 seed=2", "n", "/n.ipynb", {"a": 1}, 2, {"a": 1, "seed": 2}, "1" * 16, {"b": "c.d"}, ("/x",), Limits(2.0))
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


BAD = {
    "not YAML": ("notebook: [1", r"sweep.yaml, line 1: expected YAML, got"),
    "a tab": ("grid:\n\ta: [1]", r"sweep.yaml, line 2: expected YAML, got"),
    "a key twice": ("notebook: n\nnotebook: m", r"line 2: expected YAML, got \"the key 'notebook' twice\""),
    "a key that is a list": ("? [1, 2]\n: 3", r"line 1: expected YAML, got 'the key \[1, 2\], which is no text'"),
    "a date that is none": ("name: 2024-13-45", r"expected YAML, got 'month must be in 1..12"),
    "two documents": ("notebook: n\n---\nnotebook: m", r"line 2: expected YAML"),
    "empty": ("", r"sweep.yaml: expected fields of a sweep such as `notebook: 20_region_head`, got None"),
    "a list": ("- notebook", r"sweep.yaml: expected fields of a sweep such as .* got \['notebook'\]"),
    "unknown field": ("notebook: n\nseedz: [1]", r"sweep.yaml: field: expected one of baseline, .* got 'seedz'. Did you mean 'seeds'"),
    "the field for the file": ("notebook: n\nfile: x", r"sweep.yaml: field: expected one of baseline, chain, .* got 'file'"),
    "unknown field of a link": ("chain: [{notebook: n, take: {}}]", r"chain\[0\]: expected one of .* got 'take'. Did you mean 'takes'"),
    "unknown field of limits": ("notebook: n\nlimits: {memory: 1}", r"limits: expected one of memory_gb, minutes, got 'memory'"),
    "unknown field of a range": (
        "notebook: n\nrandom: {points: 1, over: {a: {low: 1, hihg: 2}}}",
        r"random\.over\.a: expected the field 'high', got 'none'",
    ),
    "misspelt beside a whole range": (
        "notebook: n\nrandom: {points: 1, over: {a: {low: 1, high: 2, logg: true}}}",
        r"random\.over\.a: expected one of high, log, low, got 'logg'. Did you mean",
    ),
    "no notebook": ("grid: {a: [1]}", r"what runs: expected one of notebook, chain, got 'none'"),
    "notebook and chain": ("notebook: n\nchain: [{notebook: m}]", r"what runs: expected one of notebook, chain, got 'notebook and chain'"),
    "a link without notebook": ("chain: [{name: a}]", r"chain\[0\]: expected the field 'notebook', got 'none'"),
    "grid and list": (
        "notebook: n\ngrid: {a: [1]}\nlist: [{a: 1}]",
        r"what is swept: expected at most one of grid, list, random, optuna, got 'grid and list'",
    ),
    "empty grid": ("notebook: n\ngrid: {}", r"sweep.yaml: grid: expected at least one entry, got {}"),
    "empty axis": ("notebook: n\ngrid: {a: []}", r"grid\.a: expected at least one entry, got \[\]"),
    "axis without list": ("notebook: n\ngrid: {a: 10}", r"grid\.a: expected a list, got 10. Write it as \[10\]"),
    "grid as a list": ("notebook: n\ngrid: [{a: 1}]", r"grid: expected names and values, got \[{'a': 1}\]"),
    "empty list": ("notebook: n\nlist: []", r"sweep.yaml: list: expected at least one entry, got \[\]"),
    "empty chain": ("chain: []", r"chain: expected at least one entry, got \[\]"),
    "empty seeds": ("notebook: n\nseeds: []", r"seeds: expected at least one entry, got \[\]"),
    "one seed without list": ("notebook: n\nseeds: 3", r"seeds: expected a list, got 3. Write it as \[3\]"),
    "seed twice": ("notebook: n\nseeds: [0, 1, 0]", r"seeds\[2\]: expected each one once, got 0"),
    "seed of another type": ("notebook: n\nseeds: [0, 1.5]", r"seeds\[1\]: expected a whole number, got 1\.5"),
    "seed that is a truth value": ("notebook: n\nseeds: [yes]", r"seeds\[0\]: expected a whole number, got True"),
    "low above high": ("notebook: n\nrandom: {points: 1, over: {a: {low: 2, high: 1}}}", r"random\.over\.a: expected low < high, got"),
    "log from zero": (
        "notebook: n\nrandom: {points: 1, over: {a: {low: 0, high: 1, log: true}}}",
        r"random\.over\.a: expected low > 0 where log is true, got",
    ),
    "bound as a word": (
        "notebook: n\nrandom: {points: 1, over: {a: {low: x, high: 1}}}",
        r"random\.over\.a\.low: expected a number, got 'x'",
    ),
    "bound without end": ("notebook: n\nrandom: {points: 1, over: {a: {low: 0, high: .inf}}}", r"over\.a\.high: expected a finite number"),
    "neither range nor list": ("notebook: n\nrandom: {points: 1, over: {a: 3}}", r"over\.a: expected a list of choices or {low: "),
    "no axis": ("notebook: n\nrandom: {points: 1, over: {}}", r"random\.over: expected at least one entry"),
    "no points": ("notebook: n\nrandom: {points: 0, over: {a: [1]}}", r"random\.points: expected greater than 0, got 0"),
    "a direction": (
        "notebook: n\noptuna: {trials: 1, metric: m, direction: up, over: {a: [1]}}",
        r"optuna\.direction: expected 'minimize' or",
    ),
    "no metric": (
        "notebook: n\noptuna: {trials: 1, direction: minimize, over: {a: [1]}}",
        r"optuna: expected the field 'metric', got 'none'",
    ),
    "a baseline of optuna": (
        "notebook: n\nbaseline: {a: 1}\noptuna: {trials: 1, metric: m, direction: minimize, over: {a: [1]}}",
        r"baseline: expected none with optuna, got {'a': 1}",
    ),
    "unknown tracker": (
        "notebook: n\ntrackers: [tensorbord]",
        r"trackers: expected one of .* got 'tensorbord'. Did you mean 'tensorboard'",
    ),
    "an input twice": ("notebook: n\ninputs: [a, b, a]", r"inputs\[2\]: expected each one once, got 'a'"),
    "negative limit": ("notebook: n\nlimits: {minutes: -1}", r"limits\.minutes: expected greater than 0, got -1"),
    "a name that leaves the folder": ("notebook: n\nname: ../x", r"name: expected letters, digits, .* got '\.\./x'"),
    "a name that YAML takes for a truth value": (
        "notebook: n\nname: off",
        r"name: expected text, got False. YAML reads yes, no, on and off",
    ),
    "a field that YAML takes for a truth value": (
        "notebook: n\non: 3",
        r"line 2: expected YAML, got 'the key True, which is no text \(YAML reads yes",
    ),
    "a parameter that YAML takes for a truth value": (
        "notebook: n\ngrid: {on: [3]}",
        r"line 2: expected YAML, got 'the key True, which is no text",
    ),
    "a notebook that is a number": ("notebook: 10", r"notebook: expected text, got 10"),
    "a field taken that is no text": ("chain: [{notebook: n, takes: {a: 3}}]", r"chain\[0\]\.takes\.a: expected text, got 3"),
    "a list that holds itself": ("notebook: n\ngrid: &a {x: *a}", r"grid"),
}


@pytest.mark.parametrize(("text", "sentence"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_sentence_with_file_and_field(write_sweep: Callable[..., Path], text: str, sentence: str):
    with pytest.raises(UsageError, match=sentence) as caught:
        Sweep.read(write_sweep(text))
    message = str(caught.value)
    assert "sweep.yaml" in message and "\n" not in message and "pydantic" not in message and len(message) < 500


def test_a_missing_file_a_folder_and_bytes_are_no_sweep(tmp_path: Path):
    with pytest.raises(UsageError, match=r"sweep: expected a YAML file, got '.*none.yaml'. No such file or directory"):
        Sweep.read(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"sweep: expected a YAML file, got .*Is a directory"):
        Sweep.read(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match=re.escape("bytes.yaml: expected YAML")):
        Sweep.read(tmp_path / "bytes.yaml")


def test_every_public_name_is_there():
    assert all(getattr(reruns, name) is not None for name in reruns.__all__) and dir(reruns) == reruns.__all__
    with pytest.raises(AttributeError, match=r"'tpo_lab.reruns' has no attribute 'Sweeep'; it has .*Sweep"):
        reruns.Sweeep  # noqa: B018


def test_reading_a_sweep_imports_nothing_heavy():
    code = "import sys, tpo_lab.reruns.plan.sweep, tpo_lab.reruns.plan.job; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]
