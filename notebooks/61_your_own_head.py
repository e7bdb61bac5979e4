# %% [markdown]
# # Your own head in thirty lines
#
# The paper adds three heads to a language model. Nothing in the idea stops at three: whatever can be read off one vector, and has a loss, can be a head.
# Here you write one that **points**: asked where a thing is, it answers with one point. You give it a token and a route, train it on top of a model that is trained already, and see its loss move the language model. Then you cut the wire.
#
# **Question**: what does a new head need, and what does it need the gradient for?
#
# **Time and hardware**: about five minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [20_region_head](20_region_head.ipynb). You should have written a `torch.nn.Module` before.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # the trained model that gets the head; "" takes the shipped "nano-tpo"
out: str = "../runs/61_your_own_head"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the new head and the order of training
steps: int = 0  # of each of the two trainings; 0 takes 200, or 24 where fast
eval_samples: int = 80  # validation questions looked at
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
import pandas as pd
import torch
from torch import nn

import tpo_lab as tpo
from tpo_lab.datasets.points import asked_to_point
from tpo_lab.extension import with_heads

# %%
from tpo_lab.heads import ClipInfo, Head, build_head, register
from tpo_lab.media import Frames
from tpo_lab.metrics.pointing import pointing_game
from tpo_lab.model import clip_visual
from tpo_lab.notebooks import emit, open_run, progress_line, start, world

# %%
from tpo_lab.report import line_chart, term_panel
from tpo_lab.report.points import point_picture
from tpo_lab.stages import Stage

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
trained = checkpoint or "nano-tpo"
steps = steps or (24 if fast else 200)

# %% [markdown]
# ## 1. The question and its target
#
# A head is asked by a **marker** in the answer, and learns from the **target** of the same name. The sample schema knows four names. Any other name is kept as it is: a head of your own reads its own targets.
#
# There are no points in the world's files, but there are boxes. The middle of a box is a point that everybody agrees on.

# %%
boxed = [sample for sample in tpo.read(folder / "train.jsonl") if len(sample.targets.region or ()) == 1]
first = boxed[0]
first.conversation[0].text, first.targets.region[0].xyxy

# %% [markdown]
# ### Exercise 1: the target
#
# Write the point that the head should learn for this question, `[x, y]` in pixels.
# *You should spend up to 3 minutes on this.*

# %% tags=["exercise"]
x0, y0, x1, y1 = first.targets.region[0].xyxy
point = ...

# %% [markdown] tags=["hint"]
# The middle between two numbers is half of their sum.

# %% tags=["solution"]
x0, y0, x1, y1 = first.targets.region[0].xyxy
point = [(x0 + x1) / 2, (y0 + y1) / 2]

# %% tags=["check"]
asked = asked_to_point([first])[0]
assert point is not ..., "exercise 1: expected two numbers, got ..."
assert list(point) == asked.targets.point, f"exercise 1: expected the middle of the box {list(first.targets.region[0].xyxy)}, got {point}"

# %%
train = asked_to_point(boxed)
val = asked_to_point(tpo.read(folder / "val.jsonl"))[: 24 if fast else eval_samples]
asked.conversation[0].text, asked.conversation[1].text, asked.targets.model_dump(exclude_none=True), len(train), len(val)

# %% [markdown]
# ## 2. The head
#
# The protocol asks for a name and two methods:
#
# * `predict(task_embedding, visual)` makes a prediction from one vector per slot, $e_i$ `[slot, d]`. A **slot** is one place where a head was asked.
# * `losses(prediction, target)` gives values by name, **not** averaged: one value per slot. Averaging, weights and logging are the objective's.
#
# Two more methods are given below, because pixels are no good unit for a network: `encode_target` turns the pixels of a sample into numbers in $[0, 1]$, and `decode` turns a prediction back.
#
# ### Exercise 2: write it
#
# Fill the three gaps: a perceptron of two layers from `embed_dim` to 2 numbers; a prediction in $[0, 1]$ for each slot `[slot, 2]`; and a loss `{"l1": values}`, the distance in x plus the distance in y, one value per slot.
# *You should spend up to 15 minutes on this.*


# %% tags=["exercise"]
@register
class PointHead(Head[torch.Tensor, torch.Tensor]):
    """One point per slot, in [0, 1] of width and height, read off the task embedding."""

    name = "point"

    def __init__(self, embed_dim, settings=None):
        super().__init__(embed_dim, settings)
        self.mlp = ...

    def predict(self, task_embedding, visual):
        return ...

    def losses(self, prediction, target):
        return ...

    def encode_target(self, annotation, clip):
        return torch.tensor(annotation) / torch.tensor([clip.width, clip.height])

    def decode(self, prediction, clips, answer):
        points = [found[self.name] for found in super().decode(prediction, clips, answer)]
        return [{self.name: [[x * clip.width, y * clip.height] for x, y in some]} for some, clip in zip(points, clips, strict=True)]


# %% [markdown] tags=["hint"]
# `nn.Sequential(nn.Linear(...), nn.ReLU(), nn.Linear(...))` is a perceptron of two layers. `.sigmoid()` brings any number into $[0, 1]$.

# %% [markdown] tags=["hint"]
# `(prediction - target)` is `[slot, 2]`. Sum over its last axis only: `.sum(-1)`. No `.mean()`.


# %% tags=["solution"]
@register
class PointHead(Head[torch.Tensor, torch.Tensor]):
    """One point per slot, in [0, 1] of width and height, read off the task embedding."""

    name = "point"

    def __init__(self, embed_dim, settings=None):
        super().__init__(embed_dim, settings)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, 2))

    def predict(self, task_embedding, visual):
        return self.mlp(task_embedding).sigmoid()

    def losses(self, prediction, target):
        return {"l1": (prediction - target).abs().sum(-1)}

    def encode_target(self, annotation, clip):
        return torch.tensor(annotation) / torch.tensor([clip.width, clip.height])

    def decode(self, prediction, clips, answer):
        points = [found[self.name] for found in super().decode(prediction, clips, answer)]
        return [{self.name: [[x * clip.width, y * clip.height] for x, y in some]} for some, clip in zip(points, clips, strict=True)]


# %% tags=["check"]
clip = ClipInfo(width=96, height=64, duration_sec=4.0, times_sec=(0.5, 1.5))
visual = clip_visual([clip] * 3, torch.arange(3), "cpu")
tried = build_head("point", 8)
assert isinstance(tried.mlp, nn.Module), f"exercise 2: expected a module as self.mlp, got {tried.mlp}"
guess = tried.predict(10 * torch.randn(3, 8), visual)
assert isinstance(guess, torch.Tensor), f"exercise 2: expected a tensor from predict, got {guess}"
assert guess.shape == (3, 2), f"exercise 2: expected a prediction [slot, 2], for three slots (3, 2), got {tuple(guess.shape)}"
assert guess.min() >= 0 and guess.max() <= 1, f"exercise 2: expected numbers in [0, 1], got {guess.min():.2f} to {guess.max():.2f}"
values = tried.losses(torch.tensor([[0.2, 0.5], [1.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.0, 0.25]]))
assert isinstance(values, dict) and "l1" in values, f'exercise 2: expected a loss {{"l1": values}}, got {values}'
assert values["l1"].shape == (2,), f"exercise 2: expected one value per slot, not averaged, got the shape {tuple(values['l1'].shape)}"
assert torch.allclose(values["l1"], torch.tensor([0.3, 1.25])), f"exercise 2: expected 0.3 + 0 and 1 + 0.25, got {values['l1'].tolist()}"
encoded = tried.encode_target([48.0, 16.0], clip).tolist()
assert encoded == [0.5, 0.25], f"half of the width and a quarter of the height, got {encoded}"

# %% [markdown]
# `@register` puts the class under its name. From now on `tpo.build(heads=["point"])`, a recipe and a checkpoint know what `point` is. The library was not changed.
#
# ## 3. Into a trained model
#
# The model can do other things already, and shall keep them. `with_heads` adds to it:
#
# | new | starts as |
# |---|---|
# | a route token, so that the model can *say* that it wants to point | the mean of all words |
# | a task token, which is put behind the route | random numbers |
# | the head | random weights |
#
# **Predict**: the new model is asked an old question, *where is ...*, without *point at it*. Does anything change?

# %%
region = [sample for sample in tpo.read(folder / "val.jsonl") if sample.targets.region][: len(val)]
model = tpo.load(trained).to(device)
known = tpo.evaluate(model, region)
model = with_heads(model, ["point"])
{name: tuple(token.shape) for name, token in model.tokens.task.items()}

# %%
again = tpo.evaluate(model, region)
assert [r.forced for r in again.records] == [r.forced for r in known.records], "a head that nobody asks changes no box"
before = tpo.evaluate(model, val)
before.scores["routing"]["accuracy"], [record.text for record in before.records[:3]]

# %% [markdown]
# ## 4. How far does the loss reach?
#
# ### Exercise 3: before you look
#
# The loss of the points alone is sent backward. Which of these parts get a gradient? Keep their names in `reached`, and take out the others.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
parts = ("heads.point", "heads.region", "tokens.task.point", "tokens.task.region", "tokens.rows.output", "llm.lora", "llm.base")
reached = ...  # a set of names out of parts

# %% [markdown] tags=["hint"]
# The gradient goes back along everything that the point was computed from. The output rows only turn hidden states into words.

# %% [markdown] tags=["hint"]
# The base of the language model is frozen where it carries LoRA: the gradient passes it on its way to LoRA and to the token, and leaves nothing there.

# %% tags=["solution"]
parts = ("heads.point", "heads.region", "tokens.task.point", "tokens.task.region", "tokens.rows.output", "llm.lora", "llm.base")
reached = {"heads.point", "tokens.task.point", "llm.lora"}

# %% tags=["check"]
assert reached is not ..., "exercise 3: expected a set of names, got ..."
batch = model.collate([Frames(model.backbone).row([sample]) for sample in train[:4]]).to(device)
model.zero_grad()
model.losses(batch, model(batch)).per_head()["point"].backward()
grads = {name: p.grad.norm().item() for name, p in model.named_parts().items() if p.grad is not None}
norms = {part: sum(norm**2 for name, norm in grads.items() if name.startswith(part)) ** 0.5 for part in parts}
measured = {part for part, norm in norms.items() if norm > 0}
assert set(reached) == measured, f"exercise 3: too many: {sorted(set(reached) - measured)}; missing: {sorted(measured - set(reached))}"

# %%
model.zero_grad()
pd.Series(norms, name="gradient norm of the point loss").to_frame()

# %% [markdown]
# ## 5. Train it
#
# A stage is data. It names the parts that learn and how fast, the task and the losses. `starts_from` lets the new token begin as the region's, which has learned already to ask *which thing is meant*.

# %%
stage = Stage(
    name="2.point",
    title="the point head and its task token",
    learning_rates={"llm.lora.*": 1e-3, "heads.point.*": 2e-3, "tokens.task.point": 2e-3},
    data={"point": 1.0},
    losses={"mlm": 1.0, "assign": 1.0, "point": 1.0},
    starts_from={"tokens.task.point": "tokens.task.region"},
    steps=steps,
    batch_size=8,
    max_questions=4,
    warmup_ratio=0.1,
    grad_clip=1.0,
    precision="fp32",
)
recipe = tpo.Recipe(name="point", stages=(stage,), lora=model.lora, frames=model.backbone.num_frames, resolution=model.backbone.image_size)

# %%
options = tpo.TrainingOptions(seed=seed)
place = open_run(out)
run = tpo.fit(model, train, recipe, place / "whole", resume=True, options=options, listener=progress_line())
after = tpo.evaluate(model, val)

# %%
boxes = [sample.meta["box_xyxy"] for sample in val]
evaluations = {"before": before, "after": after}
points = {name: [record.forced["point"]["point"][0] for record in each.records] for name, each in evaluations.items()}
pd.DataFrame({name: pointing_game(some, boxes) for name, some in points.items()})

# %% [markdown]
# *Hits* is the share of points that lie in the true box, *distance* is from its middle, in pixels of a frame of 64.
#
# And does the model ask the new head itself?

# %%
routes = {"before": before.scores["routing"]["accuracy"], "after": after.scores["routing"]["accuracy"]}
print(routes, [record.text for record in after.records[:3]])
assert fast or steps < 100 or routes["after"] > 0.9, f"a few hundred steps teach the route, got {routes['after']:.0%}"

# %%
shown = val[0]
answer = model.answer(shown.media_path, shown.conversation[0].text)
answer.task, answer.structured

# %% [markdown]
# ## 6. Saved and loaded
#
# A checkpoint holds the head's name and settings, its weights, its token and its rows of the token table. It does not hold your code: whoever loads it registers the class first.

# %%
loaded = tpo.load(run.path / "checkpoint").to(device)
same = loaded.answer(shown.media_path, shown.conversation[0].text)
print(list(loaded.heads), loaded.head("point").spec())
assert same.to_dict()["structured"] == answer.to_dict()["structured"], "what is loaded answers as what was saved"

# %% [markdown]
# ## 7. Break it: cut the wire
#
# ### Exercise 4: a head that keeps its gradient to itself
#
# Write a variant of your head that predicts exactly the same, and lets no gradient pass to the task embedding.
# *You should spend up to 5 minutes on this.*


# %% tags=["exercise"]
@register
class CutHead(PointHead):
    """The same, and the gradient ends here."""

    variant = "cut"

    def predict(self, task_embedding, visual):
        return ...


# %% [markdown] tags=["hint"]
# A tensor's `.detach()` has the same values and no history. `super().predict(...)` is the head that you have already.


# %% tags=["solution"]
@register
class CutHead(PointHead):
    """The same, and the gradient ends here."""

    variant = "cut"

    def predict(self, task_embedding, visual):
        return super().predict(task_embedding.detach(), visual)


# %% tags=["check"]
cut_head, vectors = build_head("point", 8, head="cut"), torch.randn(3, 8, requires_grad=True)
cut_head.load_state_dict(tried.state_dict())
found = cut_head.predict(vectors, visual)
assert isinstance(found, torch.Tensor), f"exercise 4: expected a tensor from predict, got {found}"
assert torch.equal(found, tried.predict(vectors, visual)), "exercise 4: expected the same prediction as that of the whole head"
assert found.requires_grad, "exercise 4: expected that the head itself still learns: cut before it, not behind it"
assert torch.autograd.grad(found.sum(), vectors, allow_unused=True)[0] is None, "exercise 4: expected no gradient at the task embedding"

# %% [markdown]
# **Predict**: the cut head is trained on the same questions in the same order. The language model still learns to write the route. What does the loss of the points do?

# %%
torch.manual_seed(seed)
cut = with_heads(tpo.load(trained).to(device), [{"name": "point", "head": "cut"}])
cut_run = tpo.fit(cut, train, recipe, place / "cut", resume=True, options=options, listener=progress_line())
line_chart([term_panel({"whole": run.metrics(), "cut": cut_run.metrics()}, "point/l1", "loss of the points")])

# %% [markdown]
# At first both fall: the head learns what it *can* read off a vector that was made for boxes. Then the cut one stops. The language model is never told what the head would need, so $e_i$ stays as it is. The whole one goes on, because its loss changes $e_i$ itself. That is TPO in one picture.

# %%
cut_found = tpo.evaluate(cut, val)
points["cut"] = [record.forced["point"]["point"][0] for record in cut_found.records]
scores = {name: pointing_game(some, boxes) for name, some in points.items()}
pd.DataFrame(scores)

# %%
point_picture(shown, {"whole": points["after"][0], "cut": points["cut"][0]}, boxes[0])

# %%
last = max(1, steps // 6)
tail = {name: sum(row["point/l1"] for row in each.metrics()[-last:]) / last for name, each in (("whole", run), ("cut", cut_run))}
print({name: round(value, 3) for name, value in tail.items()})
assert fast or steps < 100 or tail["whole"] < 0.8 * tail["cut"], f"without a gradient into the language model the loss stops early: {tail}"

# %% [markdown]
# ## 8. What did it cost?
#
# LoRA belongs to all heads. **Predict**: after training on points alone, are the boxes better, worse, or the same?

# %%
now = tpo.evaluate(model, region)
cost = {name: each.scores["region"]["teacher_forced"]["miou"] for name, each in (("boxes before", known), ("boxes after", now))}
pd.Series(cost, name="mean IoU").to_frame()

# %% [markdown]
# A stage that trains one task moves what the others stand on. Where the two want the same of $e_i$, as a point and a box of one thing do, that can even help; a task that wants something else takes from them. Neither was asked for. So stage 3 of the paper trains all of them together: add `"region": 1.0` to the stage's `data` and `losses`, and the region's samples to the training data.

# %%
headline = {"hits": scores["after"]["hits"], "hits, cut": scores["cut"]["hits"], "loss": tail["whole"], "loss, cut": tail["cut"]}
headline |= {"boxes before": cost["boxes before"], "boxes after": cost["boxes after"], "route accuracy": routes["after"]}
emit(out, notebook="61_your_own_head", headline=headline, stages=["2.point"], checkpoint=str(run.path / "checkpoint"), scores=scores)

# %% [markdown]
# ## Summary
#
# | a head needs | in this notebook | where it is said |
# |---|---|---|
# | a name | `point`: the marker `<point>`, the target `targets.point`, the route, the token | `name` |
# | a prediction | `[slot, 2]` from $e_i$ | `predict` |
# | a loss | one value per slot | `losses` |
# | units | pixels to $[0, 1]$ and back | `encode_target`, `decode` |
# | a place in a model | `with_heads`, or `tpo.build(heads=[..., "point"])` | `@register` |
# | a stage | which parts learn, from which data | `Stage` |
# | the gradient into the language model | without it the loss stops early | do not `detach` |
#
# **Exercises**
#
# 1. Let the head look at the video too: set `needs = frozenset({"frame_states"})`, and point by attention over `visual.frame_states[:, -1]` with a query made of $e_i$ (the middles of the cells are in `tpo_lab.heads.patches.patch_middles`). Does it learn faster? Which gradient paths are there now?
# 2. Write a head that says *when it starts*: one number from `targets.temporal.windows_sec[0][0]`, under a name and a marker of its own. Which question should ask for it, so that the route can be learned?
#
# Next: [70_real_model](70_real_model.ipynb).
