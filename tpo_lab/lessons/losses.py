"""Takes Equation 1 apart: each term of one batch, what families of them add, and a few steps of training."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tpo_lab.batch import Batch
from tpo_lab.errors import UsageError, unknown_name
from tpo_lab.media import media_key
from tpo_lab.model import Forward, TPOModel
from tpo_lab.objective import LossReport, word_losses
from tpo_lab.sample import Sample, heads_asked
from tpo_lab.stages import CONVERSATION


@dataclass(frozen=True)
class Term:
    """One term of the sum.

    Attributes:
        owner: "mlm", "assign" or a head.
        term: its name within the owner.
        values: how many values it is the mean of; 0 where the batch has nothing to teach it.
        mean: of those values, 0 where there are none.
        weight: what the mean is multiplied with.
        adds: to the sum: mean x weight.
    """

    owner: str
    term: str
    values: int
    mean: float
    weight: float
    adds: float

    def to_dict(self) -> dict[str, Any]:
        """As one row of a table."""
        return asdict(self)


def samples_of_each(samples: Sequence[Sample], tasks: Sequence[str], count: int = 2) -> list[Sample]:
    """So many samples of each task, from different clips, of which the sum of losses has something to learn.

    A task is a head, whose sample asks it and has its own kind of target, or "conversation", for plain text.

    Raises:
        UsageError: there are too few.
    """
    found: list[Sample] = []
    for task in tasks:
        clips: dict[str, Sample] = {}
        for sample in samples:
            if len(clips) < count and _teaches(sample, task):
                clips.setdefault(media_key(sample), sample)
        if len(clips) < count:
            raise UsageError("samples", expected=f"{count} of the task {task} from different clips", got=len(clips))
        found += clips.values()
    return found


def _teaches(sample: Sample, task: str) -> bool:
    asked = {head for turn in sample.conversation if turn.role == "assistant" for head in heads_asked(turn.text)}
    if task == CONVERSATION:
        return not asked and not sample.targets.names
    # points and scribbles are left out: a model that understands boxes alone would refuse the whole batch
    return asked == {task} and task in sample.targets.names and all(prompt.type == "box" for prompt in sample.prompts)


def terms_of(model: TPOModel, batch: Batch, forward: Forward, report: LossReport) -> list[Term]:
    """The terms of a report that `model.losses(batch, forward, ...)` gave, with how many values each is the mean of."""
    counts = _counts(model, batch, forward, report)
    rows = []
    for name, mean in report.terms.items():
        owner, _, term = name.partition("/")
        weight, value = report.weights[name], float(mean.detach())
        rows.append(Term(owner, term or owner, counts[name], value, weight, weight * value))
    return rows


def _counts(model: TPOModel, batch: Batch, forward: Forward, report: LossReport) -> dict[str, int]:
    owners = {name.partition("/")[0] for name in report.terms}
    words = word_losses(forward.logits, batch.target, batch.is_route, separate="assign" in owners)
    counts = {name: values.numel() for name, values in words.items()}
    for name, target in model.targets(batch, tuple(owners)).items():
        terms = model.head(name).losses(forward.predictions[name], target)
        counts |= {f"{name}/{term}": values.numel() for term, values in terms.items()}
    return counts


def by_family(terms: Sequence[Term]) -> dict[str, float]:
    """What each owner's families of terms add to the sum: "temporal saliency" is the first word of "saliency_margin" and its like."""
    sums: dict[str, float] = {}
    for term in terms:
        family = term.term.partition("_")[0]
        name = term.owner if term.owner == term.term else f"{term.owner} {family}"
        sums[name] = sums.get(name, 0.0) + term.adds
    return sums


def few_steps(
    model: TPOModel, batch: Batch, weights: Mapping[str, float], *, steps: int, rate: float = 1e-3, seed: int = 0
) -> list[dict[str, float]]:
    """Trains a copy of the model on one batch, by AdamW, and says before each step what each part of the sum is, before its weight w_i.

    All learns that came from no pretrained model: LoRA, the new tokens, the prompt encoder and the heads. The model itself stays as it is.
    A part that weighs 0 is measured all the same.

    Args:
        model: with LoRA.
        batch: on the model's device.
        weights: w_i of each part: "mlm", "assign" and the heads; 1 where not named.
        steps: of the optimizer.
        rate: of learning.
        seed: of what the heads draw at random while they train.

    Returns:
        One dict per step: "step" from 1, and each part's loss.

    Raises:
        UsageError: a weight of a part that the model has not.
    """
    owners = ("mlm", "assign", *model.heads)
    for name in weights:
        if name not in owners:
            raise unknown_name("weights", name, owners)
    chosen = {owner: float(weights.get(owner, 1.0)) for owner in owners}
    pupil = copy.deepcopy(model).train()
    learning = _open(pupil)
    optimizer = torch.optim.AdamW(learning, lr=rate, weight_decay=0.0)
    history: list[dict[str, float]] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with torch.no_grad():
            video = pupil.encode_video(batch.rows)
        for step in range(1, steps + 1):
            parts = pupil.losses(batch, pupil(batch, video)).per_head()
            total: Tensor = torch.stack([chosen[owner] * value for owner, value in parts.items()]).sum()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            history.append({"step": float(step), **{owner: float(value.detach()) for owner, value in parts.items()}})
    return history


def _open(model: TPOModel) -> list[torch.nn.Parameter]:
    """Lets learn what came from no pretrained model, and nothing else."""
    learning = []
    for name, parameter in model.named_parts().items():
        parameter.requires_grad_(not name.startswith(model.given_parts))
        learning += [parameter] if parameter.requires_grad else []
    return learning


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Part of the sum -> name of the history -> (steps, values): the lines of a chart with a panel for each part."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for name, history in histories.items():
        for row in history:
            for part, value in row.items():
                if part == "step":
                    continue
                steps, values = panels.setdefault(part, {}).setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return panels
