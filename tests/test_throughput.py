"""Operations are counted as torch counts them, and a measured step trains as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tpo_lab as tpo
from tpo_lab.errors import UsageError
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora
from tpo_lab.training.cost.flops import attention_flops, language_flops, peak_of
from tpo_lab.training.cost.throughput import measured_throughput, without_heads


@pytest.mark.parametrize("lora", [Lora(rank=3, dropout=0.0), Lora(rank=2, dropout=0.0, targets=("q_proj", "down_proj"))])
def test_operations_are_those_that_torch_counts(build_tiny: Callable[..., TPOModel], lora: Lora) -> None:
    model = build_tiny()
    model.add_lora(lora)
    for name, parameter in model.named_parts().items():
        parameter.requires_grad_(name.startswith("llm.lora."))
    core, config = model.backbone.model.model.language_model, model.backbone.model.config.text_config
    rows, tokens, learned = 3, 21, 5
    embeds = torch.randn(rows, tokens, model.backbone.hidden_size, requires_grad=True)
    core.config._attn_implementation = "eager"
    with FlopCounterMode(display=False) as counted:
        hidden = core(inputs_embeds=embeds).last_hidden_state
        model.backbone.logits(hidden[:1, :learned]).sum().backward()
    asked = language_flops(config, rows=rows, tokens=tokens, learned=learned, lora=lora)
    layers = config.num_hidden_layers
    # eager attention computes what the causal mask hides as well
    hidden_half = 3 * layers * (4 * rows * tokens**2 * config.hidden_size - attention_flops(config, rows=rows, tokens=tokens))
    assert counted.get_total_flops() == asked + hidden_half


def test_attention_counts_each_pair_of_the_causal_half() -> None:
    config = type("Config", (), {"hidden_size": 12, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 4})()
    pairs = sum(1 for query in range(5) for key in range(5) if key <= query)
    assert attention_flops(config, rows=2, tokens=5) == 2 * 2 * pairs * 12 * 2


def test_full_fine_tuning_pays_for_gradients_of_weights(build_tiny: Callable[..., TPOModel]) -> None:
    config = build_tiny().backbone.model.config.text_config
    lora = Lora(rank=1, targets=("q_proj",))
    few, many = (language_flops(config, rows=1, tokens=50, learned=0, lora=lora, trained=trained) for trained in (False, True))
    assert 1.3 < many / few < 1.5
    with pytest.raises(UsageError, match="at least one row"):
        language_flops(config, rows=0, tokens=5, learned=0, lora=lora)


def test_devices_are_found_by_a_part_of_their_name() -> None:
    assert peak_of("NVIDIA H200") == peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12 and peak_of("a potato") is None


def test_a_measured_step_trains_and_plain_steps_read_no_slot(
    build_tiny: Callable[..., TPOModel], world: Callable[..., list[Sample]]
) -> None:
    model = build_tiny()
    stage = tpo.recipe("nano").for_heads(("region", "temporal")).stage("3a")[0]
    model.add_lora(Lora(rank=2))
    before = {name: value.detach().clone() for name, value in model.named_parts().items()}
    frames = Frames(model.backbone)
    samples = world(0, "region")[:1] + world(0, "temporal")[:1]
    batch = model.collate([frames.row([sample]) for sample in samples])
    found = measured_throughput(model, batch, stage, steps=1)
    assert found.seconds > 0 and found.language_seconds > 0 and found.language_flops > 1e6
    assert found.utilisation is None and found.peak_memory_gib is None, "nothing is made up for a processor"
    changed = {name for name, value in model.named_parts().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("llm.lora.") for name in changed) and any(name.startswith("heads.region.") for name in changed)
    plain, words = without_heads(batch, stage)
    assert torch.equal(plain.ids, batch.ids) and set(words.losses) == {"mlm", "assign"}
    reads: list[Any] = []
    model.heads["region"].register_forward_hook(lambda *_: reads.append(1))
    measured_throughput(model, plain, words, steps=1)
    assert not reads
