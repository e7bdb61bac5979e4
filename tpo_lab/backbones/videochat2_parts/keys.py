"""The names of the published weights of VideoChat2 and VideoChat-TPO beside ours: what each of our tensors is made of.

Source: the index of VideoChat-TPO's weight files for that model; for VideoChat2, whose files are not indexed, the released code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.errors import UsageError

LISTED = 10
"""Names of each kind that an error lists."""
LINEAR = tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
"""The linear layers of a layer of Mistral, all of which carry LoRA in the published weights."""


@dataclass(frozen=True)
class Published:
    """How one release names what the others have too.

    Attributes:
        language: what stands before the names that Mistral has in transformers.
        projector: the layer between Q-Former and language model.
        base: what stands between a linear layer's name and ".weight" where the layer carries LoRA.
        unused: patterns of names that the release holds and that nothing reads when the model answers.
    """

    language: str
    projector: str
    base: str
    unused: tuple[str, ...]


_TEXT_SIDE = (
    r"qformer\.bert\.embeddings\.(word_embeddings\.weight|position_embeddings\.weight|position_ids)",
    r"qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\.(dense|LayerNorm)\.(weight|bias)",
)
"""Of the Q-Former, which could read a question beside its queries."""
VIDEOCHAT2 = Published(language="mistral_model.base_model.model.", projector="mistral_proj", base="", unused=_TEXT_SIDE)
VIDEOCHAT_TPO = Published(
    language="lm.base_model.model.",
    projector="project_up",
    base=".base_layer",
    unused=(
        *_TEXT_SIDE,
        r"(merge_proj|project_down)\.(weight|bias)",
        # a simpler temporal head and an action head, for experiments
        r"(temporal_embed|action_embed)\.layers\.[01]\.(weight|bias)",
        r"cg_criterion\.empty_weight",
        r"cg_model\.(txt_position_embed|txt_proj_linear)\..*",
        # moves the windows between the decoder's layers; ours are moved by what reads them, `span_embed`
        r"cg_model\.transformer\.decoder\.bbox_embed\.layers\.[012]\.(weight|bias)",
        # of keys: softmax cancels it
        r"cg_model\.transformer\.decoder\.layers\.\d+\.(sa|ca)_k(content|pos)_proj\.bias",
    ),
)


def tower_names(config: VideoChat2Config, release: Published) -> dict[str, str]:
    """Published names by ours of encoder, Q-Former and projection."""
    reader, every = config.qformer_config, config.qformer_config.cross_attention_frequency
    names = {"model.query_tokens": "query_tokens", "model.extra_query_tokens": "extra_query_tokens"}
    names |= _both("model.vision_tower.patch_embed", "vision_encoder.encoder.patch_embed.proj")
    names |= _both("model.vision_tower.norm", "vision_layernorm")
    names |= _both("model.qformer.layernorm", "qformer.bert.embeddings.LayerNorm")
    names |= _both("model.projector", release.projector)
    for layer in range(config.vision_config.num_hidden_layers):
        names |= _inside(f"model.vision_tower.layers.{layer}.", f"vision_encoder.encoder.blocks.{layer}.", _ENCODER_LAYER)
    for layer in range(reader.num_hidden_layers):
        found = _READER_LAYER | (_CROSS if layer % every == 0 else {})
        names |= _inside(f"model.qformer.encoder.layer.{layer}.", f"qformer.bert.encoder.layer.{layer}.", found)
    return names


def language_names(config: VideoChat2Config, prefix: str, base: str) -> dict[str, str]:
    """Published names by ours of the language model without LoRA."""
    names = {f"model.language_model.{name}.weight": f"{prefix}model.{name}.weight" for name in ("embed_tokens", "norm")}
    names["lm_head.weight"] = f"{prefix}lm_head{base}.weight"
    for layer in range(config.text_config.num_hidden_layers):
        ours, theirs = f"model.language_model.layers.{layer}", f"{prefix}model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            names[f"{ours}.{norm}.weight"] = f"{theirs}.{norm}.weight"
        names |= {f"{ours}.{name}.weight": f"{theirs}.{name}{base}.weight" for name in LINEAR}
    return names


def lora_names(config: VideoChat2Config, prefix: str) -> dict[str, str]:
    """Published names of LoRA's matrices by those of our model."""
    layers = {"lm_head": f"{prefix}lm_head"}
    for layer in range(config.text_config.num_hidden_layers):
        layers |= {f"model.language_model.layers.{layer}.{name}": f"{prefix}model.layers.{layer}.{name}" for name in LINEAR}
    return {
        f"{ours}.lora_{side}.default.weight": f"{theirs}.lora_{side}.default.weight" for ours, theirs in layers.items() for side in "AB"
    }


def require_names(given: Iterable[str], wanted: Iterable[str], unused: Sequence[str], source: object) -> list[str]:
    """Compare the names of published weights with those that are read.

    Returns:
        the names that are known and not read.

    Raises:
        UsageError: names that are missing, or unknown; the message counts them and lists the first of them.
    """
    has, reads = set(given), set(wanted)
    known = re.compile("|".join(f"(?:{pattern})" for pattern in unused) or r"(?!)")
    rest = sorted(has - reads)
    unread, unknown = [name for name in rest if known.fullmatch(name)], [name for name in rest if not known.fullmatch(name)]
    missing = sorted(reads - has)
    if missing or unknown:
        parts = {"missing": missing, "not known": unknown}
        got = "; ".join(f"{len(names)} {what}: {', '.join(names[:LISTED])}" for what, names in parts.items() if names)
        raise UsageError("weights", expected=f"{len(reads)} published tensors", got=f"{source}: {got}")
    return unread


def _both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}


def _inside(ours: str, theirs: str, names: dict[str, str]) -> dict[str, str]:
    return {ours + left: theirs + right for left, right in names.items()}


_ENCODER_LAYER = {
    "attention.qkv.weight": "attn.qkv.weight",
    "attention.q_bias": "attn.q_bias",
    "attention.v_bias": "attn.v_bias",
    **_both("attention.out", "attn.proj"),
    **_both("norm1", "norm1"),
    **_both("norm2", "norm2"),
    **_both("fc1", "mlp.fc1"),
    **_both("fc2", "mlp.fc2"),
}


def _attention(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("query", "key", "value"):
        found |= _both(f"{name}.attention.{part}", f"{name}.self.{part}")
    return found | _both(f"{name}.output.dense", f"{name}.output.dense") | _both(f"{name}.output.LayerNorm", f"{name}.output.LayerNorm")


_READER_LAYER = _attention("attention")
for _name in ("intermediate_query.dense", "output_query.dense", "output_query.LayerNorm"):
    _READER_LAYER |= _both(_name, _name)
_CROSS = _attention("crossattention")
