"""Training on what is loaded so: bit by bit the same with workers, and without the samples that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.loading.small_films import stage
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.model import TPOModel
from tpo_lab.recipes import Recipe
from tpo_lab.runs import RunFolder
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora
from tpo_lab.training import Interrupted, TrainingOptions, fit


def recipe(**changes: Any) -> Recipe:
    lora = Lora(rank=2, dropout=0.2, targets=("q_proj",))
    return Recipe(name="small", stages=(stage(**{"steps": 6, "batch_size": 2, **changes}),), lora=lora, frames=4, resolution=64)


def trained(build: Callable[..., TPOModel], samples: list[Sample], out: Path, *, resume: bool = False, **options: Any) -> Any:
    changes = options.pop("stage", {})
    listener = options.pop("listener", None)
    model = build(("region",))
    run = fit(model, samples, recipe(**changes), out, options=TrainingOptions(**options), resume=resume, listener=listener)
    return {name: parameter.detach().clone() for name, parameter in model.named_parts().items()}, metrics(run)


def metrics(run: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mib", "cuda_mib")} for line in run.metrics()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stop_after(step: int) -> Callable[..., None]:
    import os
    import signal

    def listener(name: str, number: int, total: int, report: Any) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGINT)

    return listener


def test_workers_and_stored_frames_change_no_bit(build_tiny: Any, films: list[Sample], tmp_path: Path) -> None:
    plain, lines = trained(build_tiny, films, tmp_path / "plain")
    for name, options in {
        "workers": {"workers": 2},
        "stored": {"frame_cache": str(tmp_path / "frames")},
        "both": {"workers": 2, "prefetch": 1, "frame_cache": str(tmp_path / "frames")},
    }.items():
        weights, found = trained(build_tiny, films, tmp_path / name, **options)
        assert [n for n in plain if not torch.equal(plain[n], weights[n])] == [] and found == lines
    assert list((tmp_path / "frames").rglob("*.safetensors"))


@pytest.mark.parametrize("count", [0, 3])
def test_resume_is_exact_with_another_number_of_workers_and_with_bad_files(
    build_tiny: Any, damaged: Callable[..., list[Sample]], tmp_path: Path, count: int
) -> None:
    samples = damaged(count)
    settings = {"on_bad": "skip", "max_dropped": ""}
    straight, lines = trained(build_tiny, samples, tmp_path / "straight", workers=0, **settings)
    with pytest.raises(Interrupted):
        trained(build_tiny, samples, tmp_path / "run", workers=2, listener=stop_after(3), **settings)
    weights, found = trained(build_tiny, samples, tmp_path / "run", workers=1, resume=True, **settings)
    assert same(weights, straight) and found == lines
    dropped = [tmp_path / run / "dropped.jsonl" for run in ("straight", "run")]
    if count:
        assert dropped[0].read_text() == dropped[1].read_text() != ""
    else:
        assert not any(path.exists() for path in dropped)


def test_metrics_count_what_each_step_did_without(build_tiny: Any, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
    _, lines = trained(build_tiny, damaged(4), tmp_path / "run", on_bad="skip", max_dropped="", workers=1)
    listed = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    assert listed
    for line in lines:
        assert line.get("dropped", 0) == sum(each["step"] == line["step"] for each in listed)


def test_steps_without_any_row_are_steps_that_change_nothing(build_tiny: Any, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
    before = {name: parameter.detach().clone() for name, parameter in build_tiny(("region",)).named_parts().items()}
    after, lines = trained(build_tiny, damaged(99), tmp_path / "run", on_bad="skip", max_dropped="", stage={"weight_decay": 0.1})
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["dropped"] > 0 for line in lines)
    after = {name.replace(".base_layer.", "."): weight for name, weight in after.items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_job_ends_where_too_many_are_missing(build_tiny: Any, damaged: Callable[..., list[Sample]], tmp_path: Path) -> None:
    with pytest.raises(TPOError, match=r"samples were left out because their clips cannot be read, more than --max-dropped 1%\."):
        trained(build_tiny, damaged(5), tmp_path / "run", on_bad="skip", workers=1)
    with pytest.raises(TPOError, match=r"^stage 2\.region, step \d, sample .*: .*\.mp4: expected .* --on-bad skip"):
        trained(build_tiny, damaged(5), tmp_path / "other", workers=1)


def test_gradients_are_measured_on_the_samples_that_can_be_read(
    build_tiny: Any, damaged: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    samples = damaged(6)
    bad = {sample.id for sample in samples if sample.media_path.stat().st_size == 40}
    settings = {"on_bad": "skip", "max_dropped": "", "probe_every": 3, "probe_samples": 8}
    probed, lines = trained(build_tiny, samples, tmp_path / "run", **settings)
    measured = [json.loads(line)["samples"] for line in (tmp_path / "run" / "probes.jsonl").read_text().splitlines()]
    assert len(measured) == 3 and all(ids and not bad & set(ids) and len(ids) < 8 for ids in measured)
    plain, found = trained(build_tiny, samples, tmp_path / "plain", on_bad="skip", max_dropped="")
    assert same(probed, plain) and found == lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers: expected at least 0, got -1"),
        ({"prefetch": 0}, "prefetch: expected at least 1, got 0"),
        ({"on_bad": "skipp"}, "on_bad: expected one of raise, skip, got 'skipp'. Did you mean 'skip'?"),
        ({"on_corrupt": "drp"}, "Did you mean 'drop'?"),
        ({"max_dropped": "1 %"}, "--max-dropped: expected a number of records, or a share such as 1%, got '1 %'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainingOptions(**options)
    assert message in str(caught.value)
