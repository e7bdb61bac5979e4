"""The settings of CG-DETR: the published sizes as defaults, and the sizes that a CPU can train in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from tpo_lab import knobs
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.heads.base import HeadSettings
from tpo_lab.heads.sliding import Sliding
from tpo_lab.precomputed import FeatureFiles, FeatureFolder

Behaviour = Literal["sound", "official"]

NANO: Mapping[str, Any] = MappingProxyType(
    {
        "dim": 64,
        "heads": 4,
        "feedforward_dim": 128,
        "dummies": 8,
        "queries": 5,
        "prototypes": 4,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "cross_layers": 1,
        "dummy_layers": 1,
        "sentence_layers": 1,
        "moment_layers": 1,
        "input_dropout": 0.0,
        "dropout": 0.0,
        "drop_path": 0.0,
        "weight_attention": 0.1,
        "weight_align": 0.1,
    }
)
"""Sizes at nano scale, and the weights of the attention's and the alignment's terms, which would drown those of the windows there:
`build_head("temporal", width, head="cg-detr", vision_dim=..., **NANO)`.
"""


@dataclass(frozen=True)
class CGDETRSettings(HeadSettings):
    """Settings of CG-DETR; a term's weight in the objective is `scale` times its `weight_*`.

    Attributes:
        vision_dim: width of the vision tower's patch features, which `tpo_lab.build` fills in; with `features`, the sum of their widths.
        features: folders of precomputed features to look at in place of the vision tower's, as `FeatureFolder` or its fields.
        step_sec: seconds from one row of those files to the next; 2 in QVHighlights.
        dim: width d of all inner tokens.
        heads: attention heads; they divide `dim`.
        feedforward_dim: width of the hidden layer behind each attention.
        dummies: learned tokens that take up what of a frame the text does not speak of.
        queries: windows that the decoder proposes.
        prototypes: pool of vectors that the saliency token is made of.
        chosen_prototypes: how many of them, those that fit the clip best, make it up.
        encoder_layers: self-attention layers over saliency token and frames.
        decoder_layers: layers that refine the windows; each but the last has auxiliary terms.
        cross_layers: adaptive cross-attention layers from frames to text.
        dummy_layers: layers that condition the dummies on the text.
        sentence_layers: layers that sum up text, and dummies, in one token.
        moment_layers: layers that sum up frames inside, and outside, of windows in one token.
        input_dropout: in the projections of frames and text.
        dropout: in attention and feed-forward layers.
        drop_path: rate at which a sample skips a residual branch.
        max_text: tokens of the question that are looked at, from its start.
        behaviour: "sound", or "official" for the published choices that the head's docstring lists.
        top_grade: the annotated saliency of the best clips; QVHighlights has 0 to 4.
        grades: levels that annotated saliency is told apart in; 3 raters times 4 as published.
        margin: of the margin terms, in units of the score.
        temperature: of the rank-contrastive terms.
        max_windows: most windows that an answer may list.
        nms_iou: a window is left out if its IoU with a better one is above this; 1 keeps all.
        window_frames: most frames that are read at once in inference, as many as the clips of the training had; a longer video is read in
            windows that overlap (`tpo_lab.heads.sliding`). None reads any video at once.
        window_overlap: frames that neighbouring windows share; half of a window where None.
        round_sec: windows snap to multiples of this and keep at least one; None does not round.
        scale: of all terms; TPO's 0.05 is the stage's weight of the head ("losses.temporal") and comes on top.
        weight_span: of the L1 distance of (centre, width).
        weight_giou: of the generalised IoU.
        weight_label: of the foreground classification.
        background_weight: of a query without window in it, against 1 of one with.
        weight_saliency: of all saliency terms; 4 in TPO, 1 in CG-DETR for QVHighlights.
        weight_attention: of the saliency terms on the attention, within `weight_saliency`.
        weight_align: of the three moment-sentence terms.
        weight_distill: of the attention's distillation.
        weight_orthogonal: of the orthogonality of dummies and of prototypes.
    """

    vision_dim: int = 0
    features: tuple[FeatureFolder, ...] = ()
    step_sec: float = 2.0
    dim: int = 256
    heads: int = 8
    feedforward_dim: int = 1024
    dummies: int = 45
    queries: int = 10
    prototypes: int = 10
    chosen_prototypes: int = 1
    encoder_layers: int = 3
    decoder_layers: int = 3
    cross_layers: int = 2
    dummy_layers: int = 2
    sentence_layers: int = 1
    moment_layers: int = 1
    input_dropout: float = 0.5
    dropout: float = 0.1
    drop_path: float = 0.1
    max_text: int = 100
    behaviour: Behaviour = "sound"
    top_grade: float = 4.0
    grades: int = 12
    margin: float = 0.2
    temperature: float = 0.5
    max_windows: int = 10
    nms_iou: float = 0.7
    window_frames: int | None = None
    window_overlap: int | None = None
    round_sec: float | None = None
    scale: float = 1.0
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    background_weight: float = 0.1
    weight_saliency: float = 4.0
    weight_attention: float = 1.0
    weight_align: float = 1.0
    weight_distill: float = 1.0
    weight_orthogonal: float = 1.0

    def __post_init__(self) -> None:
        folders = [each if isinstance(each, FeatureFolder) else knobs.from_plain(FeatureFolder, each, "features") for each in self.features]
        object.__setattr__(self, "features", tuple(folders))
        total = sum(self.widths)
        if self.feature_files is not None and self.vision_dim not in (0, total):
            raise UsageError("vision_dim", expected=f"{total}, the sum of the widths of `features`, or nothing", got=self.vision_dim)
        object.__setattr__(self, "vision_dim", total)
        if self.vision_dim < 1:
            raise UsageError("vision_dim", expected="the width of the vision tower's features", got=self.vision_dim)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and value < 1:
                raise UsageError(field.name, expected="at least 1", got=value)
            if (field.name.startswith("weight_") or field.name in ("scale", "background_weight", "margin")) and value < 0:
                raise UsageError(field.name, expected="0 or more", got=value)
        if self.dim % self.heads or self.dim % 4:
            raise UsageError("dim", expected=f"a multiple of 4 and of heads={self.heads}", got=self.dim)
        if self.chosen_prototypes > self.prototypes:
            raise UsageError("chosen_prototypes", expected=f"at most prototypes={self.prototypes}", got=self.chosen_prototypes)
        for name in ("input_dropout", "dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(name, expected="a rate in [0, 1)", got=getattr(self, name))
        for name in ("top_grade", "temperature", "step_sec"):
            if getattr(self, name) <= 0:
                raise UsageError(name, expected="above 0", got=getattr(self, name))
        if self.window_frames is None and self.window_overlap is not None:
            raise UsageError("window_overlap", expected="window_frames beside it", got=self.window_overlap)
        if self.window_frames is not None:
            if self.window_frames < 1:
                raise UsageError("window_frames", expected="at least 1", got=self.window_frames)
            if self.window_overlap is not None and not 0 <= self.window_overlap < self.window_frames:
                raise UsageError("window_overlap", expected=f"frames from 0 to {self.window_frames - 1}", got=self.window_overlap)
        if self.round_sec is not None and self.round_sec <= 0:
            raise UsageError("round_sec", expected="seconds above 0, or None", got=self.round_sec)
        if self.behaviour not in get_args(Behaviour):
            raise unknown_name("behaviour", self.behaviour, get_args(Behaviour))

    @property
    def feature_files(self) -> FeatureFiles | None:
        """The files to look at; None for the vision tower."""
        return FeatureFiles(folders=self.features, step_sec=self.step_sec) if self.features else None

    @property
    def sliding(self) -> Sliding | None:
        """The windows in which long videos are read; None: no windows."""
        if self.window_frames is None:
            return None
        overlap = self.window_frames // 2 if self.window_overlap is None else self.window_overlap
        return Sliding(frames=self.window_frames, overlap=overlap, max_windows=self.max_windows)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of each kind of features, side by side; L2 norms are taken within a kind."""
        files = self.feature_files
        return (self.vision_dim,) if files is None else files.widths

    @property
    def official(self) -> bool:
        """Whether published choices win over sound ones."""
        return self.behaviour == "official"
