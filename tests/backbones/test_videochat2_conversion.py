"""Tiny checkpoints under the published names become ours, and compute the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.sam2 import test_weights
from tpo_lab import checkpoint
from tpo_lab.backbones import load_backbone
from tpo_lab.backbones.checks import Bench
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.backbones.videochat2_parts import conversion, writing
from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.conversion import convert, convert_videochat2, read_tokenizer
from tpo_lab.errors import TPOError, UsageError
from tpo_lab.heads import CGDETRHead, CGDETRSettings, Head, MaskHead, MaskSettings, RegionHead, RegionSettings
from tpo_lab.model import TPOModel
from tpo_lab.precomputed import FeatureFolder
from tpo_lab.sam2 import configs, weights
from tpo_lab.stages import Lora

TEMPORAL = CGDETRSettings(
    features=(FeatureFolder(folder="features", width=6),),
    step_sec=1.0,
    behaviour="official",
    dim=16,
    heads=2,
    feedforward_dim=20,
    dummies=3,
    queries=4,
    prototypes=5,
    dummy_layers=2,
    encoder_layers=1,
    decoder_layers=2,
)
SIZE = configs.HieraSize(8, 1, (1, 1, 1, 1), (2,))
SHARDS = 3


@pytest.fixture(scope="module", autouse=True)
def _tiny_sam2() -> Iterator[None]:
    """A size of SAM2 that nobody published, so that its weights take a moment."""
    sizes = MappingProxyType({**configs.SIZES, "hiera-nano": SIZE})
    with pytest.MonkeyPatch.context() as patch:
        for module in (configs, weights, test_weights):
            patch.setattr(module, "SIZES", sizes)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("videochat2", tmp_path_factory.mktemp("tiny"), dtype=torch.float32, width=32, layers=2)


@pytest.fixture(scope="module")
def model(tiny: Path) -> TPOModel:
    """A whole model with nothing at zero."""
    from transformers import Sam2VideoModel

    torch.manual_seed(5)
    sam: Any = Sam2VideoModel(configs.sam2_config("hiera-nano", version="2.0"))
    heads: list[Head[Any, Any]] = [
        RegionHead(32, RegionSettings(loss="official")),
        CGDETRHead(32, TEMPORAL),
        MaskHead(32, MaskSettings(loss="distill"), sam=sam),
    ]
    made = TPOModel(load_backbone(str(tiny)), heads, prompts="box")
    made.add_lora(Lora(rank=16, alpha=32.0, dropout=0.1, lm_head=True))
    with torch.no_grad():
        for name, parameter in made.named_parts().items():
            parameter.copy_(0.1 * torch.randn_like(parameter) + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0))
    return made.eval()


def published(model: TPOModel) -> dict[str, Tensor]:
    """The same model as the released files would have it: other rules for names than the conversion's, joined maps, and what is unread."""
    state: dict[str, Tensor] = {}
    for name, value in model.backbone.model.state_dict().items():
        state[backbone_name(name)] = value
    state["vision_encoder.encoder.patch_embed.proj.weight"] = state["vision_encoder.encoder.patch_embed.proj.weight"].unsqueeze(2)
    head = "lm.base_model.model.lm_head"
    base, added = state[f"{head}.base_layer.weight"], model.tokens.rows["output"].detach()
    up = torch.cat([state[f"{head}.lora_B.default.weight"], 0.1 * torch.randn(7, 16)])
    state[f"{head}.lora_B.default.weight"] = up
    # box_begin, time_begin, temp, boxes, track_begin, tracking, track_box among prompt, then route and slot of region, temporal, mask
    order = torch.tensor([1, 3, 4, 2, 5, 6, 0])
    state[f"{head}.base_layer.weight"] = torch.cat([base, added[order] - 2 * up[-7:] @ state[f"{head}.lora_A.default.weight"]])
    table = "lm.base_model.model.model.embed_tokens.weight"
    state[table] = torch.cat([state[table], model.tokens.rows["input"].detach()[order]])
    for token, name in (("box_token", "region"), ("temporal_token", "temporal"), ("track_token", "mask")):
        state[token] = model.tokens.task[name].detach()[None, None]
    for name, value in model.heads["region"].mlp.state_dict().items():
        state[f"loc_decoder.{name}"] = value
    for name, value in model.prompts.box.layers.state_dict().items():
        state[f"loc_encoder.{name}"] = value
    for ours, theirs in (("tokens", "track_embed"), ("box", "track_embed_decode2")):
        for name, value in getattr(model.heads["mask"].adapter, ours).state_dict().items():
            state[f"{theirs}.layers.{name.replace('2.', '1.')}"] = value
    state |= cg_detr(model.heads["temporal"].network.state_dict())
    official = weights.to_official(model.heads["mask"].sam.state_dict(), test_weights.official_names("hiera-nano", "2.0"))
    state |= {f"sam.{name}": value for name, value in official.items()}
    unread = ("merge_proj.weight", "project_down.bias", "temporal_embed.layers.1.bias", "cg_criterion.empty_weight")
    unread += ("qformer.bert.embeddings.position_ids", "qformer.bert.encoder.layer.2.intermediate.dense.weight")
    state |= {name: torch.ones(2) for name in unread}
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def backbone_name(name: str) -> str:
    rules = (
        (r"^model\.vision_tower\.patch_embed", "vision_encoder.encoder.patch_embed.proj"),
        (r"^model\.vision_tower\.norm", "vision_layernorm"),
        (r"^model\.vision_tower\.layers", "vision_encoder.encoder.blocks"),
        (r"\.attention\.out\.", ".attn.proj."),
        (r"\.attention\.(qkv|q_bias|v_bias)", r".attn.\1"),
        (r"\.(fc\d)\.", r".mlp.\1."),
        (r"^model\.qformer\.layernorm", "qformer.bert.embeddings.LayerNorm"),
        (r"^model\.qformer\.encoder", "qformer.bert.encoder"),
        (r"\.((?:cross)?attention)\.attention\.", r".\1.self."),
        (r"^model\.projector", "project_up"),
        (r"^model\.(extra_)?query_tokens", r"\1query_tokens"),
        (r"^model\.language_model", "lm.base_model.model.model"),
        (r"^lm_head", "lm.base_model.model.lm_head"),
    )
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name) if not (pattern.startswith(r"\.(fc") and "blocks" not in name) else name
    return name


def cg_detr(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network of the temporal head: one map for queries, keys and values; a bias shared by two maps, as half of it at each."""
    rules = (
        (r"^frame_projection\.(\d)", lambda m: f"input_vid_proj.{int(m[1]) // 4}.{'net.1' if int(m[1]) % 4 else 'LayerNorm'}"),
        (r"^text_projection\.(\d)", lambda m: f"input_txt_proj.{int(m[1]) // 4}.{'net.1' if int(m[1]) % 4 else 'LayerNorm'}"),
        (r"^dummies\.encoder", "txtproj_encoder"),
        (r"^sentence\.encoder", "scls_encoder"),
        (r"^moment\.encoder", "transformer.mcls_encoder"),
        (r"^encoder", "transformer.encoder"),
        (r"^cross\.layers\.(\d)\.out", r"transformer.t2v_encoder.layers.\1.self_attn.out_proj"),
        (r"^cross", "transformer.t2v_encoder"),
        (r"^frame_score", "saliency_proj1"),
        (r"^clip_score", "saliency_proj2"),
        (r"^decoder\.label", "class_embed"),
        (r"^decoder\.windows", "query_embed.weight"),
        (r"^types", "token_type_embeddings.weight"),
        (r"^(dummies|sentence|moment|saliency)\.(tokens?|prototypes|position)", token_name),
        (r"^decoder\.(position|width|refine|scale)\.(\d)", mlp_name),
        (r"^decoder", "transformer.decoder"),
        (r"\.attention\.out", ".self_attn.out_proj"),
        (r"\.feedforward\.(\d)", lambda m: {"0": ".linear1", "1": ".activation", "3": ".linear2"}[m[1]]),
        (r"\.norms\.(\d)", lambda m: f".norm{int(m[1]) + 1}"),
        (r"\.among\.out", ".self_attn.out_proj"),
        (r"\.across\.out", ".cross_attn.out_proj"),
        (r"\.among\.value", ".sa_v_proj"),
        (r"\.across\.value", ".ca_v_proj"),
        (r"\.across\.query", ".ca_qcontent_proj"),
        (r"\.across\.key", ".ca_kcontent_proj"),
        (r"\.across\.start", ".ca_qpos_proj"),
        (r"\.across\.window", ".ca_qpos_sine_proj"),
        (r"\.across\.place", ".ca_kpos_proj"),
        (r"\.among\.query_position", ".sa_qpos_proj"),
        (r"\.among\.key_position", ".sa_kpos_proj"),
        (r"\.among\.query", ".sa_qcontent_proj"),
        (r"\.among\.key", ".sa_kcontent_proj"),
    )
    state: dict[str, Tensor] = {}
    for name, value in ours.items():
        joined = re.search(r"\.attention\.(query|key|value)\.(weight|bias)$", name)
        renamed = name
        for pattern, replacement in rules:
            renamed = re.sub(pattern, replacement, renamed)
        if joined is None:
            state[f"cg_model.{renamed}"] = value
        elif joined[1] == "query":
            stem, kind = name.removesuffix(f"query.{joined[2]}"), joined[2]
            # nobody's bias stands for that of the keys
            parts = [ours.get(f"{stem}{part}.{kind}", torch.full((16,), 3.0)) for part in ("query", "key", "value")]
            state[f"cg_model.{renamed[: renamed.index('.attention')]}.self_attn.in_proj_{kind}"] = torch.cat(parts)
    for name in [name for name in state if name.endswith(("sa_kcontent_proj.weight", "sa_kpos_proj.weight", "ca_kcontent_proj.weight"))]:
        state[name.replace("weight", "bias")] = torch.full((16,), 5.0)
    for name in [name for name in state if name.endswith("sa_qcontent_proj.bias")]:
        state[name.replace("qcontent", "qpos")] = 0.25 * state[name]
        state[name] = 0.75 * state[name]
    state["cg_model.global_rep_pos"] = state["cg_model.global_rep_pos"][None]
    state["cg_model.transformer.decoder.bbox_embed.layers.2.weight"] = torch.ones(2, 16)
    return state


def token_name(found: re.Match[str]) -> str:
    who = {"dummies": "dummy", "sentence": "sent", "moment": "moment", "saliency": "global"}[found[1]]
    return f"{who}_rep_{'pos' if found[2] == 'position' else 'token'}"


def mlp_name(found: re.Match[str]) -> str:
    who = {"position": "ref_point_head", "width": "ref_anchor_head", "scale": "query_scale"}
    stem = "span_embed" if found[1] == "refine" else f"transformer.decoder.{who[found[1]]}"
    return f"{stem}.layers.{int(found[2]) // 2}"


def write_published(state: dict[str, Tensor], folder: Path, tokenizer: Path) -> Path:
    """In several files with an index, LoRA's two matrices of one layer mostly in different ones."""
    folder.mkdir(parents=True)
    files: dict[str, str] = {}
    for shard in range(SHARDS):
        names = sorted(state)[shard::SHARDS]
        file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    content = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"].append({**content["added_tokens"][0], "id": 640, "content": "<box_begin>"})
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def config(tiny: Path) -> VideoChat2Config:
    return VideoChat2Config.from_pretrained(tiny)


@pytest.fixture(scope="module")
def source(model: TPOModel, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(published(model), tmp_path_factory.mktemp("published") / "folder", tiny)


@pytest.fixture(scope="module")
def converted(source: Path, config: VideoChat2Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(source, tmp_path_factory.mktemp("converted") / "out", config=config, temporal=TEMPORAL)


@pytest.fixture(scope="module")
def again(converted: Path) -> TPOModel:
    return checkpoint.load(converted)


def test_every_tensor_comes_back(model: TPOModel, again: TPOModel) -> None:
    before, after = model.named_parts(), again.named_parts()
    assert set(before) == set(after) and len(before) > 400
    for name, value in before.items():
        # what the output rows of added tokens lose to LoRA is taken away and added again
        exact = torch.equal(after[name].float(), value) if name != "tokens.rows.output" else torch.allclose(after[name], value, atol=1e-5)
        assert exact, name


def test_logits_of_the_whole_model_are_equal(model: TPOModel, again: TPOModel, tiny: Path) -> None:
    bench = Bench.of(load_backbone(str(tiny), num_frames=3))
    with torch.no_grad():
        first, second = (each(each.collate([bench.row])) for each in (model, again))
    assert torch.equal(first.hidden, second.hidden)
    assert torch.allclose(first.logits, second.logits, atol=1e-4) and bool(first.logits.isfinite().any())
    assert torch.equal(first.predictions["region"].boxes_xyxy, second.predictions["region"].boxes_xyxy)


def test_added_rows_are_those_of_the_published_output_layer(source: Path, again: TPOModel) -> None:
    """In the published model LoRA reaches them; here they hold its part."""
    state = {name: value for file in source.glob("*.safetensors") for name, value in load_file(file).items()}
    head = "lm.base_model.model.lm_head"
    hidden = torch.randn(4, 32)
    down, up = (state[f"{head}.lora_{side}.default.weight"] for side in "AB")
    logits = hidden @ state[f"{head}.base_layer.weight"].T + 2 * (hidden @ down.T) @ up.T
    with torch.no_grad():
        found = again.tokens.extend_logits(again.backbone.logits(hidden), hidden)
    ids = again.tokens.ids
    places = [ids.route["region"], ids.route["temporal"], ids.slot["temporal"], ids.slot["region"], ids.route["mask"], ids.slot["mask"]]
    assert torch.allclose(found[:, [*places, ids.prompt]], logits[:, 640:], atol=1e-5)
    assert torch.allclose(found[:, :600], logits[:, :600], atol=1e-5)


def test_sam2_and_the_heads_settings_come_along(model: TPOModel, again: TPOModel, converted: Path) -> None:
    before, after = (each.heads["mask"].sam.state_dict() for each in (model, again))
    # transformers holds the frequencies of places twice, and a random model has two of them
    twice = "prompt_encoder.shared_embedding.positional_embedding"
    assert {name for name, value in before.items() if not torch.equal(after[name], value)} <= {twice}
    assert torch.equal(after[twice], before["shared_image_embedding.positional_embedding"])
    assert again.head("mask").settings.sam == str(converted.parent / "sam2")
    assert again.head("temporal").settings == TEMPORAL
    assert again.lora == Lora(rank=16, alpha=32.0, dropout=0.1, lm_head=True)
    assert again.backbone.num_frames == 16 and again.prompts.understood == "box"


def test_the_result_passes_the_audit_and_is_a_backbone_by_itself(converted: Path) -> None:
    found = checkpoint.audit(converted)
    assert found["equals_memory"] and found["reload_difference"] == 0
    backbone = load_backbone(str(converted.parent / "backbone"))
    assert len(backbone.tokenizer) <= 640 and "<box_begin>" not in backbone.tokenizer.get_vocab()


def test_weights_are_written_in_pieces_of_their_own_type(model: TPOModel, config: VideoChat2Config, tmp_path: Path) -> None:
    """As many files as the limit asks for, none with more than it but for single tensors, and every tensor in one of them."""
    state = {name.replace(".base_layer", ""): value for name, value in model.backbone.model.state_dict().items() if "lora" not in name}
    asked: list[str] = []

    def read(name: str) -> Tensor:
        asked.append(name)
        return state[name]

    writing.write_backbone(tmp_path, config, read, torch.bfloat16, shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = {file: load_file(tmp_path / file) for file in set(index["weight_map"].values())}
    assert len(files) > 5 and sorted(asked) == sorted(state)
    for tensors in files.values():
        assert len(tensors) == 1 or sum(2 * tensor.numel() for tensor in tensors.values()) <= 20_000
    backbone: Any = load_backbone_of(tmp_path, config)
    assert all(torch.equal(value, state[name].bfloat16()) for name, value in backbone.state_dict().items())


def load_backbone_of(folder: Path, config: VideoChat2Config) -> Any:
    from tpo_lab.backbones.videochat2_parts.model import VideoChat2ForConditionalGeneration

    return VideoChat2ForConditionalGeneration.from_pretrained(folder, dtype="auto")


def broken(source: Path, folder: Path, change: Any) -> Path:
    """A copy of the published folder with other tensors."""
    state = {name: value for file in source.glob("*.safetensors") for name, value in load_file(file).items()}
    change(state)
    return write_published(state, folder, source)


def test_missing_and_unknown_tensors_are_told_and_nothing_is_written(source: Path, config: VideoChat2Config, tmp_path: Path) -> None:
    def change(state: dict[str, Tensor]) -> None:
        state["loc_decoders.0.weight"] = state.pop("loc_decoder.0.weight")

    folder = broken(source, tmp_path / "in", change)
    with pytest.raises(UsageError, match=r"1 missing: loc_decoder\.0\.weight; 1 not known: loc_decoders\.0\.weight"):
        convert(folder, tmp_path / "out", config=config, temporal=TEMPORAL)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", ["project_up.weight", "sam.mask_downsample.weight", "track_embed.layers.0.bias"])
def test_other_shapes_are_told_and_nothing_is_left(source: Path, config: VideoChat2Config, tmp_path: Path, name: str) -> None:
    folder = broken(source, tmp_path / "in", lambda state: state.update({name: torch.ones(3, 5)}))
    with pytest.raises(TPOError, match="shape"):
        convert(folder, tmp_path / "out", config=config, temporal=TEMPORAL)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_missing_part_of_sam2_is_told(source: Path, config: VideoChat2Config, tmp_path: Path) -> None:
    folder = broken(source, tmp_path / "in", lambda state: state.pop("sam.no_obj_ptr"))
    with pytest.raises(UsageError, match="1 missing: no_object_pointer"):
        convert(folder, tmp_path / "out", config=config, temporal=TEMPORAL)


def test_weights_of_the_published_size_are_expected_where_no_other_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing: .*vision_encoder|missing: cg_model"):
        convert(source, tmp_path / "out")


def test_a_folder_with_something_in_it_is_left_alone(source: Path, config: VideoChat2Config, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="out: expected a new folder"):
        convert(source, tmp_path, config=config, temporal=TEMPORAL)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_files_that_are_not_there_or_damaged_are_told(source: Path, config: VideoChat2Config, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a folder with model\.safetensors or"):
        convert(tmp_path, tmp_path / "out", config=config)
    index = {"weight_map": {"loc_decoder.0.bias": "model-00001-of-00003.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="missing or damaged"):
        convert(tmp_path, tmp_path / "out", config=config)
    save_file({"other": torch.ones(1)}, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(UsageError, match=r"1 missing: loc_decoder\.0\.bias"):
        convert(tmp_path, tmp_path / "out", config=config)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        convert(tmp_path, tmp_path / "out", config=config)


def test_without_a_tokenizer_it_says_which_to_take(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json.*Mistral-7B-Instruct-v0\.2"):
        read_tokenizer(tmp_path, 640)
    assert read_tokenizer(source, 640).pad_token == "</s>"


def test_videochat2_gets_its_lora_merged(model: TPOModel, tiny: Path, config: VideoChat2Config, tmp_path: Path) -> None:
    """The published file has everything but Mistral, of which it has LoRA alone."""
    plain, ours = published(model), model.backbone.model.state_dict()
    state = {name.replace("project_up", "mistral_proj"): value for name, value in plain.items() if name.startswith(TOWERS)}
    for name, value in ours.items():
        if ".lora_" in name:
            state[name.replace("model.language_model", "model.model").replace("lm_head", "model.lm_head")] = value
    adapted = {f"mistral_model.base_model.{name}" if ".lora_" in name else name: value for name, value in state.items()}
    torch.save({"model": adapted}, tmp_path / "videochat2.pth")
    mistral = tmp_path / "mistral"
    mistral.mkdir()
    (mistral / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    language = {
        name.replace("model.language_model", "model").replace(".base_layer", ""): value.clone()
        for name, value in ours.items()
        if name.startswith(("model.language_model", "lm_head")) and ".lora_" not in name
    }
    save_file(language, mistral / "model.safetensors", {"format": "pt"})
    folder = convert_videochat2(tmp_path / "videochat2.pth", mistral, tmp_path / "out", config=config)
    merged: Any = load_backbone(str(folder))
    ids, pixels = torch.tensor([[1, *[0] * 12, 7, 8]]), torch.randn(1, 2, 3, 28, 28)
    with torch.no_grad():
        model.tokens.detach_hooks()
        expected = model.backbone.model(input_ids=ids, pixel_values=pixels).logits
        assert torch.allclose(merged.model.eval()(input_ids=ids, pixel_values=pixels).logits, expected, atol=1e-4)


TOWERS = ("vision_", "qformer.", "query_tokens", "extra_query_tokens", "project_up")


def test_a_pth_that_is_none_is_told(tmp_path: Path, config: VideoChat2Config) -> None:
    with pytest.raises(UsageError, match="no such file"):
        convert_videochat2(tmp_path / "none.pth", tmp_path, tmp_path / "out", config=config)
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    save_file({"lm_head.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="cannot be read"):
        convert_videochat2(tmp_path / "garbage.pth", tmp_path, tmp_path / "out", config=config)


def test_published_defaults_of_the_temporal_head() -> None:
    assert conversion.TEMPORAL.widths == (768,) and conversion.TEMPORAL.official
    assert (conversion.TEMPORAL.dim, conversion.TEMPORAL.queries, conversion.TEMPORAL.dummies) == (256, 10, 45)
