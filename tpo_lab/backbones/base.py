"""The adapter protocol of a backbone: one video-text model seen through the few calls that TPO needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        deeper: what is added at the visual tokens after the first layers of the language model, [clip, layer, visual_token, d]; None where
            the family adds nothing.
    """

    tokens: Tensor
    frames: Tensor
    deeper: Tensor | None = None

    def of(self, clip: int) -> VideoFeatures:
        """The features of one clip, still with an axis for clips."""
        one = slice(clip, clip + 1)
        return VideoFeatures(self.tokens[one], self.frames[one], None if self.deeper is None else self.deeper[one])


@dataclass(frozen=True)
class Inputs:
    """What the language model reads.

    Attributes:
        embeds: [row, token, d].
        positions: position ids, [row, token]; in time, height and width [3, row, token] for families that rotate by all three.
        deeper: `VideoFeatures.deeper` at its tokens and zero elsewhere, [row, layer, token, d].
    """

    embeds: Tensor
    positions: Tensor
    deeper: Tensor | None = None

    def at(self, kept: Tensor) -> Inputs:
        """Some of the tokens, by places or as bool [token]."""
        return Inputs(self.embeds[:, kept], self.positions[..., kept], None if self.deeper is None else self.deeper[:, :, kept])

    def plus(self, values: Tensor) -> Inputs:
        """With values [row, token, d] added to what is embedded."""
        return replace(self, embeds=self.embeds + values.to(self.embeds.dtype))


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
    def video_placeholder(self, times_sec: Sequence[float]) -> list[int]:
        """Token ids that stand for a clip: `video_token` once per visual token, other ids (frame numbers, times) in between.

        Args:
            times_sec: when each of its frames is shown, in seconds from the start of the clip.
        """

    @property
    @abstractmethod
    def cells_per_frame(self) -> int:
        """Visual tokens of each grid of a clip, a square in row-major order; a clip begins with those of its grids.

        0 where the visual tokens belong to no frame.
        """

    @property
    def frames_per_grid(self) -> int:
        """How many neighbouring frames share one grid of visual tokens."""
        return 1

    def grids(self, num_frames: int) -> int:
        """How many grids of visual tokens so many frames have."""
        return -(-num_frames // self.frames_per_grid)

    @property
    @abstractmethod
    def video_token(self) -> int:
        """The id whose embeddings are replaced by visual tokens."""

    @abstractmethod
    def language_model(
        self, inputs: Inputs, *, mask: Tensor | None, cache: Any | None = None, use_cache: bool = False
    ) -> tuple[Tensor, Any | None]:
        """Run the language model.

        Args:
            inputs: what it reads.
            mask: bool [row, 1, token, key], True = may look; None is plain causal attention.
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

    def positions(self, ids: Tensor, places: Tensor, times_sec: Sequence[Sequence[float]]) -> Tensor:
        """Position ids of rows that each begin with a clip.

        Args:
            ids: [row, token].
            places: each token's place as a model counts that knows one axis only, [row, token]. Questions that share a clip all go on
                from its end, and a slot has the place of what follows it.
            times_sec: of the frames of each row's clip.
        """
        return places

    def text_positions(self, positions: Tensor) -> Tensor:
        """Position ids of words written one after the other, from their positions on one axis [row, token]."""
        return positions

    def inputs(self, ids: Tensor, places: Tensor, video: Sequence[VideoFeatures], times_sec: Sequence[Sequence[float]]) -> Inputs:
        """What the language model reads of rows that each begin with a clip.

        Args:
            ids: [row, token].
            places: as in `positions`.
            video: the features of each row's clip.
            times_sec: of the frames of each row's clip.

        Raises:
            UsageError: there are not as many visual tokens as placeholders.
        """
        embeds = self.embed(ids, torch.cat([features.tokens.flatten(0, 1) for features in video]))
        return Inputs(embeds, self.positions(ids, places, times_sec), self._deeper(ids, video))

    def _deeper(self, ids: Tensor, video: Sequence[VideoFeatures]) -> Tensor | None:
        found = [features.deeper[0] for features in video if features.deeper is not None]
        if not found:
            return None
        at_video = (ids == self.video_token)[:, None, :, None]
        spread = found[0].new_zeros(len(ids), len(found[0]), ids.shape[1], found[0].shape[-1])
        rows = [spread[row].masked_scatter(at_video[row], values) for row, values in enumerate(found)]
        return torch.stack(rows)

    def written(self, tokens: Tensor, positions: Tensor) -> Inputs:
        """What the language model reads of words written so far, from ids and positions on one axis, both [row, token]."""
        return Inputs(self.embed(tokens, None), self.text_positions(positions))

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
