"""How much the demo does: sizes of the data, lengths of the stages, how much is evaluated and shown."""

from __future__ import annotations

from dataclasses import dataclass

from tpo_lab.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Sizes of one demo. A training clip carries about 40 samples, others fifteen.

    Attributes:
        train_samples, val_samples, test_samples: written to each split.
        steps: of every stage; 0 takes the recipe's.
        eval_samples: of the validation split, that each notebook looks at before and after.
        tested: samples of the test split that are evaluated before and after.
        examples: predictions per head that the report shows.
        recipe: the recipe's name.
        compositions: samples of looks that are in no training clip, evaluated at the end as well; 0 for none.
    """

    train_samples: int = 54_000
    val_samples: int = 900
    test_samples: int = 900
    steps: int = 0
    eval_samples: int = 40
    tested: int = 900
    examples: int = 6
    recipe: str = "nano"
    compositions: int = 0

    def __post_init__(self) -> None:
        for name in ("train_samples", "val_samples", "test_samples", "eval_samples", "tested", "examples"):
            if getattr(self, name) < 1:
                raise UsageError(name, expected="at least 1", got=getattr(self, name))
        for name, zero in (("steps", "as the recipe says"), ("compositions", "none")):
            if getattr(self, name) < 0:
                raise UsageError(name, expected=f"0 ({zero}) or more", got=getattr(self, name))


FULL = DemoSettings()
SMOKE = DemoSettings(train_samples=360, val_samples=90, test_samples=90, steps=2, eval_samples=18, tested=54, examples=3)
"""Shows that every part runs, in a minute or two; its figures mean nothing."""
LONG = DemoSettings(train_samples=300_000, test_samples=1800, tested=1800, compositions=1800, recipe="nano-long")
"""As far as the nano model goes, in an hour or two on two CPU cores."""
