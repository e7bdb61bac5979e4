"""Training: `fit` takes a model through the stages of a recipe, each a `StageLoop`.

Its rooms: `rows` (what a step shows), `steps` (how parts of a batch, passes and processes become one step), `watch` (what is noticed on
the way), `resume` (what a stopped run needs), `cost` (memory, operations and time, before and while it runs).
"""

from tpo_lab.interrupt import Interrupted
from tpo_lab.training.fitting import fit
from tpo_lab.training.loop import Listener, StageLoop
from tpo_lab.training.options import TrainingOptions
from tpo_lab.training.rows.data import StageData, by_task, difficulty, groups_of, task_of
from tpo_lab.training.steps.micro_batch import TrainingStep
from tpo_lab.training.watch.gradients import GradientWatch

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
