"""Where in a clip the words of an answer are seen: a heat map per word, free of what earlier words have lit up already.

A map shows at which patches the model's own last states speak for a word. It does not show what the answer was made from: a model may know
where a thing is and say so from states elsewhere.

Source: Token Activation Map, arXiv 2506.23270. Written from its description.
Differs in: there is no rank Gaussian filter.
Left open by the description, and here so: logits keep their sign until the end; earlier text is all that stands after the video but special
tokens; how much a token has to do with a word is told by the state at the token's own place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from tpo_lab.backbones.base import VideoFeatures
from tpo_lab.batch import Batch, Row
from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.probes import sequence
from tpo_lab.probes.sample_trace import Token, WordMap
from tpo_lab.sample import Turn

STATES_AT_ONCE = 64
"""Whose logits over the whole vocabulary are held at once."""


def word_map(activation: Tensor, earlier: Tensor, relation: Tensor) -> Tensor:
    """One word's map without what the words before it explain.

    With A_i(v) the logit of word i at visual token v, and r_ij the logit of word i at the earlier text token j::

        w_j = max(0, r_ij)                      how much j has to do with i
        I   = sum_j w_j A_j                     the interference
        s   = <A_i, I> / <I, I>                 least squares: the s for which |A_i - s I| is smallest
        M_i = max(0, A_i - s I)

    Without earlier tokens, or where none has to do with the word, M_i = max(0, A_i).

    Args:
        activation: A_i [visual].
        earlier: A_j of each earlier text token [text, visual].
        relation: r_ij [text].

    Returns:
        M_i [visual], in logits.

    Source: the estimated causal inference of Token Activation Map, arXiv 2506.23270; see the module for what differs.
    """
    interference = relation.clamp_min(0) @ earlier
    energy = interference @ interference
    scale = activation @ interference / energy if energy > 0 else torch.zeros_like(energy)
    return (activation - scale * interference).clamp_min(0)


def maps_of_words(logits: Tensor, ids: Sequence[int], words: Sequence[int], visual: int) -> Tensor:
    """The maps of some words of a text.

    Args:
        logits: of each text token's id, in the text's order, at the visual tokens and then at the text tokens [visual + text, text].
        ids: of the text tokens.
        words: places in the text of the words asked for.
        visual: how many visual tokens there are.

    Returns:
        [word, visual]. Earlier tokens of the same id count for nothing in a word's map: visual tokens stand before the text, so that equal
        tokens have equal activations, and a word that comes a second time would explain itself away.
    """
    activations, relations = logits[:visual].T, logits[visual:]
    found = [torch.zeros(0, visual)]
    for word in words:
        before = [place for place in range(word) if ids[place] != ids[word]]
        found.append(word_map(activations[word], activations[before], relations[before, word])[None])
    return torch.cat(found)


def word_maps(
    model: TPOModel, batch: Batch, hidden: Tensor, tokens: Sequence[Token], answer: Literal["emitted", "expected"]
) -> tuple[WordMap, ...]:
    """A map for each word and route of the last answer in a row of one conversation; its end is no word.

    Text is all that stands after the video, questions included, but for slots, for what a user points at, and for the special tokens that
    chats are made of.

    Args:
        batch: of that row alone.
        hidden: last states of its tokens, after the final norm [token, d].
        tokens: of the row.
        answer: whose answer it is.
    """
    asked = last_answer(tokens)
    if not asked:
        return ()
    ids = batch.ids[0].tolist()
    unspoken = set(model.encoder.special_ids.values()) - set(model.tokens.ids.route.values())
    begin = max(token.index for token in tokens if token.kind == sequence.VIDEO) + 1
    text = [token.index for token in tokens[begin:] if ids[token.index] not in unspoken]
    patches = [token.index for token in tokens if token.frame is not None]
    logits = logits_of(model, hidden[patches + text], [ids[place] for place in text])
    maps = maps_of_words(logits, [ids[place] for place in text], [text.index(token.index) for token in asked], len(patches))
    frames = len(batch.rows[0].frames)
    return tuple(
        WordMap(token.text, answer, number, token.index if answer == "expected" else None, token.head, found.reshape(frames, -1))
        for number, (token, found) in enumerate(zip(asked, maps, strict=True))
    )


def emitted_word_maps(model: TPOModel, row: Row, video: Sequence[VideoFeatures], text: str) -> tuple[WordMap, ...]:
    """The maps of the answer that a model wrote to a row's last question; one more forward pass of the language model.

    The answer is read again as a part of the conversation. Nothing is found where its text cannot be: it is empty, or spells a marker of no
    head or a special token.

    Args:
        row: of one sample.
        video: its features.
        text: as in `tpo_lab.answer.Answer.text`.
    """
    if not text:
        return ()
    sample = row.samples[0]
    turns = sample.conversation[:-1] if sample.conversation[-1].role == "assistant" else sample.conversation
    written = replace(row, samples=(sample.model_copy(update={"conversation": (*turns, Turn(role="assistant", text=text))}),))
    try:
        batch = model.collate([written]).to(model.backbone.device)
    except UsageError:
        return ()
    inputs, _ = model.inputs(batch, video)
    hidden, _ = model.backbone.language_model(inputs, mask=batch.attention_mask())
    return word_maps(model, batch, hidden[0], sequence.tokens_of(model, written), "emitted")


def last_answer(tokens: Sequence[Token]) -> list[Token]:
    """The words and routes that end a row of one conversation, without the token that ends them; none where it waits for an answer."""
    given = max((token.index for token in tokens if token.kind in (sequence.VIDEO, sequence.CONTEXT, sequence.PROMPT)), default=-1)
    return [token for token in tokens[given + 1 :] if token.learned][:-1]


def logits_of(model: TPOModel, states: Tensor, ids: Sequence[int]) -> Tensor:
    """Logits of some tokens [state, id], as the model makes them of its last states [state, d]; the library's own tokens included."""
    columns = torch.tensor(list(ids), dtype=torch.long, device=states.device)
    parts = [states[start : start + STATES_AT_ONCE] for start in range(0, len(states), STATES_AT_ONCE)]
    found = [model.tokens.extend_logits(model.backbone.logits(part), part)[:, columns] for part in parts]
    return torch.cat(found).float().cpu()
