"""The network of CG-DETR from pooled frames and text to windows and saliency, and the parts that only its losses look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tpo_lab.heads.cg_detr.attention import AdaptiveCrossAttention
from tpo_lab.heads.cg_detr.decoder import Decoder
from tpo_lab.heads.cg_detr.encoder import Encoder, Projection, place_frames
from tpo_lab.heads.cg_detr.settings import CGDETRSettings
from tpo_lab.heads.cg_detr.tokens import QueryDummies, SaliencyToken, SummaryToken


@dataclass(frozen=True)
class Scene:
    """Frames and text after their projections, d wide.

    Attributes:
        frames: [slot, frame, d].
        frame_position: sines of the frames' ranks [slot, frame, d].
        frame_valid: which frames exist [slot, frame].
        text: the question's tokens and behind its last one the task embedding [slot, token, d].
        text_valid: which of those exist [slot, token].
        dummies: conditioned on the text [slot, dummy, d].
    """

    frames: Tensor
    frame_position: Tensor
    frame_valid: Tensor
    text: Tensor
    text_valid: Tensor
    dummies: Tensor

    def rows(self, rows: Tensor) -> Scene:
        """The slots `rows`, LongTensor."""
        return self.with_text_of(rows, rows)

    def with_text_of(self, rows: Tensor, partner: Tensor) -> Scene:
        """The frames of the slots `rows` with the text of the slots `partner`, LongTensors [pair]."""
        frames = {name: getattr(self, name)[rows] for name in ("frames", "frame_position", "frame_valid")}
        return Scene(**frames, **{name: getattr(self, name)[partner] for name in ("text", "text_valid", "dummies")})


@dataclass(frozen=True)
class Reading:
    """Frames after text was mixed in.

    Attributes:
        memory: [slot, frame, d].
        saliency_logits: [slot, frame]; those of padding mean nothing.
        attention: of frames to dummies and text, the mean over heads and layers [slot, frame, dummy + token]; rows sum to 1.
    """

    memory: Tensor
    saliency_logits: Tensor
    attention: Tensor


class Network(nn.Module):
    """All learned parts of CG-DETR.

    Args:
        text_dim: width of text and task embedding.
        settings: sizes and rates.
        fits: numbers of each frame beside its features and its ends.

    Source: CG-DETR (arXiv 2311.08835), with the task embedding as one more token of the text (TPO, temporal head).
    """

    def __init__(self, text_dim: int, settings: CGDETRSettings, fits: int = 0) -> None:
        super().__init__()
        self.frame_projection = Projection(settings.vision_dim + 2 + fits, settings)
        self.text_projection = Projection(text_dim, settings)
        self.types = nn.Parameter(0.02 * torch.randn(2, settings.dim))
        self.dummies = QueryDummies(settings)
        self.sentence = SummaryToken(settings, settings.sentence_layers)
        self.moment = SummaryToken(settings, settings.moment_layers)
        self.cross = AdaptiveCrossAttention(settings)
        self.saliency = SaliencyToken(settings)
        self.encoder = Encoder(settings, settings.encoder_layers)
        self.frame_score, self.clip_score = (nn.Linear(settings.dim, settings.dim) for _ in range(2))
        self.decoder = Decoder(settings)
        self.reset()

    def reset(self) -> None:
        """Draw the weights anew: Xavier for matrices, and refinements that leave the learned windows where they are."""
        for part in (self.dummies, self.sentence, self.moment, self.cross, self.encoder, self.decoder):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
        last = self.decoder.refine[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def project(self, frames: Tensor, frame_valid: Tensor, text: Tensor, text_valid: Tensor) -> Scene:
        """Project pooled frames with their ends and fits [slot, frame, d_vision + 2 + fits] and text [slot, token, d_text]."""
        words = self.text_projection(text) + self.types[0]
        video = self.frame_projection(frames) + self.types[1]
        place = place_frames(frame_valid, video.shape[-1]).to(video.dtype)
        return Scene(video, place, frame_valid, words, text_valid, self.dummies(words, text_valid))

    def read(self, scene: Scene) -> Reading:
        """Mix the text into the frames and score them against the saliency token."""
        place, valid = scene.frame_position, scene.frame_valid
        frames, attention = self.cross(scene.frames, place, scene.dummies, self.dummies.position, scene.text, scene.text_valid)
        token = self.saliency(scene.frames, valid, text_share(attention, scene.dummies.shape[1])[0])[:, None]
        tokens = torch.cat([self.cross.without_text(token), frames], dim=1)
        position = torch.cat([self.saliency.position.expand_as(token), place], dim=1)
        encoded = self.encoder(tokens, position, functional.pad(valid, (1, 0), value=True))
        memory = encoded[:, 1:] + encoded[:, :1]
        scores = self.frame_score(memory) @ self.clip_score(encoded[:, 0])[..., None]
        return Reading(memory, scores[..., 0] / memory.shape[-1] ** 0.5, attention)

    def sum_up(self, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
        """Sentence tokens of text and of dummies, each [slot, d], and the words behind them, dummies first [slot, dummy + token, d]."""
        sentence, words = self.sentence(scene.text, torch.zeros_like(scene.text[:1, :1]), scene.text_valid)
        everyone = scene.text_valid.new_ones(scene.dummies.shape[:2])
        other, fillers = self.sentence(scene.dummies, self.dummies.position, everyone)
        return sentence, other, torch.cat([fillers, words], dim=1)

    def sum_up_moments(self, scene: Scene, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moment tokens of the frames inside windows [slot, frame] and of those outside, each [slot, d], and what all frames become
        where they may look at those inside only [slot, frame, d].
        """
        looked_at = torch.cat([inside & scene.frame_valid, ~inside & scene.frame_valid])
        moments, frames = self.moment(scene.frames.repeat(2, 1, 1), scene.frame_position.repeat(2, 1, 1), looked_at)
        positive, negative = moments.chunk(2)
        return positive, negative, frames.chunk(2)[0]


def text_share(attention: Tensor, dummies: int) -> tuple[Tensor, Tensor]:
    """Shares in [0,1] of each frame's attention [slot, frame, dummy + token] that go to the text and to the dummies: [slot, frame]."""
    return attention[..., dummies:].sum(-1).clamp(0, 1), attention[..., :dummies].sum(-1).clamp(0, 1)
