"""What the parts of a TPO model are made of in the published weights of VideoChat-TPO: task tokens, token rows, prompts and heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tpo_lab.backbones.videochat2_parts.configuration import VideoChat2Config
from tpo_lab.backbones.videochat2_parts.keys import VIDEOCHAT_TPO, lora_names
from tpo_lab.heads.cg_detr import CGDETRSettings
from tpo_lab.stages import Lora

HEADS = ("region", "temporal", "mask")
"""In the order of the rows of our table of tokens."""
LORA = Lora(rank=16, alpha=32.0, dropout=0.1, lm_head=True)
"""As published."""
ADDED = (6, 0, 3, 1, 2, 4, 5)
"""Of the rows of our table, prompt, then route and slot of each head: which of the seven published tokens each is."""
EMBEDDING, OUTPUT = (f"{VIDEOCHAT_TPO.language}{name}.weight" for name in ("model.embed_tokens", "lm_head.base_layer"))
OUTPUT_A, OUTPUT_B = (f"{VIDEOCHAT_TPO.language}lm_head.lora_{side}.default.weight" for side in "AB")


@dataclass(frozen=True)
class Origin:
    """Published tensors, and how one of ours is made of them."""

    names: tuple[str, ...]
    make: Callable[..., Tensor] = lambda tensor: tensor

    def of(self, published: Mapping[str, Tensor]) -> Tensor:
        """Make it, in float32."""
        return self.make(*(published[name].float() for name in self.names)).contiguous()


def task_origins(config: VideoChat2Config, temporal: CGDETRSettings) -> dict[str, Origin]:
    """Of every part that `TPOModel.named_parts` adds to a backbone, LoRA included."""
    vocabulary = int(config.text_config.vocab_size)
    return {
        **_lora(config, vocabulary),
        **_tokens(vocabulary),
        **_mlp("prompts.box.layers", "loc_encoder.{}", {0: 0, 2: 2}),
        **_mlp("heads.region.mlp", "loc_decoder.{}", {0: 0, 2: 2}),
        **_mlp("heads.mask.adapter.tokens", "track_embed.layers.{}", {0: 0, 2: 1}),
        **_mlp("heads.mask.adapter.box", "track_embed_decode2.layers.{}", {0: 0, 2: 1}),
        **{f"heads.temporal.network.{name}": origin for name, origin in cg_detr_origins(temporal).items()},
    }


def _lora(config: VideoChat2Config, vocabulary: int) -> dict[str, Origin]:
    found = {f"llm.lora.{ours}": Origin((theirs,)) for ours, theirs in lora_names(config, VIDEOCHAT_TPO.language).items()}
    found["llm.lora.lm_head.lora_B.default.weight"] = Origin((OUTPUT_B,), lambda rows: rows[:vocabulary])
    return found


def _tokens(vocabulary: int) -> dict[str, Origin]:
    rows = [vocabulary + number for number in ADDED]

    def output(base: Tensor, up: Tensor, down: Tensor) -> Tensor:
        """Our new rows stand outside of LoRA, so that it is added to them here."""
        return base[rows] + LORA.alpha / LORA.rank * up[rows] @ down

    names = {"region": "box_token", "temporal": "temporal_token", "mask": "track_token"}
    return {
        **{f"tokens.task.{head}": Origin((names[head],), torch.flatten) for head in HEADS},
        "tokens.rows.input": Origin((EMBEDDING,), lambda table: table[rows]),
        "tokens.rows.output": Origin((OUTPUT, OUTPUT_B, OUTPUT_A), output),
    }


def cg_detr_origins(settings: CGDETRSettings) -> dict[str, Origin]:
    """Of every tensor of CG-DETR's network, with `behaviour="official"`.

    Two published linear maps whose results are added have two biases, of which ours is the sum. Not an equal copy: see
    `tpo_lab.heads.cg_detr.decoder` for how windows are refined there.
    """
    found = {
        "types": _one("token_type_embeddings.weight"),
        "dummies.tokens": _one("dummy_rep_token"),
        "dummies.position": _one("dummy_rep_pos"),
        "sentence.token": _flat("sent_rep_token"),
        "sentence.position": _flat("sent_rep_pos"),
        "moment.token": _flat("moment_rep_token"),
        "moment.position": _flat("moment_rep_pos"),
        "saliency.prototypes": _one("global_rep_token"),
        "saliency.position": _flat("global_rep_pos"),
        **_cg("frame_score", "saliency_proj1"),
        **_cg("clip_score", "saliency_proj2"),
    }
    for ours, theirs in (("frame_projection", "input_vid_proj"), ("text_projection", "input_txt_proj")):
        for block in (0, 1):
            found |= _cg(f"{ours}.{4 * block}", f"{theirs}.{block}.LayerNorm")
            found |= _cg(f"{ours}.{4 * block + 2}", f"{theirs}.{block}.net.1")
    stacks = {
        "dummies.encoder": ("txtproj_encoder", settings.dummy_layers),
        "sentence.encoder": ("scls_encoder", settings.sentence_layers),
        "moment.encoder": ("transformer.mcls_encoder", settings.moment_layers),
        "encoder": ("transformer.encoder", settings.encoder_layers),
    }
    for ours, (theirs, layers) in stacks.items():
        for layer in range(layers):
            found |= _self_attention(f"{ours}.layers.{layer}.attention", f"{theirs}.layers.{layer}.self_attn", settings.dim)
            found |= _behind(f"{ours}.layers.{layer}", f"{theirs}.layers.{layer}", norms=2)
    for layer in range(settings.cross_layers):
        ours, theirs = f"cross.layers.{layer}", f"transformer.t2v_encoder.layers.{layer}"
        found |= _cg(f"{ours}.out", f"{theirs}.self_attn.out_proj") | _behind(ours, theirs, norms=2)
    return found | _decoder(settings)


def _decoder(settings: CGDETRSettings) -> dict[str, Origin]:
    theirs = "transformer.decoder"
    found = {"decoder.windows": _one("query_embed.weight"), **_cg("decoder.label", "class_embed"), **_cg("decoder.norm", f"{theirs}.norm")}
    found |= _cg_mlp("decoder.position", f"{theirs}.ref_point_head", 2) | _cg_mlp("decoder.width", f"{theirs}.ref_anchor_head", 2)
    found |= _cg_mlp("decoder.refine", "span_embed", 3)
    if settings.decoder_layers > 1:
        found |= _cg_mlp("decoder.scale", f"{theirs}.query_scale", 2)
    for layer in range(settings.decoder_layers):
        found |= _decoder_layer(f"decoder.layers.{layer}", f"{theirs}.layers.{layer}", first=layer == 0)
    return found


def _decoder_layer(ours: str, theirs: str, *, first: bool) -> dict[str, Origin]:
    among, across = f"{ours}.among", f"{ours}.across"
    keys = {f"{among}.query_position": "sa_qpos", f"{among}.key": "sa_kcontent", f"{among}.key_position": "sa_kpos"}
    keys |= {f"{across}.key": "ca_kcontent", f"{across}.place": "ca_kpos"}
    found = {f"{name}.weight": _one(f"{theirs}.{part}_proj.weight") for name, part in keys.items()}
    biases = tuple(f"cg_model.{theirs}.sa_{part}_proj.bias" for part in ("qcontent", "qpos"))
    found |= {f"{among}.query.weight": _one(f"{theirs}.sa_qcontent_proj.weight"), f"{among}.query.bias": Origin(biases, torch.add)}
    found |= _cg(f"{among}.value", f"{theirs}.sa_v_proj") | _cg(f"{among}.out", f"{theirs}.self_attn.out_proj")
    found |= _cg(f"{across}.query", f"{theirs}.ca_qcontent_proj") | _cg(f"{across}.window", f"{theirs}.ca_qpos_sine_proj")
    found |= _cg(f"{across}.value", f"{theirs}.ca_v_proj") | _cg(f"{across}.out", f"{theirs}.cross_attn.out_proj")
    if first:
        found |= _cg(f"{across}.start", f"{theirs}.ca_qpos_proj")
    return found | _behind(ours, theirs, norms=3)


def _self_attention(ours: str, theirs: str, dim: int) -> dict[str, Origin]:
    """Published, the maps of queries, keys and values lie one below the other."""
    found = _cg(f"{ours}.out", f"{theirs}.out_proj")
    for number, part in enumerate(("query", "key", "value")):
        rows = slice(number * dim, (number + 1) * dim)
        for kind in ("weight", "bias"):
            if (part, kind) != ("key", "bias"):
                found[f"{ours}.{part}.{kind}"] = _one(f"{theirs}.in_proj_{kind}", _rows(rows))
    return found


def _rows(rows: slice) -> Callable[[Tensor], Tensor]:
    return lambda joined: joined[rows]


def _behind(ours: str, theirs: str, *, norms: int) -> dict[str, Origin]:
    """The feed-forward layers and norms of a layer."""
    found = _cg(f"{ours}.feedforward.0", f"{theirs}.linear1") | _cg(f"{ours}.feedforward.3", f"{theirs}.linear2")
    found[f"{ours}.feedforward.1.weight"] = _one(f"{theirs}.activation.weight")
    for number in range(norms):
        found |= _cg(f"{ours}.norms.{number}", f"{theirs}.norm{number + 1}")
    return found


def _one(name: str, make: Callable[..., Tensor] = lambda tensor: tensor) -> Origin:
    return Origin((f"cg_model.{name}",), make)


def _flat(name: str) -> Origin:
    return _one(name, torch.flatten)


def _cg(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.{kind}": _one(f"{theirs}.{kind}") for kind in ("weight", "bias")}


def _cg_mlp(ours: str, theirs: str, layers: int) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for layer in range(layers):
        found |= _cg(f"{ours}.{2 * layer}", f"{theirs}.layers.{layer}")
    return found


def _mlp(ours: str, theirs: str, numbers: Mapping[int, int]) -> dict[str, Origin]:
    """Linear layers by our number and theirs."""
    kinds = ("weight", "bias")
    return {f"{ours}.{here}.{kind}": Origin((f"{theirs.format(there)}.{kind}",)) for here, there in numbers.items() for kind in kinds}
