"""One training step at the real size on a CPU, with random weights: LLaVA-OneVision 7B and VideoChat2 7B in bfloat16, all three heads.

Stage 2 of the region head, then stage 3a on a row that asks every head, each with the optimizer's step: what trains, what gets a gradient,
what changes, and the memory and the arithmetic that it took against what `tpo-lab train --dry-run` counts beforehand.

Runs for many minutes in processes of its own, and only where TPO_REAL_SIZE_ON_CPU is set, to frames of a clip as in
`TPO_REAL_SIZE_ON_CPU=16 make bench`. The frozen language model is moved to a file, so that a system that runs out of memory can put its
pages away; all other memory is limited. Evidence goes to data/evidence/real_size_cpu.json.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tests.benchmarks.test_real_size import llava_7b, sam_folder, stage_of, videochat2_7b, with_heads
from tpo_lab import freeze
from tpo_lab.backbones import Backbone, load_backbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.batch import Batch
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.narrow_weights import EXACT
from tpo_lab.runs import environment
from tpo_lab.schedules import build_optimizer
from tpo_lab.stages import Lora, Stage
from tpo_lab.training.cost.flops import language_flops
from tpo_lab.training.cost.memory import checkpoint_layers, estimate_stage
from tpo_lab.training.steps.micro_batch import TrainingStep

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "data/evidence/real_size_cpu.json"
SWITCH = "TPO_REAL_SIZE_ON_CPU"
THREADS = 2
GIB = 2**30
LEAST_FREE, MOST_WHILE_BUILT, MOST_BESIDE_FILE = 21 * GIB, 20 * GIB, 13 * GIB
LEAST_COUNTED, MOST_COUNTED = 0.85, 1.15
"""What is counted beforehand, as a share of what was measured."""
STAGES = {"2.region": ("region",), "3a": ("region", "temporal", "mask")}
"""Stages, and the heads that their row asks."""
IDLE = {
    "heads.mask": ("adapter.box",),
    "heads.temporal": ("layers.", "decoder.refine", "decoder.scale"),
    "prompts": ("stroke",),
    "vision": ("post_layernorm", ".head."),
}
"""Trained, but without a gradient on these rows: the mask head's box learns by distillation alone; what refines windows has a last layer
that starts at zero, and of the temporal head's layers each branch is dropped for one row in ten, here for the only one; nobody points with
a stroke; and LLaVA takes the features in front of the vision tower's last norm."""
AT_FIRST = {"llm.lora": ("lora_A",)}
"""The same in the first step: an adapter's other half starts at zero."""
SIZES: Mapping[str, Callable[[], Backbone]] = {"llava-7b": llava_7b, "videochat2-7b": videochat2_7b}


def row_of(model: TPOModel, tasks: Sequence[str]) -> Batch:
    """One clip, and a question of each task about it; that of the region head points at a box where it is not the only one."""
    scene, frames = sample_scene(1), Frames(model.backbone)
    asked = [next(s for s in samples_of(scene, (task,)) if bool(s.prompts) == (task == "region")) for task in tasks]
    return model.collate([frames.row(asked)])


def moved_to_file(weights: Sequence[Tensor], file: Path) -> int:
    """Keep the numbers of tensors in a file that is mapped into memory; how many bytes it has."""
    size = sum(weight.nbytes for weight in weights)
    storage, at = torch.UntypedStorage.from_file(str(file), True, size), 0
    for weight in weights:
        inside = torch.tensor([], dtype=weight.dtype).set_(storage, at // weight.element_size(), weight.shape)
        inside.copy_(weight)
        weight.data = inside
        at += weight.nbytes
    return size


def print_of(weight: Tensor) -> int:
    return zlib.crc32(weight.detach().flatten().view(torch.uint8).numpy())


def parameters_by_part(model: TPOModel) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for name, weight in model.named_parts().items():
        first, second, *_ = name.split(".")
        counts[first if first in ("vision", "connector") else f"{first}.{second}"] += weight.numel()
    return dict(counts)


class Resident:
    """The resident memory of this process, and the most that it was since somebody last asked."""

    def __init__(self) -> None:
        self.at_first = psutil.Process().memory_info().rss

    def most_gib(self) -> float:
        """Since the last call, beside what there was at first; what malloc keeps of freed memory is given back for the next one."""
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        Path("/proc/self/clear_refs").write_text("5")
        return (int(status["VmHWM"].split()[0]) * 1024 - self.at_first) / GIB


class Operations(TorchDispatchMode):
    """Counts floating-point operations that are done inside the block: products of matrices and convolutions.

    Attention is left out, whose kernel for a CPU torch cannot count. torch's own counter looks at modules too, and for that keeps the
    gradient of each one's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run an operation, and count it where torch knows how."""
        made = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=made)
        return made


def step_of(model: TPOModel, stage: Stage, batch: Batch, resident: Resident) -> dict[str, Any]:
    """Forward pass, backward pass and the optimizer's step, and what they did."""
    named = model.named_parts()
    model.zero_grad()
    groups = freeze.apply(freeze.FreezePlan.of(stage), named)
    optimizer = build_optimizer(groups, stage)
    step = TrainingStep(model, bf16=stage.precision == "bf16").train()
    before = {name: print_of(weight) for name, weight in named.items()}
    resident.most_gib()
    began = time.perf_counter()
    with Operations() as counter:
        report = step(batch, None, stage.losses)
        forward, most_forward = time.perf_counter() - began, resident.most_gib()
        report.total.backward()
    passes = time.perf_counter() - began
    losses = report.floats()
    del report
    most_backward = resident.most_gib()
    gradients = {name: named[name].grad for group in groups for name in group.names}
    idle = [name for name, gradient in gradients.items() if gradient is None or not bool(gradient.any())]
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients.values() if gradient is not None)
    began = time.perf_counter()
    optimizer.step()
    stepped, most_step = time.perf_counter() - began, resident.most_gib()
    print(f"stage {stage.name}: loss {losses['loss']:.3f}, {passes:.0f} s, {most_step:.2f} GiB", file=sys.stderr, flush=True)
    changed = {name for name, weight in named.items() if print_of(_exact(optimizer, weight)) != _narrow(before, name, optimizer, weight)}
    tokens, learned = int(batch.ids.shape[1]), len(batch.target)
    counted = estimate_stage(model, stage, rows=1, tokens=tokens, learned=learned, checkpointing=True, device="cpu")
    text = model.backbone.model.config.get_text_config()
    trained = any(name.startswith("llm.base.") for name in gradients)
    return {
        "tokens": tokens,
        "learned": learned,
        "loss": losses,
        "trained_parameters": sum(named[name].numel() for name in gradients),
        "tensors_trained": len(gradients),
        "tensors_without_gradient": sorted(idle),
        "gradients_finite": finite,
        "trained_unchanged": sorted(set(gradients) - changed),
        "frozen_changed": sorted(changed - set(gradients)),
        "seconds": {"forward": forward, "backward": passes - forward, "optimizer": stepped},
        "operations": counter.total,
        "language_operations": language_flops(text, rows=1, tokens=tokens, learned=learned, lora=model.lora or Lora(), trained=trained),
        "operations_per_second": counter.total / passes,
        "peak_gib": {"forward": most_forward, "backward": most_backward, "optimizer": most_step},
        "counted_gib": {**counted.gib(), "total": counted.total / GIB},
    }


def _exact(optimizer: Any, weight: Tensor) -> Tensor:
    """The weight that the optimizer keeps in single precision, where it does."""
    kept: Tensor = optimizer.state.get(weight, {}).get(EXACT, weight)
    return kept


def _narrow(before: Mapping[str, int], name: str, optimizer: Any, weight: Tensor) -> int:
    """What its print was; of a weight that is kept exactly, that of its rounded value, unless rounding is all that differs."""
    exact = _exact(optimizer, weight)
    if exact is weight:
        return before[name]
    # a step of 2e-5 may vanish in a rounded weight, and never does in the exact one
    whole = bool((exact == exact.to(weight.dtype).float()).all()) and print_of(weight) == before[name]
    return print_of(exact) if whole else ~0


def measured(backbone: Backbone, sam: str, file: Path, resident: Resident) -> dict[str, Any]:
    """Both stages on a model of any size."""
    built = resident.most_gib()
    kinds = sorted({str(weight.dtype) for weight in backbone.model.parameters()})
    model = with_heads(backbone, sam)
    found = {"backbone_peak_gib": built, "weights": kinds, "heads_peak_gib": resident.most_gib(), "parameters": parameters_by_part(model)}
    base = [weight for name, weight in model.named_parts().items() if name.startswith("llm.base.")]
    found["in_file_gib"] = moved_to_file(base, file) / GIB
    found["moved_peak_gib"] = resident.most_gib()
    checkpoint_layers(model)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    found["stages"] = {name: step_of(model, stage_of(name), row_of(model, tasks), resident) for name, tasks in STAGES.items()}
    found["pages_read_again"] = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults
    return found


def counted_by_measured(stage: Mapping[str, Any]) -> dict[str, float]:
    """What is counted as a share of what was measured. In a first step the optimizer has nothing yet while activations are kept."""
    counted, peak = stage["counted_gib"], stage["peak_gib"]
    always = counted["parameters"] + counted["gradients"]
    passes, optimizer = always + counted["activations"], always + counted["optimizer"]
    return {"passes": passes / max(peak["forward"], peak["backward"]), "optimizer": optimizer / peak["optimizer"]}


def record(size: str, found: Mapping[str, Any]) -> None:
    """Put what was measured of one model among the evidence."""
    stages = {name: {**stage, "counted_by_measured": counted_by_measured(stage)} for name, stage in found["stages"].items()}
    before = json.loads(EVIDENCE.read_text(encoding="utf-8")) if EVIDENCE.exists() else {}
    EVIDENCE.write_text(json.dumps({**before, size: {**found, "stages": stages}}, indent=2) + "\n", encoding="utf-8")


def check(found: Mapping[str, Any]) -> None:
    """Losses and gradients are finite, every part gets its gradient, and what trains changes, and nothing else."""
    for number, (name, stage) in enumerate(found["stages"].items()):
        assert all(torch.tensor(value).isfinite() for value in stage["loss"].values()) and stage["gradients_finite"]
        assert {head.partition("/")[0] for head in stage["loss"]} == {"loss", "mlm", "assign", *STAGES[name]}
        expected = IDLE if number else {**IDLE, **AT_FIRST}
        idle = [each for each in stage["tensors_without_gradient"] if not _is_among(expected, each)]
        still = [each for each in stage["trained_unchanged"] if not _is_among(expected, each)]
        assert (idle, still, stage["frozen_changed"]) == ([], [], [])


def _is_among(expected: Mapping[str, Sequence[str]], name: str) -> bool:
    return any(name.startswith(begin) and any(word in name for word in words) for begin, words in expected.items())


def test_the_same_code_runs_at_a_tiny_size(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_tiny("videochat2", tmp_path / "tiny")), num_frames=3)
    found = measured(backbone, "nano-sam2", tmp_path / "weights", Resident())
    print(json.dumps(found, indent=2))
    check(found)


@pytest.mark.skipif(SWITCH not in os.environ, reason=f"takes many minutes; {SWITCH} says how many frames a clip has")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which tells the peak of resident memory")
@pytest.mark.skipif(psutil.virtual_memory().available < LEAST_FREE, reason="needs 21 GiB of free memory")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("size", SIZES)
def test_seven_billion(size: str, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    # tensors that are freed go back to the system: in a heap, their gaps took up to 2.5 GiB
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    words = [sys.executable, "-W", "ignore", __file__, size, os.environ[SWITCH], str(out)]
    subprocess.run(words, check=True, cwd=ROOT, env=surroundings)
    found = json.loads(out.read_text(encoding="utf-8"))
    record(size, found)
    check(found)
    assert found["weights"] == ["torch.bfloat16"]
    assert found["backbone_peak_gib"] < 1.05 * 2 * sum(found["parameters"][part] for part in ("vision", "connector", "llm.base")) / GIB
    for name, stage in found["stages"].items():
        for part, ratio in counted_by_measured(stage).items():
            assert LEAST_COUNTED < ratio < MOST_COUNTED, (name, part)


def main(size: str, frames: int, out: Path) -> None:
    """Measure one model in this process."""
    from tests.benchmarks import test_real_size

    test_real_size.FRAMES = frames
    torch.set_num_threads(THREADS)
    sam, resident = sam_folder(out.parent), Resident()
    resident.most_gib()
    _limit(MOST_WHILE_BUILT)
    backbone = SIZES[size]()
    _limit(MOST_WHILE_BUILT)
    found = measured(backbone, sam, out.parent / "weights", resident)
    today, machine = datetime.now(timezone.utc).date().isoformat(), psutil.virtual_memory().total / GIB
    versions = {name: value for name, value in environment().items() if name != "command"} | {"transformers": version("transformers")}
    about = {"date": today, "processor": processor(), "memory_gib": machine, "environment": versions, "frames": frames, "rows": 1}
    out.write_text(json.dumps({**about, **found}, indent=2), encoding="utf-8")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _limit(most: int) -> None:
    """More memory of its own than this, and an allocation fails, in place of a process of somebody else."""
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
