"""The LLaVA-OneVision adapter against transformers' own code, on a tiny model of the real classes read from a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tpo_lab.answer import Answerer
from tpo_lab.backbones import Inputs, load_backbone
from tpo_lab.backbones.llava_onevision import LlavaOnevisionBackbone, load
from tpo_lab.batch import Row
from tpo_lab.errors import UsageError
from tpo_lab.heads import build_head
from tpo_lab.heads.base import ClipInfo
from tpo_lab.model import TPOModel
from tpo_lab.sample import Sample
from tpo_lab.stages import Lora

TIMES = (0.5, 1.5, 2.5)
SIDE, PATCH, FRAMES = 28, 4, len(TIMES)  # 7 x 7 patches, an odd number, pooled to 4 x 4
TARGETS = Lora().targets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA-OneVision as the hub has them: Qwen chat tokens, untied output rows, more rows than tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        PreTrainedTokenizerFast,
        Qwen2Config,
        SiglipVisionConfig,
    )

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["user\nWhere is the red ball?assistant\nIt is here."] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=320,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        ),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        video_token_index=fast.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIDE, SIDE]],
        tie_word_embeddings=False,
    )
    made = tmp_path_factory.mktemp("llava")
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(made)
    fast.save_pretrained(made)
    return made


@pytest.fixture
def backbone(folder: Path) -> LlavaOnevisionBackbone:
    loaded = load(str(folder), num_frames=FRAMES)
    loaded.model.eval()
    return loaded


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(0, 256, (2, FRAMES, 3, SIDE, SIDE), dtype=torch.uint8)


def row(backbone: LlavaOnevisionBackbone, frames: Tensor, *texts: str, **targets: Any) -> Row:
    turns = [{"role": ("user", "assistant")[place % 2], "text": text} for place, text in enumerate(texts)]
    sample = Sample.model_validate({"id": "s", "media": {"path": "x.mp4"}, "conversation": turns, "targets": targets})
    return Row(frames, ClipInfo(100, 60, 3.0, (0.5, 1.5, 2.5)), (sample,), "k")


def test_loads_from_a_local_folder_by_name(folder: Path, backbone: LlavaOnevisionBackbone) -> None:
    assert (backbone.name, backbone.num_frames, backbone.image_size) == (str(folder), FRAMES, SIDE)
    assert (backbone.hidden_size, backbone.vision_size, backbone.vocabulary) == (48, 32, 320)
    assert backbone.output_rows is not backbone.embedding.weight
    assert isinstance(load_backbone(str(folder)), LlavaOnevisionBackbone)
    assert load_backbone(str(folder)).num_frames == 16


def test_video_features_are_those_of_transformers(backbone: LlavaOnevisionBackbone, frames: Tensor) -> None:
    pixels = (frames.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        found = backbone.video_features(frames)
        reference = backbone.model.get_video_features(
            pixels, vision_feature_layer=-1, vision_feature_select_strategy="full", output_hidden_states=True
        )
    assert (found.tokens - reference.pooler_output).abs().max() == 0.0
    assert torch.equal(found.frames.flatten(0, 1), reference.hidden_states[-1])
    assert found.frames.shape == (2, FRAMES, 49, 32)


def test_forward_with_frame_numbers_off_is_the_forward_of_transformers(backbone: LlavaOnevisionBackbone, frames: Tensor) -> None:
    backbone.frame_numbers = False
    ids = torch.tensor([[9, *backbone.video_placeholder(TIMES), 40, 41, 42]])
    with torch.no_grad():
        embeds = backbone.embed(ids, backbone.video_features(frames[:1]).tokens[0])
        hidden, _ = backbone.language_model(Inputs(embeds, torch.arange(ids.shape[1])[None]), mask=None)
        pixels = (frames[:1].float() / 255 - 0.5) / 0.5
        reference = backbone.model(input_ids=ids, pixel_values_videos=pixels).logits
    assert torch.allclose(backbone.logits(hidden), reference, atol=1e-6)


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_there_are_as_many_placeholders_as_features(backbone: LlavaOnevisionBackbone, numbers: bool, count: int) -> None:
    backbone.frame_numbers = numbers
    ids = backbone.video_placeholder(range(count))
    with torch.no_grad():
        tokens = backbone.video_features(torch.zeros(1, count, 3, SIDE, SIDE, dtype=torch.uint8)).tokens
    assert ids.count(backbone.video_token) == tokens.shape[1] == count * 16 + 1
    words = backbone.tokenizer.decode([token for token in ids if token != backbone.video_token])
    assert words.split() == ([str(number + 1) for number in range(count)] if numbers else [])
    assert ids[-1] == backbone.video_token, "the newline ends the clip"


def test_embed_refuses_another_number_of_visual_tokens(backbone: LlavaOnevisionBackbone) -> None:
    with pytest.raises(UsageError, match=r"video_tokens: expected 2, one per video placeholder, got 3"):
        backbone.embed(torch.tensor([[4, 9, 4]]), torch.zeros(3, 48))


@pytest.mark.parametrize("size", [(64, 40), (20, 90), (29, 27)])
def test_resize_is_bicubic_with_antialiasing_on_bytes(backbone: LlavaOnevisionBackbone, size: tuple[int, int]) -> None:
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 5) * 255, size=size, mode="bilinear").to(torch.uint8)
    resized = backbone.resize(smooth)
    assert (resized.dtype, resized.shape) == (torch.uint8, (2, 3, SIDE, SIDE))
    for frame, found in zip(smooth, resized, strict=True):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy()).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(picture).astype(int) - found.permute(1, 2, 0).numpy().astype(int)).max() <= 1
    exact = torch.nn.functional.interpolate(smooth.double(), size=(SIDE, SIDE), mode="bicubic", antialias=True).round().clamp(0, 255)
    assert (exact - resized.double()).abs().max() <= 1
    assert torch.equal(backbone.resize(resized), resized), "frames of the right size are left alone"


def test_cached_reading_equals_reading_at_once(backbone: LlavaOnevisionBackbone, frames: Tensor) -> None:
    ids = torch.tensor([[9, *backbone.video_placeholder(TIMES), 40, 41, 42, 43, 44]])
    count = ids.shape[1]
    positions = torch.arange(count)[None]
    with torch.no_grad():
        embeds = backbone.embed(ids, backbone.video_features(frames[:1]).tokens[0])
        inputs = Inputs(embeds, positions)
        whole, _ = backbone.language_model(inputs, mask=None)
        parts, cache = [], None
        for start, end in ((0, count - 4), *((place, place + 1) for place in range(count - 4, count))):
            hidden, cache = backbone.language_model(
                inputs.at(torch.arange(start, end)),
                mask=torch.ones(1, 1, end - start, end, dtype=torch.bool).tril(start),
                cache=cache,
                use_cache=True,
            )
            parts.append(hidden)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("lm_head", [False, True])
def test_lora_targets_match_linear_layers_of_the_language_model_only(backbone: LlavaOnevisionBackbone, lm_head: bool) -> None:
    pattern = backbone.lora_targets((*TARGETS, "lm_head") if lm_head else TARGETS)
    names = [name for name, module in backbone.model.named_modules() if isinstance(module, torch.nn.Linear)]
    hit = {name for name in names if re.fullmatch(pattern, name)}
    expected = {name for name in names if name.startswith("model.language_model.")} | ({"lm_head"} if lm_head else set())
    assert hit == expected and len(expected) == 2 * 7 + lm_head
    assert [name for name in names if name.startswith("model.vision_tower.") and name.endswith("q_proj")], (
        "the tower has layers of that name"
    )


def test_lora_can_be_put_on_some_layers(folder: Path) -> None:
    model = TPOModel(load(str(folder), num_frames=16))
    model.add_lora(Lora(rank=2, targets=("v_proj",), lm_head=True))
    wrapped = {name.split(".lora_")[0].split(".")[-1] for name in model.named_parts() if name.startswith("llm.lora.")}
    assert wrapped == {"v_proj", "lm_head"}


def test_forward_and_answer_on_the_real_classes(backbone: LlavaOnevisionBackbone, frames: Tensor) -> None:
    """Added ids lie below the number of output rows here, as in the released models."""
    model = TPOModel(backbone, [build_head("region", 48)]).eval()
    assert max(model.tokens.ids.all) < backbone.vocabulary
    box = [{"time_sec": 0.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
    batch = model.collate([row(backbone, frames[0], "Where is it?", "It is <region> here", region=box)])
    forward = model(batch)
    report = model.losses(batch, forward)
    report.total.backward()
    assert forward.logits.shape == (len(batch.target), 320)
    assert report.total.isfinite() and {"mlm", "assign", "region/l1"} <= report.terms.keys()
    text = backbone.tokenizer.decode(batch.ids[0][batch.segment[0] == 1])
    assert text == "\nWhere is it?<|im_end|>\n<|im_start|>assistant\nIt is<region:route><region:slot> here<|im_end|>"
    with torch.no_grad():
        model.tokens.rows["output"][model.tokens.ids.all.index(model.tokens.ids.route["region"])] = 50 * forward.hidden[0, -1]
    asked = [row(backbone, frames[0], "Where is it?"), row(backbone, frames[1], "Where is the red ball and why?")]
    answers = Answerer(model, max_tokens=4).answer(asked)
    assert all(answer.text and len(answer.boxes_xyxy) == answer.routes.count("region") for answer in answers)
    assert any(answer.routes for answer in answers)


def test_eager_attention_gives_the_same_as_sdpa(folder: Path, backbone: LlavaOnevisionBackbone, frames: Tensor) -> None:
    """Its mask is added to the scores: True must not become one."""
    model = TPOModel(backbone, [build_head("region", 48)]).eval()
    box = [{"time_sec": 0.0, "xyxy": [4.0, 8.0, 20.0, 40.0]}]
    rows = [row(backbone, frames[0], "Where is it?", "It is <region> here", region=box), row(backbone, frames[1], "Why?", "so")]
    batch = model.collate(rows)
    with torch.no_grad():
        expected = model(batch).logits
        backbone.model.set_attn_implementation("eager")
        assert torch.allclose(model(batch).logits, expected, atol=1e-5)


def test_an_attention_without_masks_is_refused(backbone: LlavaOnevisionBackbone) -> None:
    backbone.model.model.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UsageError, match=r'attn_implementation: expected "sdpa" or "eager", got \'flash_attention_2\''):
        LlavaOnevisionBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=2)


def test_no_frames_are_refused(backbone: LlavaOnevisionBackbone) -> None:
    with pytest.raises(UsageError, match="num_frames: expected at least 1, got 0"):
        LlavaOnevisionBackbone(backbone.model, backbone.tokenizer, name="x", num_frames=0)


def test_a_clip_token_strategy_drops_the_first_patch_as_transformers_does(backbone: LlavaOnevisionBackbone) -> None:
    """CLIP towers have a class token first; the adapter reads the strategy from the configuration."""
    backbone.model.config.vision_feature_select_strategy = "default"
    with pytest.raises(RuntimeError, match=r"shape|view"):
        backbone.video_features(torch.zeros(1, 1, 3, SIDE, SIDE, dtype=torch.uint8))


def test_save_writes_a_folder_that_loads_again(backbone: LlavaOnevisionBackbone, frames: Tensor, tmp_path: Path) -> None:
    backbone.save(tmp_path / "a")
    again = load(str(tmp_path / "a"), num_frames=16)
    with torch.no_grad():
        assert torch.equal(again.video_features(frames).tokens, backbone.video_features(frames).tokens)


@pytest.mark.parametrize(
    ("config", "hint"),
    [(None, ""), ({"model_type": "qwen2"}, r"That is a qwen2 model\."), ({"model_type": "unheard-of"}, "unheard-of")],
)
def test_other_folders_are_refused_by_name(tmp_path: Path, config: dict[str, str] | None, hint: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"backbone: expected a folder or hub id of LLaVA-OneVision, got '{tmp_path}'.*{hint}"):
        load(str(tmp_path), num_frames=16)
