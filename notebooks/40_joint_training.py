# %% [markdown]
# # Stage 3: everything together
#
# Stage 2 trained the heads one after the other. Stage 3 trains them **together with the whole model**: first on all tasks (3a), then with conversation mixed in (3b).
# Now the vision encoder and the connector learn too, so what the heads find out about boxes and moments can reach them. In the paper they learn in 3b as well; the nano recipe leaves them alone there, so that each clip is encoded once only and twice as many steps fit the time.
#
# You look at what trains, at the parts of the loss and at how they pull at the weights that they share. Then you train both stages and ask what was gained, and what was forgotten.
#
# **Question**: does the model get better at *where* and *when* without forgetting how to talk, and does one head help another?
#
# **Time and hardware**: about seven minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [22_mask_head](22_mask_head.ipynb), whose checkpoint this one takes. You should know what the cosine of two vectors says.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # from 22_mask_head; "" starts from the shipped backbone
out: str = "../runs/40_joint_training"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
import pandas as pd

import tpo_lab as tpo
from tpo_lab import freeze

# %%
from tpo_lab.lessons.pulls import along, cosines, joined, pulls
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.report import comparison, confusion_chart, loss_chart
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.grids import grid_chart

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps, eval_samples = (steps or 4, min(eval_samples, 24)) if fast else (steps, eval_samples)
device

# %%
train, val = tpo.read(folder / "train.jsonl"), tpo.read(folder / "val.jsonl")[:eval_samples]
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)

# %% [markdown]
# ## 1. What trains now
#
# A stage is data: which parts learn, and how fast. The peak learning rate of each part in three stages; `NaN` is a part that stays as it is.

# %%
stages = {name: recipe.for_heads(tuple(model.heads)).stage(name)[0] for name in ("2.region", "3a", "3b")}
plans = {name: freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())["parts"] for name, stage in stages.items()}
pd.DataFrame({name: {part: row["learning_rate"] for part, row in plan.items()} for name, plan in plans.items()})

# %% [markdown]
# ### Exercise 1: what is new in stage 3a?
#
# The names of parts begin with `vision`, `connector`, `llm`, `tokens`, `prompts` or `heads`. Which of these six train in 3a although nothing of them trained in `2.region`? Write the set.
# *You should spend up to 3 minutes on this.*

# %% tags=["exercise"]
new = ...  # a set of names

# %% [markdown] tags=["hint"]
# Look for rows with a number in the column 3a and none in the column 2.region. `heads` had the region head already.

# %% tags=["solution"]
new = {"vision", "connector"}

# %% tags=["check"]
trained = {name: {part.partition(".")[0] for part, row in plan.items() if row["trained"]} for name, plan in plans.items()}
true = trained["3a"] - trained["2.region"]
assert new is not ..., "exercise 1: expected a set of names, got ..."
assert set(new) <= trained["3a"], f"exercise 1: these do not train in 3a: {sorted(set(new) - trained['3a'])}"
assert set(new) == true, f"exercise 1: {len(true)} of the six are new, you wrote {sorted(new)}"

# %%
assert {"vision", "connector"}.isdisjoint(trained["2.region"]), "stage 2 leaves the vision side alone"
assert {"vision", "connector"} <= trained["3a"], f"stage 3 trains it, got {sorted(trained['3a'])}"

# %% [markdown]
# ## 2. One loss, many parts
#
# Each part of the objective is reported on its own and multiplied with its weight; their sum is the loss. Here is a batch that holds one sample of every task.

# %%
frames = Frames(model.backbone)
tasks = {s.meta["task"]: s for s in val}
batch = model.collate([frames.row([s]) for s in tasks.values()]).to(device)
report = model.losses(batch, model(batch), stages["3b"].losses)
pd.DataFrame({"value": {n: v.item() for n, v in report.terms.items()}, "weight": report.weights})

# %% [markdown]
# ### Exercise 2: the loss
#
# Compute the number that training makes smaller, from `report.terms` and `report.weights`, two dictionaries with the same names. *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
total = ...  # one number

# %% [markdown] tags=["hint"]
# Equation 1 is a sum. `sum(... for name, value in report.terms.items())` goes through it.

# %% tags=["solution"]
total = sum(report.weights[name] * value.item() for name, value in report.terms.items())

# %% tags=["check"]
assert total is not ..., "exercise 2: expected a number, got ..."
assert abs(float(total) - report.total.item()) < 1e-3 * abs(report.total.item()), (
    f"exercise 2: the loss is {report.total.item():.3f}, you have {float(total):.3f}"
)

# %% [markdown]
# ## 3. Which head helps which?
#
# All heads share the language model, and with it LoRA. A step in LoRA follows the sum of what each part of the objective asks for. The cosine of two parts' gradients says how they get on: above 0 a step for one is a step for the other too, below 0 they pull against each other, at 0 they do not meet.
#
# Three batches with two samples of every task, before stage 3 has begun.
#
# **Predict**: the region and the mask head both must know *which thing* is meant. Is their cosine above that of region and temporal?

# %%
asking = [s for s in train if s.targets.names or s.meta["task"] == "conversation"]  # without those about what is not there
by_task = {task: [s for s in asking if s.meta["task"] == task] for task in tasks}
spread = {task: found[:: max(len(found) // 6, 1)][:6] for task, found in by_task.items()}
chosen = [[s for found in spread.values() for s in found[n : n + 2]] for n in (0, 2, 4)]
batches = [model.collate([frames.row([s]) for s in samples]).to(device) for samples in chosen if samples]
measured = [pulls(model.losses(b, model(b), stages["3b"].losses).per_head(), model.named_parts(), ["llm.lora"]) for b in batches]

# %%
gradients = joined(measured)
owners = gradients.owners
grid_chart(cosines(gradients, "llm.lora"), "Cosines of the gradients in LoRA", rows=owners, columns=owners)

# %%
pairs = list(zip(owners[2:], owners[3:] + owners[2:3], strict=True))
pd.DataFrame({f"{a} and {b}": [each.cosine(a, b, "llm.lora") for each in measured] for a, b in pairs}).round(2)

# %% [markdown]
# The second cell shows the same for each batch by itself. If the three numbers of a pair differ by as much as the pairs do, the picture says little about the pair: it is noise of a few samples.
#
# ### Exercise 3: a cosine from inner products
#
# `products[a, b]` is the inner product of two gradients, all of LoRA taken together. Compute the cosine of the first two heads in it. *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
products, a, b = gradients.products["llm.lora"], 2, 3  # 0 and 1 are the words and the routes
cosine = ...  # one number

# %% [markdown] tags=["hint"]
# A vector's inner product with itself is the square of its length.

# %% tags=["solution"]
products, a, b = gradients.products["llm.lora"], 2, 3  # 0 and 1 are the words and the routes
cosine = products[a, b] / (products[a, a] * products[b, b]).sqrt()

# %% tags=["check"]
true = gradients.cosine(owners[2], owners[3], "llm.lora")
assert cosine is not ..., "exercise 3: expected a number, got ..."
assert abs(float(cosine) - true) < 1e-4, f"exercise 3: {owners[2]} and {owners[3]} have the cosine {true:.4f}, you have {float(cosine):.4f}"

# %% [markdown]
# **Break it**: make one head too loud. Give the region head's loss a hundred times its weight and look at the cosine of each part's gradient with the common step.
#
# **Predict**: what happens to the bars of those who have a cosine near zero with the region head?

# %%
steps_along = {f"region x {factor}": along(gradients, "llm.lora", {"region": factor}) for factor in (1, 10, 100)}
bar_chart({owner: {name: found[owner] for name, found in steps_along.items()} for owner in owners}, "Cosine of each gradient with the step")

# %%
loudness = [found["region"] for found in steps_along.values()]
assert loudness == sorted(loudness), f"the louder the region head, the more the step goes its way: {loudness}"

# %% [markdown]
# A step that serves one part alone is not wrong for the others, only useless, until it begins to undo what they have learned. Weights are cheap to get wrong: look at this picture before you choose one.
#
# **What this can not tell.** A cosine at one point of training is no gain at its end. Whether the mask head makes the *boxes* better was measured: three runs with it and three without, with the same steps and rates
# (`data/evidence/cotraining.md`). Region Acc@0.5 changed by -1.6, -3.6 and +1.6 points; all three together -1.2 points, with a 95% interval from -7.6 to +5.2.
# That is no effect that can be told from none, at this size and with this data. The paper reports gains from co-training for its large model (Table 12); this model neither shows nor refutes them.
#
# ## 4. Before

# %%
begun = tpo.evaluate(model, val)
begun.headline()

# %% [markdown]
# ## 5. Stage 3a: all tasks
#
# Look at the data of the stage: there is no conversation in it.
#
# **Predict**: what will that do to the plain questions?

# %%
{name: dict(stage.data) for name, stage in stages.items()}

# %%
recipe = recipe.replace(**{"3a.steps": steps, "3b.steps": steps}) if steps else recipe
run = open_run(out)
options = tpo.TrainingOptions(seed=seed)
first = tpo.fit(model, train, recipe, run / "3a", stage="3a", resume=True, options=options, listener=progress_line())

# %%
tasks_only = tpo.evaluate(model, val)
tasks_only.headline()

# %% [markdown]
# ## 6. Stage 3b: with conversation

# %%
second = tpo.fit(model, train, recipe, run / "3b", stage="3b", resume=True, options=options, listener=progress_line())
loss_chart([*first.metrics(), *second.metrics()])

# %%
heads = {name.partition("/")[0] for line in second.metrics() for name in line if "/" in name and not name.startswith("gradient")}
assert heads <= set(model.heads) and (fast or steps or heads == set(model.heads)), f"every head has its own losses, got {sorted(heads)}"
assert "vision." in model.trained_backbone_parts, "the vision encoder has been trained, so the checkpoint keeps it"

# %% [markdown]
# ## 7. What came of it
#
# Read the table from left to right. A head's figure *with the route given* says how good the head is; the routed figure says how good the whole model is, because it also has to ask the head by itself.

# %%
together = tpo.evaluate(model, val)
moments = {"start": begun, "after 3a": tasks_only, "after 3b": together}
pd.DataFrame({name: evaluation.headline() for name, evaluation in moments.items()}).round(3)

# %%
routing = together.scores["routing"]
confusion_chart(routing["labels"], routing["confusion"], "After stage 3b")

# %% [markdown]
# **Are the plain questions kept?** Compare with the shipped backbone, which was trained for nothing else.

# %%
base = tpo.evaluate(tpo.build(recipe=recipe).to(device), [s for s in val if s.meta["task"] == "conversation"])
kept = {name: evaluation.scores["qa"]["accuracy"] for name, evaluation in {"base": base, **moments}.items()}
pd.Series(kept, name="plain questions answered exactly").round(3).to_frame()

# %%
gap = together.headline().get("REC Acc@0.5 (forced)", 0.0) - together.headline().get("REC Acc@0.5", 0.0)
print(f"what routing costs the boxes: {gap:.1%}")
asked = {record.id for record in base.records}
kept_row = comparison(base.records, [record for record in together.records if record.id in asked])[0]
change, low, high = kept_row.change
print(f"{kept_row.count} plain questions: {change:+.1%}, 95% interval {low:+.1%} to {high:+.1%}")
assert fast or steps or high >= -0.15, "conversation is kept within 15 points, as far as so few questions can tell"

# %%
scores = {"headline": together.headline(), "before": begun.scores, "after_3a": tasks_only.scores, "after": together.scores}
checkpoint = str(second.path / "checkpoint")
emit(
    out,
    notebook="40_joint_training",
    stages=["3a", "3b"],
    checkpoint=checkpoint,
    plain_questions=kept,
    cosines=cosines(gradients, "llm.lora"),
    **scores,
)

# %% [markdown]
# ## Summary
#
# | stage | data | trains | teaches |
# |---|---|---|---|
# | 1 | questions of all tasks | LoRA, rows of the new tokens | *which* task is asked |
# | 2 | one task at a time | its head, its task token, LoRA | to answer it |
# | 3a | all tasks | everything, the vision encoder too | to answer all of them with one model |
# | 3b | all tasks and conversation | LoRA, heads, tokens (in the paper everything) | and to go on talking |
#
# **Exercises**
#
# 1. Leave 3a out: start 3b from the same checkpoint with twice the steps. Which figures change, and is the order of the paper worth its price?
# 2. Double the weight of one head with `recipe.replace(**{"3b.losses.region": 2.0})`. Who pays for it? Use the table above, not the loss.
#
# This is the last stage. The checkpoint in `run/3b/checkpoint` is the model that `tpo.load` takes; the [tour](00_tour.ipynb) runs on it too.
#
# Next: [50_debugging](50_debugging.ipynb), on a head that predicts nonsense.
