"""The adapter protocol of a backbone: one video-text model seen through the few calls that TPO needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.errors import UsageError


@dataclass(frozen=True)
class ChatFormat:
    """The strings around a conversation: open, video, before_question, question, before_answer, before_reply, answer, end.

    `end` is one token of the vocabulary and the only one of these strings that the model learns to write; `before_reply` is
    put in front of the answer's text (a space for tokenizers that mark the start of words).
    """

    open: str
    before_question: str
    before_answer: str
    before_reply: str
    end: str
    before_next_question: str


@dataclass(frozen=True)
class VideoFeatures:
    """What the vision side makes of clips with equally many frames.

    Attributes:
        tokens: inputs of the language model, [clip, visual_token, d].
        frames: patch features of the vision tower before the connector, [clip, frame, patch, d_vision].
    """

    tokens: Tensor
    frames: Tensor


class Backbone(nn.Module, ABC):
    """A multimodal language model behind the calls that the rest of the library uses.

    Attributes:
        model: the transformers model.
        tokenizer: its fast tokenizer.
        chat: the strings around a conversation.
        num_frames: how many frames of a clip the model is shown.
        image_size: side of the square that frames are resized to, in pixels.
    """

    name: str
    model: Any
    tokenizer: Any
    chat: ChatFormat
    num_frames: int
    image_size: int

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """Width d of the language model."""

    @property
    @abstractmethod
    def vision_size(self) -> int:
        """Width of the vision tower's patch features."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Rows of the output layer."""

    @property
    @abstractmethod
    def embedding(self) -> nn.Module:
        """The input embedding layer, on which the token table hangs its hook."""

    @abstractmethod
    def resize(self, frames: Tensor) -> Tensor:
        """uint8 [frame, 3, h, w] to uint8 [frame, 3, image_size, image_size], exactly as the model family does it."""

    @abstractmethod
    def video_features(self, frames: Tensor) -> VideoFeatures:
        """Encode uint8 frames [clip, frame, 3, image_size, image_size]."""

    @abstractmethod
    def video_placeholder(self, num_frames: int) -> list[int]:
        """Token ids that stand for a clip: `video_token` once per visual token, other ids (frame numbers) in between."""

    @property
    @abstractmethod
    def cells_per_frame(self) -> int:
        """Visual tokens of each frame, a square grid in row-major order; a clip's first `num_frames` times so many are its frames'."""

    @property
    @abstractmethod
    def video_token(self) -> int:
        """The id whose embeddings are replaced by visual tokens."""

    @abstractmethod
    def language_model(
        self, embeds: Tensor, *, mask: Tensor | None, positions: Tensor, cache: Any | None = None, use_cache: bool = False
    ) -> tuple[Tensor, Any | None]:
        """Run the language model.

        Args:
            embeds: [row, token, d].
            mask: bool [row, 1, token, key], True = may look; None is plain causal attention.
            positions: position ids [row, token].
            cache: keys and values of earlier tokens, extended in place.

        Returns:
            hidden states after the final norm [row, token, d], and the cache.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Output layer: [..., d] to [..., vocabulary]."""

    @property
    @abstractmethod
    def output_rows(self) -> Tensor:
        """Weights of the output layer, [vocabulary, d]."""

    @abstractmethod
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Prefixes of the parameter names of `model` for each of "vision", "connector" and "llm"."""

    @abstractmethod
    def lora_targets(self, layers: tuple[str, ...]) -> str:
        """A regular expression for peft that matches these linear layers of the language model only."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer to a folder that the loader reads."""

    def embed(self, ids: Tensor, video_tokens: Tensor | None) -> Tensor:
        """Embed token ids [row, token]; visual tokens [all, d] replace the video placeholders in row-major order.

        Raises:
            UsageError: there are not as many visual tokens as placeholders.
        """
        embeds: Tensor = self.embedding(ids)
        if video_tokens is None:
            return embeds
        places = ids == self.video_token
        if int(places.sum()) != len(video_tokens):
            raise UsageError("video_tokens", expected=f"{int(places.sum())}, one per video placeholder", got=len(video_tokens))
        return embeds.masked_scatter(places.unsqueeze(-1), video_tokens.to(embeds.dtype))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]
