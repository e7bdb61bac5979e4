"""Training: `fit` takes a model through the stages of a recipe."""

from tpo_lab.interrupt import Interrupted
from tpo_lab.training.data import StageData, by_task, difficulty, groups_of, task_of
from tpo_lab.training.fitting import fit
from tpo_lab.training.gradients import GradientWatch
from tpo_lab.training.loop import Listener, StageLoop, TrainingOptions
from tpo_lab.training.micro_batch import TrainingStep

__all__ = [
    "GradientWatch",
    "Interrupted",
    "Listener",
    "StageData",
    "StageLoop",
    "TrainingOptions",
    "TrainingStep",
    "by_task",
    "difficulty",
    "fit",
    "groups_of",
    "task_of",
]
