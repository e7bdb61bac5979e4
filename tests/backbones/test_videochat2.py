"""VideoChat2 behind the backbone protocol: prompt, preprocessing, masks, precision, saving in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.backbones.reading import clip_of, conversation, inputs_of, most_changed, read_in_steps
from tpo_lab.backbones import load_backbone
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.backbones.videochat2 import MEAN, STD, VideoChat2Backbone, instructions
from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.training.cost.memory import checkpoint_layers

TIMES = (0.5, 1.75, 3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("videochat2", tmp_path_factory.mktemp("videochat2"), dtype=torch.float32, layers=2)


@pytest.fixture
def backbone(folder: Path) -> VideoChat2Backbone:
    torch.manual_seed(3)
    found = load_backbone(str(folder), num_frames=3)
    assert isinstance(found, VideoChat2Backbone)
    found.model.eval()
    return found


def marking_tokenizer() -> Any:
    """One that puts a mark before each piece of text, as Mistral's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(
        ["[INST] <Video></Video>[/INST] [INST] Where is the red ball? [/INST] It is here, at 0123456789."], trainer
    )
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>")


def test_the_prompt_is_the_published_one(backbone: VideoChat2Backbone) -> None:
    slots = "<unk>" * 12
    expected = f"<s>[INST] <Video>{slots}</Video>[/INST] [INST] Where is the red ball? [/INST]"
    assert conversation(backbone, TIMES) == expected
    chat = backbone.chat
    assert (chat.before_reply, chat.end, chat.before_next_question) == (" ", "</s>", " [INST] ")


def test_times_are_told_where_the_configuration_says_so(folder: Path, tmp_path: Path) -> None:
    told = load_backbone(str(folder), num_frames=3)
    told.model.config.frame_times = True
    told.save(tmp_path / "told")
    text = conversation(load_backbone(str(tmp_path / "told"), num_frames=3), TIMES)
    assert "</Video> The video contains 3 frames sampled at 0.5, 1.8, 3.0 seconds. [/INST] [INST] Where" in text
    quiet = VideoChat2Backbone(told.model, told.tokenizer, name="tiny", num_frames=3, frame_times=False)
    assert "seconds" not in conversation(quiet, TIMES)


def test_no_space_is_written_for_a_tokenizer_that_writes_its_own(backbone: VideoChat2Backbone) -> None:
    tokenizer = marking_tokenizer()
    chat = instructions(tokenizer)
    assert (chat.before_question, chat.before_answer, chat.before_reply, chat.before_next_question) == ("", "[/INST]", "", "[INST] ")
    marked = VideoChat2Backbone(backbone.model, tokenizer, name="marked", num_frames=3)
    behind = marked.video_placeholder(TIMES)[12:] + marked.words("Where is") + marked.words(chat.before_answer)
    pieces = "".join(tokenizer.convert_ids_to_tokens(behind)).replace("\N{LOWER ONE EIGHTH BLOCK}", "_")
    assert pieces == "_</Video>[/INST]_[INST]_Where_is_[/INST]"
    assert tokenizer.decode(marked.words(chat.open)).replace("<s> ", "<s>") == "<s>[INST] <Video>"


def test_rows_are_not_filled_with_the_video_token(backbone: VideoChat2Backbone) -> None:
    assert backbone.video_token == 0 == backbone.tokenizer.convert_tokens_to_ids("<unk>")
    assert backbone.tokenizer.pad_token == "</s>"
    assert TPOModel(backbone).collate.pad == backbone.tokenizer.eos_token_id


def test_a_tokenizer_without_ends_is_refused(backbone: VideoChat2Backbone) -> None:
    backbone.tokenizer.eos_token = None
    with pytest.raises(UsageError, match=r"tokenizer: expected tokens that start and end"):
        VideoChat2Backbone(backbone.model, backbone.tokenizer, name="tiny", num_frames=3)


def test_visual_tokens_belong_to_the_whole_clip(backbone: VideoChat2Backbone) -> None:
    with torch.no_grad():
        features = [backbone.video_features(clip_of(backbone, count, clips=2)) for count in (1, 3, 16)]
    assert [found.tokens.shape for found in features] == [(2, 12, 48)] * 3
    assert [found.frames.shape for found in features] == [(2, count, 49, 32) for count in (1, 3, 16)]
    assert backbone.cells_per_frame == 0 and backbone.vision_size == 32
    assert all(backbone.video_placeholder(range(count)).count(0) == 12 for count in (1, 3, 16))


def test_a_head_that_needs_cells_is_refused(backbone: VideoChat2Backbone) -> None:
    from tpo_lab.heads import build_head

    dense = build_head("region", 48, head="dense", vision_dim=32)
    with pytest.raises(UsageError):
        TPOModel(backbone, [dense])


def test_features_lie_where_the_patch_is(backbone: VideoChat2Backbone) -> None:
    """In order of frames, then row by row."""
    patch, _ = most_changed(backbone, frame=1, count=3, patch=4, row=2, column=5)
    assert patch.tolist() == [1, 2 * 7 + 5]


def test_preprocessing_is_that_of_imagenet(backbone: VideoChat2Backbone) -> None:
    """Bytes resized as bytes, then (x / 255 - mean) / deviation by hand."""
    frames = torch.randint(0, 256, (2, 3, 40, 52), dtype=torch.uint8)
    small = backbone.resize(frames)
    assert small.shape == (2, 3, 28, 28) and small.dtype == torch.uint8
    pixels = torch.stack([(small[:, c].double() / 255 - MEAN[c]) / STD[c] for c in range(3)], 1).float()[None]
    with torch.no_grad():
        expected = backbone.model.model.get_video_features(pixels)[1]
        assert torch.allclose(backbone.video_features(small[None]).frames, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_masks_and_cache(folder: Path, attention: str) -> None:
    """Word by word with a cache under masks equals all at once without; what is masked does not count."""
    torch.manual_seed(3)
    backbone: Any = load_backbone(str(folder), num_frames=3)
    backbone.model.eval().set_attn_implementation(attention)
    inputs = inputs_of(backbone, TIMES)
    with torch.no_grad():
        once, _ = backbone.language_model(inputs, mask=None)
    assert torch.allclose(read_in_steps(backbone, inputs, last=4), once, atol=1e-5)
    count = once.shape[1]
    mask = torch.ones(1, 1, count, count, dtype=torch.bool).tril()
    mask[..., :-1, 3] = mask[..., -1:, 3] = False
    mask[..., 3, 3] = True
    changed = inputs.embeds.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        kept, other = (backbone.language_model(type(inputs)(e, inputs.positions), mask=mask)[0] for e in (inputs.embeds, changed))
    assert torch.equal(kept[:, -1], other[:, -1]) and not torch.equal(kept[:, 3], other[:, 3])


def test_the_model_learns_labels_and_refuses_wrong_counts(backbone: VideoChat2Backbone) -> None:
    model = backbone.model
    ids = torch.tensor([[1, *[0] * 12, 5, 6, 7], [1, *[0] * 12, 8, 9, 2]])
    pixels = torch.randn(2, 2, 3, 28, 28)
    labels = ids.masked_fill(torch.arange(16) < 14, -100)
    output = model(input_ids=ids, pixel_values=pixels, labels=labels)
    words = output.logits.log_softmax(-1)
    picked = [words[row, place - 1, ids[row, place]] for row in (0, 1) for place in (14, 15)]
    assert output.loss.item() == pytest.approx(-torch.stack(picked).mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="expected 24 video tokens, got 23"):
        model(input_ids=ids.clone().index_put((torch.tensor(1), torch.tensor(4)), torch.tensor(9)), pixel_values=pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_on_all_three_sides_changes_nothing(folder: Path, dtype: torch.dtype) -> None:
    found: list[dict[str, Tensor]] = []
    clips, ids = torch.randn(1, 3, 3, 28, 28), torch.tensor([[1, *[0] * 12, 5, 6, 7]])
    for on in (False, True):
        whole = TPOModel(load_backbone(str(folder), num_frames=3, dtype=dtype)).train()
        checkpoint_layers(whole, on)
        model = whole.backbone.model
        layers = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
        model(input_ids=ids, pixel_values=clips.to(dtype), labels=ids).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    kinds = {type(layer).__name__ for layer in layers}
    assert {"UMTLayer", "Blip2QFormerLayer", "MistralDecoderLayer"} <= kinds
    assert found[0].keys() == found[1].keys() == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(found[1][name], gradient) for name, gradient in found[0].items())


def test_bfloat16_is_near_float32(backbone: VideoChat2Backbone, folder: Path) -> None:
    half: Any = load_backbone(str(folder), num_frames=3, dtype=torch.bfloat16)
    frames = clip_of(backbone, 3)
    with torch.no_grad():
        exact, near = backbone.video_features(frames), half.video_features(frames)
    assert near.tokens.dtype == near.frames.dtype == torch.bfloat16
    assert (near.frames.float() - exact.frames).abs().max() < 0.1
    assert torch.nn.functional.cosine_similarity(near.tokens.float(), exact.tokens, dim=-1).min() > 0.999


def test_positions_made_while_answering_serve_training(backbone: VideoChat2Backbone) -> None:
    """Tensors made in inference mode take part in no gradient."""
    frames = clip_of(backbone, 3)
    with torch.inference_mode():
        backbone.video_features(frames)
    backbone.video_features(frames).tokens.sum().backward()
    assert backbone.model.model.vision_tower.patch_embed.weight.grad is not None


def test_it_saves_in_several_files_and_loads_every_bit(backbone: VideoChat2Backbone, tmp_path: Path) -> None:
    backbone.model.save_pretrained(tmp_path, max_shard_size="100KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 2
    again = VideoChat2ForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in backbone.model.state_dict().items())
    assert again.config.vision_config.to_dict() == backbone.model.config.vision_config.to_dict()


def test_missing_weights_do_not_stay_unset(backbone: VideoChat2Backbone, tmp_path: Path) -> None:
    """transformers builds without memory and draws what a file does not have; every parameter of ours is among that."""
    from safetensors.torch import save_file

    backbone.model.config.save_pretrained(tmp_path)
    save_file({"lm_head.weight": backbone.model.lm_head.weight.detach()}, tmp_path / "model.safetensors", {"format": "pt"})
    drawn: Any = VideoChat2ForConditionalGeneration.from_pretrained(tmp_path)
    assert all(bool(parameter.isfinite().all()) and parameter.device.type == "cpu" for parameter in drawn.parameters())
    assert float(drawn.model.query_tokens.detach().std()) == pytest.approx(0.02, rel=0.5)
    assert not drawn.model.extra_query_tokens.any() and not drawn.model.vision_tower.layers[0].attention.q_bias.any()


def test_the_defaults_are_the_published_sizes() -> None:
    config = VideoChat2Config()
    with torch.device("meta"):
        model: Any = VideoChat2ForConditionalGeneration(config)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[1] if name.startswith("model.") else "lm_head"
        counts[part] = counts.get(part, 0) + parameter.numel()
    assert counts["vision_tower"] == 290_479_104
    assert counts["language_model"] + counts["lm_head"] == 7_241_732_096
    assert counts["projector"] == 769 * 4096
    assert config.visual_tokens == 96 and config.text_config.sliding_window is None


def test_another_family_is_refused(tmp_path: Path) -> None:
    from tpo_lab.backbones.videochat2 import load

    write_tiny("llava_onevision", tmp_path / "llava")
    with pytest.raises(UsageError, match=r"expected a folder or hub id of VideoChat2.*That is a llava_onevision model"):
        load(str(tmp_path / "llava"), num_frames=3)
