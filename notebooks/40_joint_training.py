# %% [markdown]
# # Stage 3: everything together
#
# Stage 2 trained the heads one after the other. Stage 3 trains them **together with the whole model**: first on all tasks (3a), then with conversation mixed in (3b).
# Now the vision encoder and the connector learn too, so what the heads find out about boxes and moments can reach them. In the paper they learn in 3b as well; the nano recipe leaves them alone there, so that each clip is encoded once only and twice as many steps fit the time.
#
# The question of this notebook: does the model get better at *where* and *when* without forgetting how to talk?
#
# **Time and hardware**: about seven minutes on two CPU cores; a GPU is used where there is one.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs/world
checkpoint: str = ""  # from 22_mask_head; "" starts from the shipped backbone
out: str = "../runs/40_joint_training"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch

# %%
import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab import freeze
from tpo_lab.demo import world_data

# %%
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line
from tpo_lab.report import comparison, confusion_chart, loss_chart

# %%
if threads:
    torch.set_num_threads(threads)
torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"
device

# %%
folder = world_data(data or "../runs/world", seed=seed)
train, val = tpo.read(folder / "train.jsonl"), tpo.read(folder / "val.jsonl")[:eval_samples]
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)

# %% [markdown]
# ## 1. What trains now
#
# **Predict**: which rows were frozen in stage 2 and train here?

# %%
stages = {name: recipe.for_heads(tuple(model.heads)).stage(name)[0] for name in ("2.region", "3a", "3b")}
plans = {name: freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())["parts"] for name, stage in stages.items()}
pd.DataFrame({name: {part: row["learning_rate"] for part, row in plan.items()} for name, plan in plans.items()})

# %%
trained = {name: {part.partition(".")[0] for part, row in plan.items() if row["trained"]} for name, plan in plans.items()}
assert {"vision", "connector"}.isdisjoint(trained["2.region"]), "stage 2 leaves the vision side alone"
assert {"vision", "connector"} <= trained["3a"], f"stage 3 trains it, got {sorted(trained['3a'])}"

# %% [markdown]
# ## 2. One loss, many parts
#
# Each part of the objective is reported on its own and multiplied with its weight; their sum is the loss. Here is a batch that holds one sample of every task.

# %%
tasks = {s.meta["task"]: s for s in val}
batch = model.collate([Frames(model.backbone).row([s]) for s in tasks.values()]).to(device)
report = model.losses(batch, model(batch), stages["3b"].losses)
pd.DataFrame({"value": {n: v.item() for n, v in report.terms.items()}, "weight": report.weights})

# %%
total = sum(report.weights[name] * value for name, value in report.terms.items())
assert torch.allclose(total, report.total), f"the loss is the weighted sum of its parts: {total.item()} and {report.total.item()}"

# %% [markdown]
# ## 3. Before

# %%
start = tpo.evaluate(model, val)
start.headline()

# %% [markdown]
# ## 4. Stage 3a: all tasks
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
# ## 5. Stage 3b: with conversation

# %%
second = tpo.fit(model, train, recipe, run / "3b", stage="3b", resume=True, options=options, listener=progress_line())
loss_chart([*first.metrics(), *second.metrics()])

# %%
heads = {name.partition("/")[0] for line in second.metrics() for name in line if "/" in name and not name.startswith("gradient")}
assert heads <= set(model.heads) and (steps or heads == set(model.heads)), f"every head has its own losses, got {sorted(heads)}"
assert "vision." in model.trained_backbone_parts, "the vision encoder has been trained, so the checkpoint keeps it"

# %% [markdown]
# ## 6. What came of it
#
# Read the table from left to right. A head's figure *with the route given* says how good the head is; the routed figure says how good the whole model is, because it also has to ask the head by itself.

# %%
together = tpo.evaluate(model, val)
moments = {"start": start, "after 3a": tasks_only, "after 3b": together}
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
assert steps or high >= -0.15, "conversation is kept within 15 points, as far as so few questions can tell"

# %%
scores = {"headline": together.headline(), "before": start.scores, "after_3a": tasks_only.scores, "after": together.scores}
checkpoint = str(second.path / "checkpoint")
emit(out, notebook="40_joint_training", stages=["3a", "3b"], checkpoint=checkpoint, plain_questions=kept, **scores)

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
