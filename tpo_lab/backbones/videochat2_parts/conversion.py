"""The published weights of VideoChat-TPO and VideoChat2 as folders of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.keys import (
    VIDEOCHAT2,
    VIDEOCHAT_TPO,
    language_names,
    lora_names,
    require_names,
    tower_names,
)
from tpo_lab.backbones.videochat2_parts.published import PublishedWeights
from tpo_lab.backbones.videochat2_parts.task_keys import LORA, task_origins
from tpo_lab.backbones.videochat2_parts.writing import open_backbone, write_backbone
from tpo_lab.checkpoints.atomic import new_folder
from tpo_lab.errors import UsageError
from tpo_lab.heads import CGDETRSettings
from tpo_lab.precomputed import FeatureFolder

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from tpo_lab.model import TPOModel

BACKBONE, SAM2, CHECKPOINT = "backbone", "sam2", "checkpoint"
"""Folders of a converted VideoChat-TPO."""
NUM_FRAMES = 16
TEMPORAL = CGDETRSettings(features=(FeatureFolder(folder="internvideo2-clip-1b", width=768),), step_sec=1.0, behaviour="official")
"""The published temporal head looks at features of InternVideo2-CLIP 1B, one a second, in files beside the videos."""
_SAM = "sam."


def convert(
    source: Path | str,
    out: Path | str,
    *,
    tokenizer: Path | str | None = None,
    config: VideoChat2Config | None = None,
    temporal: CGDETRSettings = TEMPORAL,
) -> Path:
    """Write the published VideoChat-TPO as `backbone`, `sam2` and `checkpoint` in a new folder; `checkpoint` is what opens the model.

    Weights of the backbone are read and written piece by piece, so that 3 GB of memory are enough. The checkpoint names the other two
    folders by their full paths, so that they must stay where they are.

    Language model with LoRA, vision side, tokens, prompts, region head, and mask head with SAM2 compute what the published ones compute.
    The temporal head is a start for training, not a copy: its text is the states of the language model and not those of a second one, and
    what moves the windows between the layers of its decoder has no place in ours.

    Args:
        source: the published folder with `model.safetensors.index.json`.
        out: a new folder.
        tokenizer: a folder with the `tokenizer.json` of Mistral-7B-Instruct-v0.2; `source` where None.
        config: sizes, the published ones where None.
        temporal: of the temporal head; where the files of its features are.

    Returns:
        the folder of the checkpoint.

    Raises:
        UsageError: tensors are missing, not known, or of another shape; or there is no tokenizer.
        TPOError: the folder cannot be written.
    """
    config, out = config or VideoChat2Config(), Path(out).resolve()
    published, release = PublishedWeights(source), VIDEOCHAT_TPO
    names = tower_names(config, release) | language_names(config, release.language, release.base)
    origins = task_origins(config, temporal)
    ours = [*names.values(), *(name for origin in origins.values() for name in origin.names)]
    sam = [name for name in published if name.startswith(_SAM)]
    require_names(published, [*ours, *sam], release.unused, source)
    words = read_tokenizer(Path(tokenizer or source), int(config.text_config.vocab_size))
    _require_new(out)
    with new_folder(out) as partial:
        dtype = published[names["lm_head.weight"]].dtype
        write_backbone(partial / BACKBONE, config, lambda name: published[names[name]], dtype)
        words.save_pretrained(partial / BACKBONE)
        tracker = _sam2({name.removeprefix(_SAM): published[name].float() for name in sam}, source)
        tracker.save_pretrained(partial / SAM2)
        parts = {name: origin.of(published) for name, origin in origins.items()}
        _save(_assembled(partial, out, config, temporal, words, tracker), parts, partial / CHECKPOINT, source)
    return out / CHECKPOINT


def convert_videochat2(
    weights: Path | str, language: Path | str, out: Path | str, *, config: VideoChat2Config | None = None, lora: float = 2.0
) -> Path:
    """Write the published VideoChat2 (Mistral) as a backbone, its LoRA merged into the language model.

    Args:
        weights: `videochat2_mistral_7b_stage3.pth` or its like; only tensors are read from it, no code is run.
        language: the folder of Mistral-7B-Instruct-v0.2, which that file builds on, with its `tokenizer.json`.
        out: a new folder.
        config: sizes, the published ones where None.
        lora: alpha / rank, 32 / 16 as published.

    Raises:
        UsageError: tensors are missing, not known, or of another shape; or there is no tokenizer.
        TPOError: the folder cannot be written.
    """
    config, out, release = config or VideoChat2Config(), Path(out).resolve(), VIDEOCHAT2
    published, base = _read_pth(Path(weights)), PublishedWeights(language)
    towers, words = tower_names(config, release), language_names(config, "", "")
    adapters = lora_names(config, release.language)
    require_names(published, [*towers.values(), *adapters.values()], release.unused, weights)
    require_names(base, words.values(), (), language)

    def read(name: str) -> Tensor:
        if name in towers:
            return published[towers[name]]
        layer, plain = name.removesuffix(".weight"), base[words[name]]
        if f"{layer}.lora_A.default.weight" not in adapters:
            return plain
        down, up = (published[adapters[f"{layer}.lora_{side}.default.weight"]].float() for side in "AB")
        return (plain.float() + lora * up @ down).to(plain.dtype)

    tokenizer = read_tokenizer(Path(language), int(config.text_config.vocab_size))
    _require_new(out)
    with new_folder(out) as partial:
        write_backbone(partial, config, read, base[words["lm_head.weight"]].dtype)
        tokenizer.save_pretrained(partial)
    return out


def read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer of a folder's `tokenizer.json` without what was added behind the vocabulary.

    Raises:
        UsageError: there is none, or it lacks the tokens that start and end a conversation.
    """
    import json

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        hint = "Take that of Mistral-7B-Instruct-v0.2."
        raise UsageError("tokenizer", expected="a folder with tokenizer.json", got=str(folder), hint=hint)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < vocabulary]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    for needed in ("<unk>", "<s>", "</s>"):
        if tokenizer.token_to_id(needed) is None:
            raise UsageError(f"tokenizer {path}", expected=f"the token {needed}", got=None)
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>")


def _assembled(
    partial: Path, out: Path, config: VideoChat2Config, temporal: CGDETRSettings, words: Any, tracker: Sam2VideoModel
) -> TPOModel:
    """The model with its backbone on the disk; its names of folders are those that they will have."""
    from tpo_lab.backbones.videochat2 import VideoChat2Backbone
    from tpo_lab.heads import CGDETRHead, Head, MaskHead, MaskSettings, RegionHead, RegionSettings
    from tpo_lab.model import TPOModel

    opened = open_backbone(partial / BACKBONE, config)
    backbone = VideoChat2Backbone(opened, words, name=str(out / BACKBONE), num_frames=NUM_FRAMES)
    width = backbone.hidden_size
    heads: list[Head[Any, Any]] = [
        RegionHead(width, RegionSettings(loss="official", assignment="in-order")),
        CGDETRHead(width, temporal),
        MaskHead(width, MaskSettings(sam=str(out / SAM2), loss="distill"), sam=tracker),
    ]
    return TPOModel(backbone, heads, prompts="box")


def _save(model: TPOModel, parts: dict[str, Tensor], folder: Path, source: Path | str) -> None:
    from tpo_lab import checkpoint

    model.add_lora(LORA)
    checkpoint.restore(model, parts, label=str(source))
    checkpoint.save(model, folder)


def _sam2(state: dict[str, Tensor], source: Path | str) -> Sam2VideoModel:
    from transformers import Sam2VideoModel

    from tpo_lab.sam2.configs import sam2_config
    from tpo_lab.sam2.weights import from_official, load_strictly, official_kind

    size, version = official_kind(state)
    model: Any = Sam2VideoModel(sam2_config(size, version=version))
    load_strictly(model, from_official(state), source)
    return model.eval()  # type: ignore[no-any-return]


def _read_pth(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError("weights", expected="a .pth file", got=str(path), hint="There is no such file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise UsageError("weights", expected="a .pth file of tensors", got=str(path), hint=f"It cannot be read: {error}") from error
    state = content.get("model", content) if isinstance(content, dict) else {}
    return {str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _require_new(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError("out", expected="a new folder", got=str(out))
