"""Conversations to token ids: what is context, what is learned, where routes and slots are. No tensors and no video here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache, partial
from typing import Any

from tpo_lab.backbones.base import ChatFormat
from tpo_lab.errors import UsageError
from tpo_lab.sample.rules import ANSWERED_BY
from tpo_lab.tokens import TokenIds

_MARKER = re.compile(r"<([a-z][a-z0-9_-]*)>")
_MENTION = re.compile(r"<prompt:(\d+)>")


class Kind(IntEnum):
    """What a token is to the objective."""

    CONTEXT = 0
    TEXT = 1
    ROUTE = 2
    SLOT = 3


@dataclass(frozen=True)
class Slot:
    """One task token of a conversation.

    Attributes:
        token: its place in the conversation.
        head: the head that reads it.
        marker: what stands there in the text; mostly the head's name.
        question: first and last (exclusive) token of the user's text that it answers.
    """

    token: int
    head: str
    marker: str
    question: tuple[int, int]


@dataclass
class Encoded:
    """A conversation without its video: token ids, what each is, its slots, the prompts in order of their places, the last question."""

    ids: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    question: tuple[int, int] = (0, 0)

    def add(self, ids: Sequence[int], kind: Kind) -> None:
        """Append tokens of one kind."""
        self.ids += ids
        self.kinds += [kind] * len(ids)


class ConversationEncoder:
    """Turns the turns of a sample into token ids.

    In user text `<prompt:i>` becomes one prompt token; in assistant text `<head>` becomes the head's route token (learned,
    the L_assign of Eq. 1) followed by its slot (never learned as a word: label masking is explicit in `Kind.SLOT`).

    Attributes:
        end_id: the token that ends an answer.
        special_ids: ids that are no words, by their text; none of them may stand in what a person or a model says.
    """

    def __init__(self, tokenizer: Any, chat: ChatFormat, ids: TokenIds) -> None:
        self.tokenizer, self.chat, self.ids = tokenizer, chat, ids
        # questions come back every epoch, and their openings with every question
        self._encode = lru_cache(maxsize=1 << 16)(partial(_encode, tokenizer))
        end = self._encode(chat.end)
        if len(end) != 1:
            raise UsageError("chat.end", expected="a single token", got=chat.end)
        self.end_id = end[0]
        self.special_ids = {token.content: int(index) for index, token in tokenizer.added_tokens_decoder.items() if token.special}

    def opening(self) -> list[int]:
        """Tokens before the video."""
        return list(self._encode(self.chat.open))

    def encode(self, turns: Sequence[tuple[str, str]]) -> Encoded:
        """Encode (role, text) turns, starting with the user; a conversation that ends with the user is left open for an answer.

        Raises:
            UsageError: for a marker that is no head of this model, or a special token of the tokenizer in the text.
        """
        encoded = Encoded()
        for index, (role, text) in enumerate(turns):
            if role == "user":
                start = len(encoded.ids)
                self._user(encoded, text, first=index == 0)
                encoded.question = (start, len(encoded.ids))
                encoded.add(self._encode(self.chat.before_answer), Kind.CONTEXT)
            else:
                self._assistant(encoded, text)
        return encoded

    def _user(self, encoded: Encoded, text: str, *, first: bool) -> None:
        self._refuse_special(text)
        lead = self.chat.before_question if first else self.chat.before_next_question
        pieces = _MENTION.split(lead + text)
        for place, piece in enumerate(pieces):
            if place % 2:
                encoded.prompts.append(int(piece))
                encoded.add([self.ids.prompt], Kind.CONTEXT)
            else:
                encoded.add(self._encode(piece), Kind.CONTEXT)

    def _assistant(self, encoded: Encoded, text: str) -> None:
        pieces = _MARKER.split(text)
        for place, piece in enumerate(pieces):
            if place % 2 == 0:
                self._refuse_special(piece)
                if piece.strip():
                    lead = self.chat.before_reply if place == 0 else ""
                    encoded.add(self._encode(lead + piece.rstrip()), Kind.TEXT)
                continue
            head = piece if piece in self.ids.route else ANSWERED_BY.get(piece, piece)
            if head not in self.ids.route:
                have = ", ".join(self.ids.route) or "none"
                raise UsageError(
                    "conversation", expected=f"a head of this model ({have})", got=f"<{piece}>", hint="Build the model with it."
                )
            encoded.add([self.ids.route[head]], Kind.ROUTE)
            encoded.slots.append(Slot(len(encoded.ids), head, piece, encoded.question))
            encoded.add([self.ids.slot[head]], Kind.SLOT)
        encoded.add([self.end_id], Kind.TEXT)

    def _refuse_special(self, text: str) -> None:
        """A "<video>" in a question would be taken for a frame, an end token for the end."""
        found = [token for token in self.special_ids if token in text]
        if found:
            raise UsageError(
                "conversation", expected="text without special tokens of the tokenizer", got=found[0], hint="Take it out of the text."
            )


def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()
