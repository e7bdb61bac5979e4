# %% [markdown]
# # Stage 2: the region head
#
# The model says `<region>`. Now something has to draw the box. This notebook follows one vector: the **task embedding** $e_i$, from the question to the box, and the gradient on its way back.
# You swap the convention of the boxes and see what it costs, and you cut the gradient and see which parts stop learning.
#
# **Question**: how does a loss on four numbers teach a language model what a question means?
#
# **Time and hardware**: about six minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [10_tokens_and_routing](10_tokens_and_routing.ipynb), whose checkpoint this one takes. You should know what a gradient is.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # from 10_tokens_and_routing; "" starts from the shipped backbone
out: str = "../runs/20_region_head"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
from dataclasses import replace

import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab import freeze

# %%
from tpo_lab.boxes import cxcywh_to_xyxy, normalise_xyxy, order_corners, xyxy_to_cxcywh
from tpo_lab.lessons.pulls import pulls
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.objective import combine
from tpo_lab.report import box_picture, loss_chart, pointing_picture
from tpo_lab.report.bars import bar_chart

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps, eval_samples = (steps or 6, min(eval_samples, 16)) if fast else (steps, eval_samples)
device

# %%
train = tpo.read(folder / "train.jsonl")
val = [s for s in tpo.read(folder / "val.jsonl") if s.meta["task"] == "region"][:eval_samples]
len(val), val[0].conversation[0].text

# %%
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)
model.eval()
head = model.head("region")

# %% [markdown]
# ## 1. Four numbers
#
# A box is stored in pixels of the original frame, as `xyxy`: left, top, right, bottom. The head answers in shares of the frame, from 0 to 1, so that the frame's size does not matter.

# %%
one = next(s for s in val if len(s.targets.region or ()) == 1)
clip = Frames(model.backbone).row([one]).clip
size = torch.tensor([clip.width, clip.height])
box = normalise_xyxy(torch.tensor(one.targets.region[0].xyxy), size)
one.targets.region[0].xyxy, size.tolist(), box.tolist()

# %% [markdown]
# ### Exercise 1: the same box, otherwise
#
# Many detectors write a box as `cxcywh`: the centre's x and y, then width and height. Write `box` so, as a tensor of four shares.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
x0, y0, x1, y1 = box
mine = ...  # torch.stack([...])

# %% [markdown] tags=["hint"]
# The centre lies half-way between the two edges. `torch.stack([a, b, c, d])` makes one tensor of four.

# %% tags=["solution"]
x0, y0, x1, y1 = box
mine = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])

# %% tags=["check"]
assert mine is not ..., "exercise 1: expected a tensor of four shares, got ..."
assert tuple(mine.shape) == (4,), f"exercise 1: expected four numbers, got {list(mine.shape)}"
assert torch.allclose(cxcywh_to_xyxy(mine), box), (
    f"exercise 1: your numbers are the box {cxcywh_to_xyxy(mine).tolist()}, expected {box.tolist()}"
)

# %% [markdown]
# **Break it**: nothing in four numbers says which convention they are in. Take the perfect answer, and read it wrongly. No error is raised; only the loss knows.
#
# **Predict**: which mistake costs more, and where in the frame will the misread box lie?

# %%
boxes = normalise_xyxy(torch.tensor([target.xyxy for s in val for target in s.targets.region or ()]), size)
readings = {"as meant": boxes, "centre and size read as corners": xyxy_to_cxcywh(boxes), "y before x": boxes[:, [1, 0, 3, 2]]}
losses = {name: head.box_terms(read, boxes) for name, read in readings.items()}
cost = {name: {term: values.mean().item() for term, values in terms.items()} for name, terms in losses.items()}
bar_chart(cost, "Loss of a perfect answer", unit="mean over the validation boxes")

# %%
assert max(cost["as meant"].values()) < 1e-4, f"read as it was meant, a perfect answer costs nothing, got {cost['as meant']}"
assert all(min(terms.values()) > 0.01 for name, terms in cost.items() if name != "as meant"), f"and a misread one costs something: {cost}"
box_picture(one, {"boxes_xyxy": [order_corners(mine * size.repeat(2)).tolist()]})

# %% [markdown]
# Green is the truth, orange the same four numbers, centre and size, read as corners. A head that is trained so learns the wrong thing without a complaint: look at a picture early.
#
# ## 2. One vector per question
#
# The task token $v_i$ is the same for every question. The task embedding $e_i$ is what the language model makes of it after it has read the video and the question.
#
# **Predict**: two questions about the same clip, one task token. Are the two embeddings equal?

# %%
pair = [s for s in val if s.media == one.media and len(s.targets.region or ()) == 1][:2]
batch = model.collate([Frames(model.backbone).row(pair)]).to(device)
forward = model(batch)
embeddings = forward.task_embeddings["region"]

# %%
cosine = torch.cosine_similarity(embeddings[:1], embeddings[-1:]).item()
print([s.conversation[0].text for s in pair], tuple(embeddings.shape), f"cosine {cosine:.3f}")

# %%
slots = batch.slots["region"]
assert torch.equal(embeddings, forward.hidden[slots.row, slots.token]), "the task embedding is the last hidden state at the slot"
assert len(pair) < 2 or not torch.allclose(embeddings[0], embeddings[-1]), "other questions give other embeddings"

# %% [markdown]
# ## 3. The head
#
# As published, a perceptron of two layers: in goes $e_i$, out come four numbers. It sees neither the video nor the words; what it does not find in $e_i$, it cannot know.
#
# The nano recipe takes the variant `dense`, which needs less of $e_i$: the embedding **points** at one patch of one frame, and the perceptron reads there how the box lies around that patch. *Which* thing is meant still comes through $e_i$ alone.

# %%
head

# %%
forward.predictions["region"].boxes_xyxy

# %%
assert forward.predictions["region"].boxes_xyxy.shape == (len(embeddings), 4), "one box per task embedding"

# %% [markdown]
# ## 4. The gradient's way back
#
# This is the point of TPO: the head's loss does not stop at the head.
#
# ### Exercise 2: whom does the box teach?
#
# Backpropagate the box loss alone. Which of these parts get a gradient? Take the others out of the set. *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
parts = ("heads.region", "tokens.task.region", "llm.lora", "heads.temporal", "tokens.task.temporal", "tokens.rows.output")
reached = set(parts)  # leave in what the box's loss reaches

# %% [markdown] tags=["hint"]
# Ask of each part: would the box be another one if a number in it were another? `tokens.rows.output` are the rows with which the model scores its next word.

# %% tags=["solution"]
parts = ("heads.region", "tokens.task.region", "llm.lora", "heads.temporal", "tokens.task.temporal", "tokens.rows.output")
reached = {"heads.region", "tokens.task.region", "llm.lora"}

# %% tags=["check"]
report = model.losses(batch, forward)
gradients = pulls({"box": report.per_head()["region"]}, model.named_parts(), parts)
norms = {part: gradients.norm("box", part) for part in parts}
true = {part for part, norm in norms.items() if norm > 0}
assert true <= reached, f"exercise 2: these get a gradient too: {sorted(true - reached)}"
assert reached <= true, f"exercise 2: these get none: {sorted(reached - true)}; the box does not depend on them"

# %%
bar_chart(norms, "Gradient of the box loss", unit="norm")

# %%
assert min(norms["heads.region"], norms["tokens.task.region"], norms["llm.lora"]) > 0, f"the loss reaches head, token and LoRA: {norms}"
assert norms["heads.temporal"] == norms["tokens.rows.output"] == 0, "and nothing that the box does not depend on"

# %% [markdown]
# ### Exercise 3: cut it
#
# Make `cut`: the task embeddings, number for number, but no gradient goes back through them. *You should spend up to 3 minutes on this.*

# %% tags=["exercise"]
cut = ...  # from embeddings

# %% [markdown] tags=["hint"]
# PyTorch has a method for it; a tensor that was cut says `requires_grad` is `False`.

# %% tags=["solution"]
cut = embeddings.detach()

# %% tags=["check"]
assert cut is not ..., "exercise 3: expected a tensor, got ..."
assert torch.equal(cut, embeddings), "exercise 3: the numbers must stay what they are"
assert not cut.requires_grad, "exercise 3: a gradient still goes back through it: requires_grad is True"

# %% [markdown]
# Now ask the head again with the cut embedding. The variant `dense` has a second way into the language model: it compares $e_i$ with the model's states at the video's tokens. Cut those as well in a third try.
#
# **Predict**: with $e_i$ cut, what of LoRA's gradient is left? And of the task token's?

# %%
visual, target = forward.visuals["region"], model.targets(batch)["region"]
states = visual.frame_states
blind = visual if states is None else replace(visual, frame_states=states.detach())
answers = {"as it is": head(embeddings, visual), "e cut": head(cut, visual), "e and the states cut": head(cut, blind)}
losses = {name: combine({"region": head.losses(found, target)}, {"region": head.weights()}, {}).total for name, found in answers.items()}

# %%
gradients = pulls(losses, model.named_parts(), parts[:3])
bar_chart(
    {part: {name: gradients.norm(name, part) for name in losses} for part in parts[:3]}, "Gradient of the box loss, with cuts", unit="norm"
)

# %%
assert gradients.norm("e cut", "tokens.task.region") == 0, "the task token is reached through its embedding alone"
assert gradients.norm("e and the states cut", "llm.lora") == 0, "with both ways cut, the language model learns nothing from boxes"
assert gradients.norm("e and the states cut", "heads.region") > 0, (
    "the head still does: this is a head on a frozen model, as others have it"
)

# %% [markdown]
# ## 5. Before training
#
# *Routed* means that the model has to ask the head itself. *Teacher-forced* means that the head is asked whatever the model says.
#
# **Predict**: which of the two is higher, and can it ever be the other way round?

# %%
before = tpo.evaluate(model, val)
pd.DataFrame({how: before.scores["region"][how] for how in ("routed", "teacher_forced")}).loc[["acc@0.5", "miou"]]

# %% [markdown]
# ## 6. Train stage 2
#
# Head, task token and LoRA learn together; the vision encoder and everything else stay as they are.
#
# The stage has a **curriculum**: clips of one thing first, then of two, then of all. While there is only one thing, pointing at *anything* is right, and the head learns what a box is; when others join, only the question can tell which one is meant.
#
# **Predict**: at the start of each part the loss of the boxes jumps. Up or down?

# %%
stage = recipe.for_heads(tuple(model.heads)).stage("2.region")[0]
plan = freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())
pd.DataFrame(plan["parts"]).T

# %%
kept = {n: p.detach().clone() for n, p in model.named_parts().items() if n.startswith(("vision.", "heads.temporal."))}
recipe = recipe.replace(**{"2.region.steps": steps}) if steps else recipe
run = tpo.fit(
    model,
    train,
    recipe,
    open_run(out) / "2.region",
    stage="2.region",
    resume=True,
    options=tpo.TrainingOptions(seed=seed, feature_cache=str(folder / "features")),
    listener=progress_line(),
)

# %%
loss_chart(run.metrics())

# %%
named = model.named_parts()
assert all(torch.equal(named[n], value) for n, value in kept.items()), "the vision encoder and the other head are bit for bit the same"

# %% [markdown]
# ## 7. After training
#
# As in Figure 4 of the paper: green is the ground truth, orange the model. The last frame is the one that is asked about; a white box in the first is what the user pointed at.

# %%
after = tpo.evaluate(model, val)
pd.DataFrame({how: after.scores["region"][how] for how in ("routed", "teacher_forced")}).loc[["acc@0.5", "miou"]]

# %%
asked = {s.id: s for s in val}
shown = [record for record in after.records if record.forced.get("region")][:12:4]
for record in shown:
    print(record.question, "->", record.text)
    display(box_picture(asked[record.id], record.forced["region"]))

# %% [markdown]
# Where does the embedding point? The share of attention that each patch of each frame gets, for the first question above.
#
# **Predict**: how many patches are lit, and in which frame?

# %%
first = model.collate([Frames(model.backbone).row([asked[shown[0].id]])]).to(device)
logits = getattr(model(first).predictions["region"], "patch_logits", None)  # of the variant "dense"
if logits is not None:
    shares = logits[0].flatten().softmax(0).reshape(logits.shape[1:]).detach()
    display(pointing_picture(asked[shown[0].id], shares.cpu().numpy()))

# %%
gain = after.scores["region"]["teacher_forced"]["miou"] - before.scores["region"]["teacher_forced"]["miou"]
print(f"mean IoU, route given: {gain:+.3f}")
assert fast or steps or gain > 0, f"the whole stage improves the boxes, got {gain:+.3f}"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores, "gradient_norms": norms}
emit(out, notebook="20_region_head", stages=["2.region"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | | reads | writes | learns in stage 2 |
# |---|---|---|---|
# | task token $v_i$ | nothing | a vector, always the same | yes |
# | language model | video, question, $v_i$ | task embedding $e_i$ | its LoRA |
# | region head | $e_i$, and the patches it points at | a box in $[0, 1]$ | yes |
#
# Which thing is meant must pass through one vector, so the loss teaches the language model to put it there.
#
# **Exercises**
#
# 1. Set the rate of LoRA to almost nothing with `recipe.replace(**{"2.region.learning_rates.llm.lora.*": 1e-9})` and train again. How far does the head come alone? What does that say about $e_i$?
# 2. Build the model with `tpo.build(heads=[{"name": "region", "head": "mlp"}, "temporal"], recipe=recipe)`, the published head, and train again. Is the right thing found less often, or is its box less exact? Which picture above tells you?
#
# Next: [21_temporal_head](21_temporal_head.ipynb), with `checkpoint` set to this run's `run/2.region/checkpoint`.
