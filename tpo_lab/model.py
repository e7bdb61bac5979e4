"""The TPO model: a backbone, the token table, the prompt encoder and the heads, joined by the task embedding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tpo_lab.backbones.base import Backbone, Inputs, VideoFeatures
from tpo_lab.batch import Batch, Collator, HeadSlots, Row
from tpo_lab.conversation import ConversationEncoder
from tpo_lab.errors import TPOError, UsageError, unknown_name
from tpo_lab.heads import Head, Visual
from tpo_lab.heads.base import ClipInfo
from tpo_lab.objective import LossReport, combine, word_losses
from tpo_lab.precomputed import FeatureFiles
from tpo_lab.prompts import Pointed, PromptEncoder, Understood
from tpo_lab.sample import ANSWERED_BY, Sample, heads_asked
from tpo_lab.stages import Lora
from tpo_lab.tokens import TokenTable, add_tokens

if TYPE_CHECKING:
    from tpo_lab.answer import Answer


@dataclass(frozen=True)
class Forward:
    """What one pass over a batch gives.

    Attributes:
        hidden: states after the final norm, [row, token, d].
        logits: over the learned positions only, [target, vocabulary].
        task_embeddings: e_i per head, [slot, d].
        predictions, visuals: per head.
    """

    hidden: Tensor
    logits: Tensor
    task_embeddings: dict[str, Tensor]
    predictions: dict[str, Any]
    visuals: dict[str, Visual]


TaskInput = Literal["token", "token+prompts"]


@dataclass
class Provenance:
    """Where the weights came from; stored with every checkpoint."""

    history: list[dict[str, Any]] = field(default_factory=list)


class TPOModel(nn.Module):
    """A multimodal language model with task tokens and task heads.

    Args:
        backbone: the adapter around the language model.
        heads: built heads; their `embed_dim` is the backbone's hidden size.
        task_std: initial scale of the task tokens (see `TokenTable`).
        prompts: what it understands of what users point at, and how (see `PromptEncoder`).
        task_input: what enters the language model at a task token: "token" alone, as in the paper, or "token+prompts", with the mean of
            what the user points at in the question; small language models learn to copy that in tens of thousands of questions only.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Sequence[Head[Any, Any]] = (),
        *,
        task_std: float | None = None,
        prompts: Understood = "box+stroke",
        task_input: TaskInput = "token",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        for head in heads:
            if head.embed_dim != backbone.hidden_size:
                raise UsageError(
                    f"{head.name} head: embed_dim", expected=f"{backbone.hidden_size}, the backbone's width", got=head.embed_dim
                )
            if head.name in self.heads:
                raise UsageError("heads", expected="one head per name", got=[h.name for h in heads])
            if "frame_states" in head.needs and not backbone.cells_per_frame:
                expected = "a head that reads no states of frames, since this backbone's visual tokens belong to the clip as a whole"
                raise UsageError(f"{head.name} head", expected=expected, got=head.variant)
            self.heads[head.name] = head
        ids = add_tokens(backbone.tokenizer, tuple(self.heads))
        self.tokens = TokenTable(ids, backbone.embedding, backbone.output_rows, task_std=task_std)
        self.prompts = PromptEncoder(backbone.hidden_size, prompts)
        self.task_input: TaskInput = task_input
        self.encoder = ConversationEncoder(backbone.tokenizer, backbone.chat, ids)
        self.collate = Collator(self.encoder, backbone.video_placeholder, int(backbone.tokenizer.pad_token_id or 0))
        self.lora: Lora | None = None
        self.trained_backbone_parts: set[str] = set()
        self.provenance = Provenance()

    def add_lora(self, settings: Lora) -> None:
        """Put LoRA on the language model's linear layers; a second call with other settings is refused.

        Raises:
            UsageError: it carries LoRA with other settings, or a target is the name of no layer.
        """
        from peft import LoraConfig, inject_adapter_in_model

        if self.lora is not None:
            if self.lora != settings:
                raise UsageError("lora", expected=repr(self.lora), got=settings, hint="The model already carries LoRA; merge it first.")
            return
        self._refuse_unknown_targets(settings.targets)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any number scales
            lora_dropout=settings.dropout,
            target_modules=self.backbone.lora_targets((*settings.targets, "lm_head") if settings.lm_head else settings.targets),
        )
        inject_adapter_in_model(config, self.backbone.model)
        for name, parameter in self.named_parts().items():
            # steps of 2e-5 vanish in the rounding of a bf16 language model
            if name.startswith("llm.lora."):
                parameter.data = parameter.data.float()
        self.lora = settings

    def _refuse_unknown_targets(self, targets: Iterable[str]) -> None:
        """peft passes over a target that no layer has as long as another one has a layer."""
        modules = dict(self.backbone.model.named_modules())

        def is_found(target: str) -> bool:
            pattern = re.compile(self.backbone.lora_targets((target,)))
            return any(pattern.fullmatch(name) for name in modules)

        for target in targets:
            if not is_found(target):
                linear = {name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, nn.Linear)}
                raise unknown_name("lora.targets", target, filter(is_found, linear))

    def named_parts(self) -> dict[str, nn.Parameter]:
        """Every parameter once, under a part that every backbone has: vision, connector, llm.base, llm.lora, tokens, prompts, heads."""
        named: dict[str, nn.Parameter] = {}
        prefixes = self.backbone.parts()
        for name, parameter in self.backbone.model.named_parameters():
            part = next((part for part, starts in prefixes.items() if name.startswith(starts)), None)
            if part is None:
                raise TPOError(
                    f"backbone {self.backbone.name}: expected every parameter to belong to one of {sorted(prefixes)}, got {name}."
                )
            if part == "llm":
                part = "llm.lora" if ".lora_" in name else "llm.base"
            named[f"{part}.{name}"] = parameter
        for prefix, module in (("tokens", self.tokens), ("prompts", self.prompts), ("heads", self.heads)):
            named.update({f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()})
        return named

    @property
    def given_parts(self) -> tuple[str, ...]:
        """How the names of parameters begin that came from pretrained models: the backbone's, and those that heads took."""
        heads = (f"heads.{name}.{prefix}" for name in self.heads for prefix in self.head(name).given)
        return ("vision.", "connector.", "llm.base.", *heads)

    def encode_video(self, rows: Sequence[Row]) -> list[VideoFeatures]:
        """Vision features of each row, clips with equally many frames encoded together."""
        found: dict[int, VideoFeatures] = {}
        by_length: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            by_length.setdefault(len(row.frames), []).append(index)
        for indices in by_length.values():
            features = self.backbone.video_features(torch.stack([rows[i].frames for i in indices]))
            for place, index in enumerate(indices):
                found[index] = features.of(place)
        return [found[index] for index in range(len(rows))]

    def inputs(self, batch: Batch, video: Sequence[VideoFeatures]) -> tuple[Inputs, Tensor | None]:
        """What the language model reads, and of that what users point at [prompt, d], None where they do not."""
        pointed = batch.prompts
        prompts = self.prompts(pointed, self._seen_at(pointed, video)) if len(pointed) else None
        with self.tokens.prompt_values(prompts):
            inputs = self.backbone.inputs(batch.ids, batch.positions, video, [row.clip.times_sec for row in batch.rows])
        if prompts is None or self.task_input == "token":
            return inputs, prompts
        carried = torch.zeros_like(inputs.embeds)
        for slots in batch.slots.values():
            carried[slots.row, slots.token] = pointed.mean_within(prompts, slots.row, slots.question).to(carried.dtype)
        return inputs.plus(carried), prompts

    def _seen_at(self, pointed: Pointed, video: Sequence[VideoFeatures]) -> Tensor:
        """The visual tokens of the frame that each prompt lies on [prompt, cell, d]; of the clip in one cell where frames have none."""
        cells = self.backbone.cells_per_frame
        if not cells:
            return torch.stack([video[row].tokens[0].mean(0, keepdim=True) for row in pointed.row.tolist()])
        grids = (pointed.frame // self.backbone.frames_per_grid).tolist()
        places = zip(pointed.row.tolist(), grids, strict=True)
        return torch.stack([video[row].tokens[0, grid * cells : (grid + 1) * cells] for row, grid in places])

    def forward(self, batch: Batch, video: Sequence[VideoFeatures] | None = None) -> Forward:
        """Run backbone and heads over a batch; `video` are features from `encode_video` or a cache of them."""
        video = self.encode_video(batch.rows) if video is None else video
        inputs, _ = self.inputs(batch, video)
        hidden, _ = self.backbone.language_model(inputs, mask=batch.attention_mask())
        states = hidden[batch.predictor[:, 0], batch.predictor[:, 1]]
        logits = self.tokens.extend_logits(self.backbone.logits(states), states)
        embeddings: dict[str, Tensor] = {}
        predictions: dict[str, Any] = {}
        visuals: dict[str, Visual] = {}
        for name, slots in batch.slots.items():
            embeddings[name] = hidden[slots.row, slots.token]
            visuals[name] = self._visual(self.heads[name], slots, batch, video, hidden)
            predictions[name] = self.heads[name](embeddings[name], visuals[name])
        return Forward(hidden, logits, embeddings, predictions, visuals)

    def losses(self, batch: Batch, forward: Forward, weights: Mapping[str, float] | None = None) -> LossReport:
        """The objective.

        Args:
            weights: the stage's weights of "mlm", "assign" and each head. A head without one is not learnt, and needs no
                annotation; without "assign" the routes are words like any others. Everything weighs 1 where None.
        """
        chosen = {name: 1.0 for name in ("mlm", "assign", *self.heads)} if weights is None else {"mlm": 0.0, **weights}
        words = word_losses(forward.logits, batch.target, batch.is_route, separate="assign" in chosen)
        terms: dict[str, Mapping[str, Tensor]] = {name: {name: values} for name, values in words.items()}
        head_weights: dict[str, Mapping[str, float]] = {}
        for name, target in self.targets(batch, tuple(chosen)).items():
            head = self.head(name)
            terms[name] = head.losses(forward.predictions[name], target)
            head_weights[name] = head.weights()
        return combine(terms, head_weights, chosen)

    def targets(self, batch: Batch, heads: Sequence[str] | None = None) -> dict[str, Any]:
        """The targets of these heads for the batch; of all that the batch asks where None.

        Raises:
            UsageError: for a marker without an annotation.
        """
        found = {}
        for name, slots in batch.slots.items():
            if heads is not None and name not in heads:
                continue
            head = self.head(name)
            for answer, annotation in enumerate(slots.annotations):
                if annotation is None:
                    row = batch.rows[int(slots.row[slots.answer == answer][0])]
                    asked = ", ".join(sample.id for sample in row.samples if _asks(sample, name) and not _has_target(sample, name))
                    raise UsageError(f"sample {asked}: targets.{name}", expected=f"an annotation for the marker <{name}>", got=None)
            items = [head.encode_target(annotation, clip) for annotation, clip in zip(slots.annotations, slots.clips, strict=True)]
            found[name] = head.collate_targets(items, slots.slots_per_answer, self.backbone.device)
        return found

    @property
    def feature_files(self) -> dict[str, FeatureFiles]:
        """By head, the files of features that it looks at; heads that look at the backbone's own are left out."""
        found = {name: self.head(name).features for name in self.heads}
        return {name: files for name, files in found.items() if files is not None}

    def _visual(self, head: Any, slots: HeadSlots, batch: Batch, video: Sequence[VideoFeatures], hidden: Tensor) -> Visual:
        rows = slots.row.tolist()
        gathered: dict[str, Tensor] = {}
        # what is gathered by row is put together once and then handed to every slot, since padding each slot by itself is slow
        asked = sorted(set(rows))
        place = torch.tensor([asked.index(row) for row in rows], dtype=torch.long, device=hidden.device)
        if "frames" in head.needs:
            gathered["frames"] = _stack_padded([batch.rows[row].frames for row in asked]).to(hidden.device)[place]
        if "frame_features" in head.needs:
            gathered["frame_features"] = _stack_padded([features_for(head, batch.rows[row], video[row]) for row in asked])[place]
        if "frame_states" in head.needs:
            states = [self.frame_states(hidden[row], batch.rows[row].clip.times_sec) for row in asked]
            gathered["frame_states"] = _stack_padded(states)[place]
        if "query" in head.needs:
            spans = [hidden[row, start:end] for row, (start, end) in zip(rows, slots.question.tolist(), strict=True)]
            gathered["query_features"] = _stack_padded(spans)
            gathered["query_valid"] = _stack_padded([torch.ones(len(span), dtype=torch.bool, device=hidden.device) for span in spans])
        clips = [slots.clips[answer] for answer in slots.answer.tolist()]
        gathered["prompt_xyxy"] = slots.prompt_xyxy[slots.answer].to(hidden.device)
        return clip_visual(clips, slots.answer, hidden.device, clip=place, **gathered)

    def frame_states(self, hidden: Tensor, times_sec: Sequence[float]) -> Tensor:
        """The language model's states at the visual tokens of one row's clip: [token, d] to [frame, cell, d].

        Frames that share a grid of visual tokens share its states. There are no cells where visual tokens belong to no frame.
        """
        backbone, count = self.backbone, len(times_sec)
        places = [place for place, token in enumerate(self.collate.prefix(times_sec)) if token == backbone.video_token]
        grids, cells = backbone.grids(count), backbone.cells_per_frame
        states = hidden[places[: grids * cells]].reshape(grids, cells, hidden.shape[-1])
        return states.repeat_interleave(backbone.frames_per_grid, 0)[:count]

    def answer(self, video: str | Path, question: str, **options: Any) -> Answer:
        """Answer a question about a video or image file; the options are those of `tpo_lab.asking.ask`."""
        from tpo_lab.asking import ask

        return ask(self, video, question, **options)[0]

    def head(self, name: str) -> Head[Any, Any]:
        """A head by name.

        Raises:
            UsageError: where the model has no such head.
        """
        if name not in self.heads:
            raise unknown_name("head", name, self.heads.keys())
        return self.heads[name]  # type: ignore[return-value]


def _asks(sample: Sample, head: str) -> bool:
    return any(head in heads_asked(turn.text) for turn in sample.conversation if turn.role == "assistant")


def _has_target(sample: Sample, head: str) -> bool:
    return any(ANSWERED_BY.get(name, name) == head for name in sample.targets.names)


def features_for(head: Head[Any, Any], row: Row, video: VideoFeatures) -> Tensor:
    """What a head sees of one row, [frame, patch, d]: the patches of the backbone's vision tower, or rows from files as one patch each.

    Raises:
        UsageError: the head looks at files, and the row was made without.
    """
    if head.features is None:
        return video.frames[0]
    if head.name not in row.features:
        hint = "Make rows by `Frames(model.backbone, features=model.feature_files)`."
        raise UsageError(f"sample {row.samples[0].id}: features", expected=f"those that the {head.name} head looks at", got=None, hint=hint)
    return row.features[head.name].values[:, None].to(video.frames.device)


def clip_visual(clips: Sequence[ClipInfo], answer: Tensor, device: torch.device, **gathered: Tensor) -> Visual:
    """The `Visual` of slots whose clips are given, one clip per slot."""
    times = [torch.tensor(clip.times_sec, dtype=torch.float32) for clip in clips]
    return Visual(
        times_sec=_stack_padded(times).to(device),
        frame_valid=_stack_padded([torch.ones(len(row), dtype=torch.bool) for row in times]).to(device),
        duration_sec=torch.tensor([clip.duration_sec for clip in clips], dtype=torch.float32, device=device),
        size_wh=torch.tensor([(clip.width, clip.height) for clip in clips], dtype=torch.float32, device=device),
        answer=answer.to(device),
        **gathered,
    )


def _stack_padded(rows: Iterable[Tensor]) -> Tensor:
    """Stack tensors that differ in their first axis, padded with zeros."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
