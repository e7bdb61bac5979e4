"""What a file of answers was made with: the model, the questions and the settings, so that no other answers are put among them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tpo_lab.errors import UsageError
from tpo_lab.model import TPOModel
from tpo_lab.runs import environment, write_json

SCHEMA = "tpo_lab.answers/1"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Origin:
    """What answers were made with.

    Attributes:
        model: digest of every weight and of what decides how it answers.
        bytes: length of the file of questions.
        questions: its SHA-256.
        settings: what else changes answers.
    """

    model: str
    bytes: int
    questions: str
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, model: TPOModel, questions: Path, settings: Mapping[str, Any]) -> Origin:
        """That of a call."""
        return cls(model_digest(model), questions.stat().st_size, _digest(questions, math.inf), settings)

    def differences(self, now: Origin, questions: Path) -> list[str]:
        """What a later call has otherwise; questions that were added at the end of the file are no difference."""
        found = [] if self.model == now.model else ["another model"]
        if not self._begins(now, questions):
            found.append("other questions")
        changed = [name for name in {**self.settings, **now.settings} if self.settings.get(name) != now.settings.get(name)]
        return found + [f"{name} {now.settings.get(name)!r} in place of {self.settings.get(name)!r}" for name in changed]

    def _begins(self, now: Origin, questions: Path) -> bool:
        if self.questions == now.questions or now.bytes <= self.bytes:
            return self.questions == now.questions
        with questions.open("rb") as file:
            file.seek(max(0, self.bytes - 1))
            whole_lines = b"\n" in file.read(2)
        return whole_lines and _digest(questions, self.bytes) == self.questions


def origin_path(answers: Path) -> Path:
    """Where it is said what answers were made with."""
    return answers.with_suffix(".origin.json")


def write_origin(answers: Path, origin: Origin, questions: Path, *, resume_anyway: bool) -> None:
    """Say beside the answers what they are made with.

    Raises:
        UsageError: there are answers that were made with something else.
    """
    path = origin_path(answers)
    earlier = _read(path) if answers.is_file() and answers.stat().st_size else None
    if answers.is_file() and answers.stat().st_size and earlier is None and not resume_anyway:
        raise _refusal(answers, f"no {path.name} beside it")
    if earlier is not None and (found := earlier.differences(origin, questions)) and not resume_anyway:
        raise _refusal(answers, ", ".join(found))
    write_json(path, {"schema": SCHEMA, "file": str(questions), **asdict(origin), "environment": environment()})


def _refusal(answers: Path, got: str) -> UsageError:
    hint = "Write to another file, or keep the answers that are there and go on (--resume-anyway)."
    return UsageError(f"answers {answers}", expected="answers of the same model, questions and settings", got=got, hint=hint)


def _read(path: Path) -> Origin | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Origin(found["model"], found["bytes"], found["questions"], found["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def model_digest(model: TPOModel) -> str:
    """Tells two models apart: a digest of all weights, and of what decides how they answer beside them."""
    heads = [model.head(name).spec() for name in model.heads]
    facts = [model.backbone.num_frames, model.prompts.understood, model.task_input, heads]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _digest(path: Path, length: float) -> str:
    """SHA-256 of the first bytes of a file."""
    digest, left = hashlib.sha256(), length
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(int(min(left, _CHUNK)))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
