"""Route, slot and prompt tokens, the learnable task tokens, and the small table that holds every new row.

The backbone's own vocabulary is never resized: new ids live in `TokenTable`, which is trained, saved and audited on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tpo_lab.errors import TPOError, UsageError

PROMPT_TOKEN = "<prompt>"
ROWS_AT_ONCE = 16_384
"""Rows of a vocabulary that are copied to single precision at once: all 152,000 of a 7B model would take 2 GiB."""


@dataclass(frozen=True)
class TokenIds:
    """Ids of the added tokens.

    Attributes:
        route: per head, the token that the language model generates to say that this task is asked.
        slot: per head, the place where the task token v_i is put.
        prompt: the place of something that a user pointed at.
    """

    route: dict[str, int]
    slot: dict[str, int]
    prompt: int

    @property
    def all(self) -> tuple[int, ...]:
        """Every added id, in the order of the table's rows."""
        return (self.prompt, *(token for name in self.route for token in (self.route[name], self.slot[name])))

    @property
    def head_of_route(self) -> dict[int, str]:
        """Head names by route id."""
        return {token: name for name, token in self.route.items()}


def route_token(head: str) -> str:
    """The route token's text."""
    return f"<{head}:route>"


def slot_token(head: str) -> str:
    """The slot token's text."""
    return f"<{head}:slot>"


def add_tokens(tokenizer: Any, heads: Sequence[str]) -> TokenIds:
    """Add the tokens of these heads to any tokenizer (a second call changes nothing) and check that each stays one token.

    Raises:
        TPOError: where the tokenizer splits an added token (so that its id would be somebody else's).
    """
    from tokenizers import AddedToken

    names = [PROMPT_TOKEN, *(text for head in heads for text in (route_token(head), slot_token(head)))]
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in names if text not in known])
    ids = {text: int(tokenizer.convert_tokens_to_ids(text)) for text in names}
    for text, token in ids.items():
        for surrounded, expected in ((text, [token]), (f"a{text}{text}", [token, token])):
            found = tokenizer.encode(surrounded, add_special_tokens=False)
            if found[-len(expected) :] != expected:
                raise TPOError(f"tokenizer: expected {text!r} to be the single token {token}, got {found}. Use a fast tokenizer.")
    if len(set(ids.values())) != len(ids):
        raise TPOError(f"tokenizer: expected one id per added token, got {ids}.")
    return TokenIds({h: ids[route_token(h)] for h in heads}, {h: ids[slot_token(h)] for h in heads}, ids[PROMPT_TOKEN])


class TokenTable(nn.Module):
    """Task tokens v_i and the input and output rows of the added vocabulary.

    Input rows enter by a forward hook on the embedding layer, with plain input ids; at a slot the hook puts the task token
    instead, at a prompt place the vector that the prompt encoder made. Output rows extend the logits.

    Args:
        ids: the added tokens.
        embedding: the backbone's input embedding; new rows start at the mean of its rows, as in the released model.
        output_rows: the backbone's output weights [vocabulary, d].
        task_std: standard deviation of the initial task tokens; None takes that of the embedding rows.

    Raises:
        UsageError: the embedding already carries a table, whose hook would hide the new ids from this one.

    Source: TPO section 3.1; initialisation from the released code (task tokens N(0, 1), rows at the mean).
    Differs in: task tokens start at the scale of the other embeddings unless `task_std=1.0` asks for the released scale.
    """

    def __init__(self, ids: TokenIds, embedding: nn.Module, output_rows: Tensor, *, task_std: float | None = None) -> None:
        super().__init__()
        if any(isinstance(getattr(hook, "__self__", None), TokenTable) for hook in embedding._forward_hooks.values()):
            hint = "Load the backbone again, or call `detach_hooks()` on the table of the model that used it before."
            raise UsageError("embedding", expected="a backbone without a token table", got="one that a model already uses", hint=hint)
        self.ids = ids
        table: Tensor = embedding.weight.detach()  # type: ignore[operator]
        count, width = len(ids.all), table.shape[1]
        if task_std is None:
            # an outline of a model, on torch's meta device, has no numbers
            task_std = 1.0 if table.is_meta else _spread(table)
        self.task = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * task_std) for name in ids.slot})
        self.rows = nn.ParameterDict(
            {
                "input": nn.Parameter(_mean_row(table).repeat(count, 1)),
                "output": nn.Parameter(_mean_row(output_rows.detach()).repeat(count, 1)),
            }
        )
        self._row = {token: row for row, token in enumerate(ids.all)}
        self._slot_heads = {token: name for name, token in ids.slot.items()}
        self._prompt_values: Tensor | None = None
        self._handles = (embedding.register_forward_pre_hook(self._hide_new_ids), embedding.register_forward_hook(self._put_new_rows))
        self._ids: Tensor | None = None

    def detach_hooks(self) -> None:
        """Leave the embedding layer as it was."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def prompt_values(self, values: Tensor | None) -> Iterator[None]:
        """Vectors [prompt, d] for the prompt places of the next forward passes, in row-major order of the places."""
        previous, self._prompt_values = self._prompt_values, values
        try:
            yield
        finally:
            self._prompt_values = previous

    def _hide_new_ids(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        ids: Tensor = args[0]
        self._ids = ids
        new = torch.isin(ids, torch.tensor(self.ids.all, device=ids.device))
        return (ids.masked_fill(new, 0), *args[1:]) if bool(new.any()) else None

    def _put_new_rows(self, module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        ids, self._ids = self._ids, None
        assert ids is not None
        for token in sorted(set(ids.flatten().tolist()) & set(self.ids.all)):
            here = ids == token
            if token == self.ids.prompt and self._prompt_values is not None:
                if int(here.sum()) != len(self._prompt_values):
                    raise UsageError("prompts", expected=f"{int(here.sum())} prompt vectors", got=len(self._prompt_values))
                embedded = embedded.masked_scatter(here.unsqueeze(-1), self._prompt_values.to(embedded.dtype))
                continue
            head = self._slot_heads.get(token)
            value = self.task[head] if head is not None else self.rows["input"][self._row[token]]
            embedded = torch.where(here.unsqueeze(-1), value.to(embedded.dtype), embedded)
        return embedded

    def extend_logits(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Logits over the whole vocabulary, the added tokens at their own ids: [..., V] to [..., max(V, largest id + 1)]."""
        added = hidden.float() @ self.rows["output"].float().T
        missing = max(self.ids.all) + 1 - logits.shape[-1]
        logits = logits.float()
        if missing > 0:
            logits = torch.cat([logits, logits.new_full((*logits.shape[:-1], missing), float("-inf"))], -1)
        index = torch.tensor(self.ids.all, device=logits.device)
        return logits.index_copy(-1, index, added)


def _mean_row(table: Tensor) -> Tensor:
    """The mean of the rows in single precision, [1, d]."""
    pieces = torch.split(table, ROWS_AT_ONCE)
    return torch.stack([piece.float().mean(0, keepdim=True) * (len(piece) / len(table)) for piece in pieces]).sum(0)


def _spread(table: Tensor) -> float:
    """The standard deviation of all numbers of a table."""
    pieces = torch.split(table, ROWS_AT_ONCE)
    if len(pieces) == 1:
        return float(table.float().std())
    middle = _mean_row(table).mean()
    squares = sum(float((piece.float() - middle).square().sum()) for piece in pieces)
    return float((squares / (table.numel() - 1)) ** 0.5)
