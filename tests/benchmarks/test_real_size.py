"""Training steps at the real size with random weights: LLaVA-OneVision 7B and VideoChat2 7B, 16 frames, LoRA of rank 16, bfloat16.

All three heads train.

Needs a GPU; without one the same code runs at a tiny size, which measures nothing but that it runs. What was measured is written to
data/evidence/real_size.json, with date, device and versions. `test_real_size_on_cpu.py` takes the same models through a step on a CPU.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

import tpo_lab as tpo
from tpo_lab.backbones import Backbone, load_backbone
from tpo_lab.backbones.counting import llava_onevision_7b
from tpo_lab.backbones.llava_onevision import LlavaOnevisionBackbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.backbones.tiny.llava_onevision import SPECIAL_TOKENS
from tpo_lab.backbones.tiny.tokenizer import tiny_tokenizer
from tpo_lab.batch import Batch
from tpo_lab.datasets.world.samples import samples_of
from tpo_lab.datasets.world.scene import sample_scene
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.runs import environment
from tpo_lab.stages import Stage
from tpo_lab.training.cost.memory import checkpoint_layers, estimate_stage
from tpo_lab.training.cost.throughput import Throughput, measured_throughput, without_heads

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(3600)]

EVIDENCE = Path("data/evidence/real_size.json")
FRAMES, ROWS = 16, 4
LEAST_UTILISATION, MOST_ADDED, MOST_GIB = 0.40, 0.15, 80
TASKS = ("region", "temporal", "mask")


def llava_7b() -> Backbone:
    from transformers import LlavaOnevisionForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", pad="<|endoftext|>")
    config: Any = llava_onevision_7b()
    config.video_token_id = tokenizer.convert_tokens_to_ids("<video>")
    return LlavaOnevisionBackbone(_drawn(LlavaOnevisionForConditionalGeneration, config), tokenizer, name="llava-7b", num_frames=FRAMES)


def videochat2_7b() -> Backbone:
    from tpo_lab.backbones.tiny.videochat2 import SPECIAL_TOKENS
    from tpo_lab.backbones.videochat2 import VideoChat2Backbone
    from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
    from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration

    tokenizer = tiny_tokenizer(SPECIAL_TOKENS, end="</s>", pad="<unk>")
    tokenizer.bos_token, tokenizer.unk_token = "<s>", "<unk>"
    model = _drawn(VideoChat2ForConditionalGeneration, VideoChat2Config())
    return VideoChat2Backbone(model, tokenizer, name="videochat2-7b", num_frames=FRAMES)


def _drawn(model_class: Any, config: Any) -> Any:
    """Random weights in bfloat16, made where they stay."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            return model_class(config)
    finally:
        torch.set_default_dtype(torch.float32)


def with_heads(backbone: Backbone, sam: str) -> TPOModel:
    """The paper's heads on it; CG-DETR sees the backbone's own frames, since there are no other features here."""
    recipe = tpo.recipe("paper").replace(**{"switches.temporal_features": "backbone"})
    model = tpo.build(backbone, ["region", "temporal", {"name": "mask", "sam": sam, "encoder_precision": "bf16"}], recipe=recipe)
    model.add_lora(recipe.lora)
    return model.to(backbone.device)


def batch_of(model: TPOModel, rows: int) -> Batch:
    """Rows of a clip and a question, of each task in turn."""
    frames = Frames(model.backbone)
    asked = [samples_of(sample_scene(number), (TASKS[number % len(TASKS)],))[0] for number in range(rows)]
    return model.collate([frames.row([sample]) for sample in asked]).to(model.backbone.device)


def stage_of(name: str) -> Stage:
    (stage,) = tpo.recipe("paper").for_heads(TASKS).stage(name)
    return stage


def sam_folder(tmp_path: Path) -> str:
    from transformers import Sam2VideoModel

    from tpo_lab.sam2 import sam2_config

    Sam2VideoModel(sam2_config("hiera-large", version="2.0")).save_pretrained(tmp_path / "sam")
    return str(tmp_path / "sam")


def measured(model: TPOModel, rows: int, *, checkpointing: bool) -> dict[str, Any]:
    """Stage 2 of the region head, stage 3a with all heads, and 3a's tokens as plain fine-tuning."""
    checkpoint_layers(model, checkpointing)
    batch = batch_of(model, rows)
    found: dict[str, Throughput] = {}
    region = batch_of(model, 1)
    found["stage 2"] = measured_throughput(model, region, stage_of("2.region"))
    found["stage 3"] = measured_throughput(model, batch, stage_of("3a"))
    plain, words = without_heads(batch, stage_of("3a"))
    found["plain"] = measured_throughput(model, plain, words)
    return {name: each.to_dict() for name, each in found.items()} | {"added": found["stage 3"].seconds / found["plain"].seconds - 1}


def test_the_same_code_runs_at_a_tiny_size(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_tiny("llava_onevision", tmp_path / "tiny")), num_frames=2)
    found = measured(with_heads(backbone, "nano-sam2"), 3, checkpointing=True)
    assert found["stage 3"]["seconds"] > 0 and found["stage 3"]["utilisation"] is None
    print(json.dumps(found, indent=2))


@pytest.mark.parametrize(("size", "billions"), [(llava_7b, 8.03), (videochat2_7b, 7.64)])
def test_both_sizes_can_be_made(monkeypatch: pytest.MonkeyPatch, size: Any, billions: float) -> None:
    """Without weights, so that a mistake shows on a machine that could not hold them."""

    def outline(model_class: Any, config: Any) -> Any:
        with torch.device("meta"):
            return model_class(config).bfloat16()

    monkeypatch.setattr(sys.modules[__name__], "_drawn", outline)
    backbone = size()
    assert sum(weight.numel() for weight in backbone.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)
    model = with_heads(backbone, "nano-sam2")
    for name in ("2.region", "3a"):
        memory = estimate_stage(model, stage_of(name), rows=ROWS, tokens=1000, checkpointing=True)
        assert billions * 2e9 < memory.parameters < 1.05 * billions * 2e9 < memory.total < MOST_GIB * 2**30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with 80 GB")
@pytest.mark.parametrize("size", [llava_7b, videochat2_7b])
def test_seven_billion(size: Any, tmp_path: Path) -> None:
    model = with_heads(size(), sam_folder(tmp_path))
    found = {
        **measured(model, ROWS, checkpointing=True),
        "backbone": model.backbone.name,
        "rows": ROWS,
        "frames": FRAMES,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name(),
        "environment": environment(),
    }
    print(json.dumps(found, indent=2))
    before = json.loads(EVIDENCE.read_text(encoding="utf-8")) if EVIDENCE.exists() else {}
    EVIDENCE.write_text(json.dumps({**before, model.backbone.name: found}, indent=2) + "\n", encoding="utf-8")
    assert found["stage 3"]["peak_memory_gib"] < MOST_GIB
    assert found["stage 3"]["utilisation"] >= LEAST_UTILISATION
    assert found["added"] <= MOST_ADDED
