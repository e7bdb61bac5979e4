"""The memory that a step of training takes: by counting, before any weight is loaded, and as measured.

`estimate` counts from a configuration alone, for a stage that leaves the vision side as it is: stage 1 and stage 2. `estimate_stage` counts
any stage of a model whose weights may be missing. Beside what is counted a step needs some for its own work: what small heads keep, what
the backward pass makes of one layer, kernels' scratch, the CUDA context.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from tpo_lab import freeze
from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.backbones.counting import head_widths, linear_shapes, lora_parameters, parameter_counts
from tpo_lab.batch import Batch
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.schedules import build_optimizer
from tpo_lab.stages import Lora, Stage
from tpo_lab.training.steps.micro_batch import TrainingStep

_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one step on one device.

    Attributes:
        parameters: all of them, trained or not.
        gradients: of those that train.
        optimizer: AdamW's two moments of each that trains.
        activations: what the forward pass keeps for the backward pass.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """As if all were full at once, which is a little more than the peak."""
        return sum(asdict(self).values())

    def gib(self) -> dict[str, float]:
        """The same in GiB, by name."""
        return {name: value / 2**30 for name, value in asdict(self).items()}

    def mib(self) -> dict[str, float]:
        """The same in MiB, by name."""
        return {name: value / 2**20 for name, value in asdict(self).items()}


def estimate(
    config: Any,
    lora: Lora,
    *,
    rows: int,
    tokens: int,
    learned: int = 0,
    added: int = 0,
    trained: int | None = None,
    checkpointing: bool = False,
    device: str = "cuda",
) -> TrainingMemory:
    """What a step takes in which LoRA trains on weights kept in bfloat16, under autocast, by counting.

    Args:
        config: of one of `tpo_lab.backbones.FAMILIES`.
        lora: its adapters, kept in single precision.
        rows: on the device at once, the micro-batch.
        tokens: of each row, the clip's and the words'.
        learned: places of all rows whose next word is learned; only there are logits computed.
        added: parameters beside backbone and LoRA (tokens, prompts, heads), in single precision.
        trained: how many parameters train; LoRA's alone where None.
        checkpointing: the forward pass keeps the input of each decoder layer alone, and the backward pass computes the rest again.
        device: "cuda" keeps a byte for each value that dropout may put out, "cpu" four.

    Raises:
        UsageError: no rows or no tokens.
    """
    if rows < 1 or tokens < 1:
        raise UsageError("estimate", expected="at least one row of at least one token", got={"rows": rows, "tokens": tokens})
    text = config.get_text_config()
    adapters = lora_parameters(config, lora)
    trained = adapters if trained is None else trained
    layer = layer_activations(text, lora, tokens, device=device)
    layers = int(text.num_hidden_layers)
    # of a checkpointed layer, its input is all that is kept; one layer at a time is computed again
    kept = layers * _BF16 * int(text.hidden_size) + layer if checkpointing else layers * layer
    logits = 2 * _FP32 * int(text.vocab_size) * learned
    return TrainingMemory(
        parameters=_BF16 * sum(parameter_counts(config).values()) + _FP32 * (adapters + added),
        gradients=_FP32 * trained,
        optimizer=2 * _FP32 * trained,
        activations=rows * tokens * (kept + _FP32 * int(text.hidden_size)) + logits,
    )


def estimate_stage(
    model: TPOModel,
    stage: Stage,
    *,
    rows: int,
    tokens: int,
    learned: int = 0,
    checkpointing: bool = False,
    shards: int = 1,
    device: str = "cuda",
) -> TrainingMemory:
    """What a step of a stage takes on one device, by counting; the weights may be on torch's meta device.

    Of the heads, what the greatest of them keeps for an answer of each row; see `Head.kept_bytes`.

    Args:
        model: carries LoRA if the stage trains it.
        rows: on the device at once, the micro-batch.
        tokens: of each row, the clip's and the words'.
        learned: places of all rows whose next word is learned.
        checkpointing: see `estimate`.
        shards: among so many processes the language model's frozen weights are divided.
        device: see `estimate`.

    Raises:
        UsageError: no rows or no tokens.
    """
    if rows < 1 or tokens < 1:
        raise UsageError("estimate", expected="at least one row of at least one token", got={"rows": rows, "tokens": tokens})
    named = model.named_parts()
    trained = [name for name in named if any(fnmatchcase(name, pattern) for pattern in stage.learning_rates)]
    # without autocast the language model computes in what its weights are kept in
    word = _BF16 if stage.precision == "bf16" else next(weight.element_size() for name, weight in named.items() if "llm.base" in name)
    moving = _bytes(named[name] for name in trained)
    # of weights kept in less than single precision, the optimizer has an exact copy beside both moments; see `NarrowAdamW`
    remembered = sum((3 if named[name].element_size() < _FP32 else 2) * _FP32 * named[name].numel() for name in trained)
    # autocast keeps the copies that it makes of weights with gradients until the step ends
    copies = sum(word * named[name].numel() for name in trained if word < named[name].element_size() and named[name].ndim > 1)
    divided = sum(parameter.nbytes for name, parameter in named.items() if name.startswith("llm.base.") and name not in trained)
    text = model.backbone.model.config.get_text_config()
    is_open = any(name.startswith("llm.base.") for name in trained)
    layer = layer_activations(text, model.lora, tokens, device=device, word=word, trained=is_open)
    passed = _kept(int(text.num_hidden_layers), word * int(text.hidden_size), layer, checkpointing) + _FP32 * int(text.hidden_size)
    seen = _vision_activations(model, trained, tokens, word, checkpointing)
    logits = 2 * _FP32 * int(text.vocab_size) * learned
    return TrainingMemory(
        parameters=_bytes(model.parameters()) - divided + divided // shards,
        gradients=moving,
        optimizer=remembered,
        activations=rows * (tokens * passed + seen) + logits + copies + _kept_by_heads(model, stage, rows, checkpointing),
    )


def _kept(layers: int, begin: int, layer: int, checkpointing: bool) -> int:
    """Bytes for each token of a stack of layers: a checkpointed one keeps what it begins with; one at a time is computed again."""
    return layers * begin + layer if checkpointing else layers * layer


def _kept_by_heads(model: TPOModel, stage: Stage, rows: int, checkpointing: bool) -> int:
    """Bytes, as if all rows asked the head that keeps most, once."""
    asked = [model.head(name) for name in stage.heads if name in model.heads]
    return max((head.kept_bytes(rows, model.backbone.num_frames, checkpointing=checkpointing) for head in asked), default=0)


def _vision_activations(model: TPOModel, trained: Sequence[str], tokens: int, word: int, checkpointing: bool) -> int:
    """Bytes that the vision side keeps for each clip, where it trains."""
    vision = model.backbone.model.config.vision_config
    width = int(vision.hidden_size)
    bridge = tokens * word * 4 * model.backbone.hidden_size if any(name.startswith(("vision.", "connector.")) for name in trained) else 0
    if not any(name.startswith("vision.") for name in trained):
        return bridge
    layers = int(getattr(vision, "num_hidden_layers", None) or vision.depth)
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    patches = model.backbone.grids(model.backbone.num_frames) * (model.backbone.image_size // int(patch)) ** 2
    # inputs of both norms and what they give; queries, keys, values and what attention gives; both sides of the nonlinearity
    layer = 2 * (_FP32 + word) * width + 4 * word * width + 2 * word * int(vision.intermediate_size)
    return patches * _kept(layers, word * width, layer, checkpointing) + bridge


def layer_activations(
    text_config: Any, lora: Lora | None, tokens: int, *, device: str = "cuda", word: int = _BF16, trained: bool = False
) -> int:
    """Bytes that one decoder layer keeps for each token of a row, under autocast with LoRA and frozen weights.

    Counted: the inputs of both norms in single precision; queries, keys and values, which are repeated for the queries that share
    them, and what attention gives; its mask, one row of it; the three products of the gated MLP; and for each layer with LoRA its
    input once more, what dropout kept of it, and the low-rank product. A frozen linear layer keeps nothing itself.

    Args:
        tokens: of the row: the mask has so many columns.
        device: see `estimate`.
        word: bytes of a number under autocast: 2 in bfloat16, 4 without it.
        trained: the layer's own weights train too, and their inputs are kept.

    Source: after the counting of Korthikanti et al., "Reducing activation recomputation in large transformer models" (2022), section 4.
    Differs in: frozen weights, LoRA, a gated MLP, and attention that never stores its scores.
    """
    shapes = linear_shapes(text_config)
    width, inner = int(text_config.hidden_size), int(text_config.intermediate_size)
    queries, _ = head_widths(text_config)
    norms = _FP32 * 2 * width
    attention = word * (4 * queries + tokens)
    gated = word * 3 * inner
    adapters = 0
    if lora is not None:
        dropped = 0 if not lora.dropout else {"cuda": 1, "cpu": _FP32}[device]
        adapters = sum(shapes[target][1] * (word + dropped) + word * lora.rank for target in lora.targets)
    return norms + attention + gated + adapters + (word * 2 * width if trained else 0)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made inside the block while they live, on any device; those made before count nothing.

    Attributes:
        now: bytes alive.
        peak: the most at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run an operation; what it takes in was there before, what it gives may be new."""
        for storage in _storages((args, kwargs)):
            self._known.setdefault(storage, True)
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage not in self._known:
                self._known[storage] = True
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return made

    def _add(self, count: int) -> None:
        self.now += count
        self.peak = max(self.peak, self.now)


def checkpoint_layers(model: TPOModel, on: bool = True) -> None:
    """Switch gradient checkpointing on or off: that of `transformers` in a model's backbone, and that of heads which have one.

    A forward pass in training then keeps the input of each layer alone, and the backward pass computes the rest again. The gradient stays
    the same.
    """
    for name in model.heads:
        model.head(name).checkpointing = on
    inside, word = model.backbone.model, "enable" if on else "disable"
    # renamed within version 5, where the old name warns
    call = getattr(inside, f"activation_checkpointing_{word}", None) or getattr(inside, f"gradient_checkpointing_{word}")
    # the reentrant kind gives LoRA on frozen weights no gradient, and is not made for weights in pieces
    call({"use_reentrant": False}) if on else call()


def _storages(tree: Any) -> Iterable[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def measured(model: TPOModel, batch: Batch, stage: Stage, video: Sequence[VideoFeatures] | None = None) -> TrainingMemory:
    """What a step of a stage takes, measured; trains the model by two steps.

    The second is measured: by then optimizer and gradients have their memory.

    Args:
        model: carries LoRA if the stage trains it.
        batch: on the model's device.
        stage: what trains, and in which precision.
        video: features of the clips, for stages that leave the vision side alone; made here where None. Stages that train it make theirs.
    """
    if video is None and not any(pattern.startswith(("vision.", "connector.")) for pattern in stage.learning_rates):
        with torch.no_grad():
            video = model.encode_video(batch.rows)
    groups = freeze.apply(freeze.FreezePlan.of(stage), model.named_parts())
    optimizer = build_optimizer(groups, stage)
    step = TrainingStep(model, bf16=stage.precision == "bf16").train()
    peaks = []
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        with LiveBytes() as alive:
            report = step(batch, None if video is None else list(video), stage.losses)
            report.total.backward()
            del report
        peaks.append(alive.peak)
        optimizer.step()
    trained = [parameter for group in groups for parameter in group.parameters]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor) and value.ndim]
    return TrainingMemory(
        parameters=_bytes(model.parameters()),
        gradients=_bytes(parameter.grad for parameter in trained),
        optimizer=_bytes(states),
        activations=peaks[-1],
    )


def _bytes(tensors: Iterable[Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in tensors if tensor is not None}.values())
