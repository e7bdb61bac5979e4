"""Inference: the model writes text, emits routes itself, and each route's head reads the task embedding on a side branch."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpo_lab.batch import Batch, Row, first_box
from tpo_lab.errors import UsageError
from tpo_lab.heads.sliding import Sliding, slide
from tpo_lab.model import TPOModel, clip_visual, features_for
from tpo_lab.tokens import route_token

if TYPE_CHECKING:
    from tpo_lab.backbones.base import VideoFeatures


@dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
        text: the words, with `<head>` where a head was asked.
        routes: the heads that the model asked, in order; several routes of one head make one answer of that head.
        structured: per head, its JSON-ready answer in pixels and seconds of the original video; a head that looks at features from files
            and was asked about a clip without any has none.
        task_embeddings: per head, e_i of each of its slots, [slot, d].
        truncated: whether the text was cut at the token limit.
        route_probability: per head of the model, the probability in [0, 1] that the answer begins with its route, as the language
            model puts it before it writes the first token, whatever is written then. One minus the sum is that of any other
            beginning, e.g. of "It does not happen.": a low value says that what was asked for was not found. It says nothing of
            routes further on, so it suits models whose answers begin with the route, as those of the world do.
    """

    text: str
    routes: tuple[str, ...] = ()
    structured: dict[str, dict[str, Any]] = field(default_factory=dict)
    task_embeddings: dict[str, Tensor] = field(default_factory=dict)
    truncated: bool = False
    route_probability: dict[str, float] = field(default_factory=dict)

    @property
    def task(self) -> str | None:
        """The head that was asked, "a+b" for several, None for plain text."""
        return "+".join(dict.fromkeys(self.routes)) or None

    @property
    def boxes_xyxy(self) -> list[list[float]]:
        """Boxes in pixels of the original frame; empty where the region head was not asked."""
        return list(self.structured.get("region", {}).get("boxes_xyxy", []))

    @property
    def windows_sec(self) -> list[list[float]]:
        """Windows in seconds, the best first; empty where the temporal head was not asked."""
        return list(self.structured.get("temporal", {}).get("windows_sec", []))

    @property
    def saliency(self) -> list[list[float]]:
        """Pairs of time and score; empty where the temporal head was not asked."""
        return list(self.structured.get("temporal", {}).get("saliency", []))

    @property
    def masks(self) -> list[list[dict[str, Any] | None]]:
        """Per object and frame, run lengths, or None where the object is not visible; empty where the mask head was not asked."""
        return list(self.structured.get("mask", {}).get("masks", []))

    @property
    def track_xyxy(self) -> list[list[list[float] | None]]:
        """Per object and frame, the box of the mask in pixels of the original frame, or None; empty where the mask head was not asked."""
        return list(self.structured.get("mask", {}).get("track_xyxy", []))

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `tpo-lab predict`."""
        return {
            "text": self.text,
            "task": self.task,
            "boxes_xyxy": self.boxes_xyxy,
            "windows_sec": self.windows_sec,
            "saliency": self.saliency,
            "masks": self.masks,
            "track_xyxy": self.track_xyxy,
            "structured": self.structured,
            "truncated": self.truncated,
            "route_probability": self.route_probability,
        }


@dataclass
class _Reading:
    """The cache of a batch and what may be looked at in it.

    Attributes:
        cache: keys and values.
        seen: which keys count, [row, key].
        position: of the next token, [row].
        carried: what enters at task tokens beside them, [row, d].
    """

    cache: Any
    seen: Tensor
    position: Tensor
    carried: Tensor

    def grow(self) -> Tensor:
        """Make room for one more token and return its mask, [row, 1, 1, key]."""
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(self.seen), 1)], 1)
        return self.seen[:, None, None, :]


@dataclass
class _Writing:
    """The state of one answer being written."""

    words: list[int] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    embeddings: dict[str, list[Tensor]] = field(default_factory=dict)
    done: bool = False
    truncated: bool = False
    told: str = ""
    route_probability: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class States:
    """Last hidden states of the language model in one row.

    Attributes:
        query: at the words of the last question [token, d].
        frames: at the clip's visual tokens [frame, cell, d].
    """

    query: Tensor
    frames: Tensor


class Answerer:
    """Answers questions greedily, many at once, with a key-value cache.

    The route token that the model writes is put into the cache first; the task token v_i is then read on a copy of the cache, so
    that the text that follows never sees it. Training lays the same sequence out with an attention mask, and both give the
    same task embedding.

    Args:
        model: in evaluation mode while it answers.
        max_tokens: most tokens of an answer.
        sliding: the windows in which the temporal head reads long videos, in place of the head's own.
    """

    def __init__(self, model: TPOModel, *, max_tokens: int = 96, sliding: Sliding | None = None) -> None:
        if max_tokens < 1:
            raise UsageError("max_tokens", expected="at least 1", got=max_tokens)
        self.model, self.max_tokens, self.sliding = model, max_tokens, sliding
        written = {*model.tokens.ids.route.values(), model.encoder.end_id}
        special = {*model.encoder.special_ids.values(), *model.tokens.ids.all}
        self._never_written = sorted(special - written)

    @torch.no_grad()
    def answer(
        self, rows: Sequence[Row], *, video: Sequence[VideoFeatures] | None = None, on_text: Callable[[int, str], None] | None = None
    ) -> list[Answer]:
        """Answer one conversation per row; each ends with the user.

        Args:
            video: features of the rows, where they are known already.
            on_text: called with the row's index and each piece of text as it is written; the pieces join to `Answer.text`.

        Raises:
            UsageError: for a row with several conversations, or one that ends with an answer.
        """
        for row in rows:
            if len(row.samples) != 1:
                raise UsageError("row.samples", expected="one conversation", got=len(row.samples))
            if row.samples[0].conversation[-1].role != "user":
                raise UsageError("conversation", expected="a last turn of the user", got=row.samples[0].conversation[-1].role)
        video = self.model.encode_video(rows) if video is None else video
        batch = self.model.collate(rows).to(self.model.backbone.device)
        hidden, reading = self._prefill(batch, video)
        writings = [_Writing() for _ in rows]
        last = (batch.segment >= 0).sum(1) - 1
        state = hidden[torch.arange(len(rows), device=hidden.device), last]
        logits = self._logits(state)
        self._note_routes(logits, writings)
        while True:
            tokens = self._next(logits, writings)
            if on_text is not None:
                self._tell(writings, on_text)
            if all(writing.done for writing in writings):
                break
            logits = self._logits(self._read_on(reading, tokens, writings))
        found = self._states(rows, hidden)
        return [
            self._finish(writing, row, features, states)
            for writing, row, features, states in zip(writings, rows, video, found, strict=True)
        ]

    def _prefill(self, batch: Batch, video: Sequence[VideoFeatures]) -> tuple[Tensor, _Reading]:
        model, backbone = self.model, self.model.backbone
        inputs, prompts = model.inputs(batch, video)
        hidden, cache = backbone.language_model(inputs, mask=batch.attention_mask(), use_cache=True)
        # slots of earlier answers are side branches: nothing that follows sees them
        seen = (batch.segment >= 0) & ~batch.is_slot
        carried = torch.zeros_like(inputs.embeds[:, 0])
        if prompts is not None and model.task_input != "token":
            row = torch.arange(len(batch.rows), device=carried.device)
            asked = torch.tensor([self._question(each) for each in batch.rows], device=carried.device)
            carried = batch.prompts.mean_within(prompts, row, asked).to(carried.dtype)
        # words have one position on all axes; visual tokens of long clips may lie further on in time
        last = inputs.positions.reshape(-1, *batch.ids.shape)[0].gather(1, (batch.segment >= 0).sum(1, keepdim=True) - 1)[:, 0]
        return hidden, _Reading(cache, seen, last + 1, carried)

    def _question(self, row: Row) -> tuple[int, int]:
        """First and last (exclusive) token of a row's last question."""
        start, end = self.model.encoder.encode([(turn.role, turn.text) for turn in row.samples[0].conversation]).question
        offset = len(self.model.collate.prefix(row.clip.times_sec))
        return offset + start, offset + end

    def _logits(self, state: Tensor) -> Tensor:
        """Of the next token [row, vocabulary]; -inf for what is never written."""
        logits = self.model.tokens.extend_logits(self.model.backbone.logits(state), state)
        logits[:, self._never_written] = float("-inf")
        return logits

    def _note_routes(self, logits: Tensor, writings: list[_Writing]) -> None:
        """Keep how probable each route is as the next token."""
        route = self.model.tokens.ids.route
        probability = logits.float().softmax(-1)[:, list(route.values())].tolist()
        for writing, values in zip(writings, probability, strict=True):
            writing.route_probability = dict(zip(route, values, strict=True))

    def _next(self, logits: Tensor, writings: list[_Writing]) -> list[int]:
        """The next token of every unfinished answer; finished ones get the end token."""
        end = self.model.encoder.end_id
        tokens: list[int] = logits.argmax(-1).tolist()
        for index, writing in enumerate(writings):
            full = len(writing.words) >= self.max_tokens
            if writing.done or full or tokens[index] == end:
                writing.truncated = writing.truncated or (not writing.done and tokens[index] != end)
                writing.done, tokens[index] = True, end
                continue
            writing.words.append(tokens[index])
        return tokens

    def _read_on(self, reading: _Reading, tokens: list[int], writings: list[_Writing]) -> Tensor:
        """Put the tokens into the cache; where one is a route, read its head's task token on a copy."""
        state = self._feed(reading, tokens)
        ids = self.model.tokens.ids
        routed = {i: ids.head_of_route[token] for i, token in enumerate(tokens) if token in ids.head_of_route and not writings[i].done}
        if routed:
            slots = [ids.slot[routed[index]] if index in routed else token for index, token in enumerate(tokens)]
            places = torch.tensor([index in routed for index in range(len(tokens))], device=reading.carried.device)
            side = self._feed(copy.deepcopy(reading), slots, torch.where(places[:, None], reading.carried, 0))
            for index, head in routed.items():
                writings[index].routes.append(head)
                writings[index].embeddings.setdefault(head, []).append(side[index])
        return state

    def _feed(self, reading: _Reading, tokens: list[int], beside: Tensor | None = None) -> Tensor:
        backbone = self.model.backbone
        inputs = backbone.written(torch.tensor(tokens, device=backbone.device)[:, None], reading.position[:, None])
        if beside is not None:
            inputs = inputs.plus(beside[:, None])
        mask = reading.grow()
        hidden, reading.cache = backbone.language_model(inputs, mask=mask, cache=reading.cache, use_cache=True)
        reading.position = reading.position + 1
        return hidden[:, -1]

    def _tell(self, writings: list[_Writing], on_text: Callable[[int, str], None]) -> None:
        for index, writing in enumerate(writings):
            text = self._text(writing.words)
            if not writing.done:
                # a character whose bytes are not all there yet
                text = text.rstrip("\N{REPLACEMENT CHARACTER}")
            if text != writing.told and text.startswith(writing.told):
                on_text(index, text[len(writing.told) :])
                writing.told = text

    def _states(self, rows: Sequence[Row], hidden: Tensor) -> list[States]:
        """What the language model made of each row, for heads that look at it."""
        found = []
        for index, row in enumerate(rows):
            start, end = self._question(row)
            query = hidden[index, start:end]
            found.append(States(query, self.model.frame_states(hidden[index], row.clip.times_sec)))
        return found

    def _finish(self, writing: _Writing, row: Row, video: VideoFeatures, states: States) -> Answer:
        embeddings = {head: torch.stack(slots) for head, slots in writing.embeddings.items()}
        blind = {head for head in self.model.feature_files if head not in row.features}
        structured = {head: self.read(head, slots, row, video, states) for head, slots in embeddings.items() if head not in blind}
        text, routes = self._text(writing.words), tuple(writing.routes)
        return Answer(text, routes, structured, embeddings, writing.truncated, writing.route_probability)

    def read(self, head_name: str, embeddings: Tensor, row: Row, video: VideoFeatures, states: States) -> dict[str, Any]:
        """Let a head read the task embeddings [slot, d] of one answer about one clip."""
        head = self.model.head(head_name)
        answer = torch.zeros(len(embeddings), dtype=torch.long)
        gathered: dict[str, Tensor] = {}
        if "frames" in head.needs:
            gathered["frames"] = row.frames[None].expand(len(embeddings), *row.frames.shape).to(embeddings.device)
        if "frame_features" in head.needs:
            seen = features_for(head, row, video)
            gathered["frame_features"] = seen.expand(len(embeddings), *seen.shape)
        if "frame_states" in head.needs:
            gathered["frame_states"] = states.frames.expand(len(embeddings), *states.frames.shape)
        if "query" in head.needs:
            gathered["query_features"] = states.query.expand(len(embeddings), *states.query.shape)
            gathered["query_valid"] = torch.ones(gathered["query_features"].shape[:2], dtype=torch.bool, device=embeddings.device)
        clip = row.clip_of(head_name)
        gathered["clip"] = torch.zeros_like(answer, device=embeddings.device)
        prompt = torch.tensor(first_box(row.samples[0], row.clip), device=embeddings.device)
        gathered["prompt_xyxy"] = prompt.expand(len(embeddings), 4)
        visual = clip_visual([clip] * len(embeddings), answer, embeddings.device, **gathered)
        sliding = head.sliding if self.sliding is None or head_name != "temporal" else self.sliding
        return slide(head, embeddings, visual, clip, sliding)

    def _text(self, words: list[int]) -> str:
        """The words with `<head>` for routes, as samples write them: put into a history, they become the same tokens again."""
        text = self.model.backbone.tokenizer.decode(words, clean_up_tokenization_spaces=False)
        for head in self.model.tokens.ids.route:
            text = re.sub(rf"\s*{re.escape(route_token(head))}", f" <{head}>", text)
        return str(text.strip())
