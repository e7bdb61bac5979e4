# %% [markdown]
# # Stage 2: the region head
#
# The model says `<region>`. Now something has to draw the box. This notebook follows one vector: the **task embedding** $e_i$, from the question to the box, and the gradient on its way back.
#
# **Time and hardware**: about six minutes on two CPU cores; a GPU is used where there is one.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs/world
checkpoint: str = ""  # from 10_tokens_and_routing; "" starts from the shipped backbone
out: str = "../runs/20_region_head"  # folder of this run: checkpoints, metrics, result.json
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
from tpo_lab.report import box_picture, loss_chart, pointing_picture

# %%
if threads:
    torch.set_num_threads(threads)
torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"
device

# %%
folder = world_data(data or "../runs/world", seed=seed)
train = tpo.read(folder / "train.jsonl")
val = [s for s in tpo.read(folder / "val.jsonl") if s.meta["task"] == "region"][:eval_samples]
len(val), val[0].conversation[0].text

# %%
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)
model.eval();

# %% [markdown]
# ## 1. One vector per question
#
# The task token $v_i$ is the same for every question. The task embedding $e_i$ is what the language model makes of it after it has read the video and the question.
#
# **Predict**: two questions about the same clip, one task token. Are the two embeddings equal?

# %%
pair = [s for s in val if s.media == val[0].media and len(s.targets.region or ()) == 1][:2]
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
# ## 2. The head
#
# As published, a perceptron of two layers: in goes $e_i$, out come four numbers. It sees neither the video nor the words; what it does not find in $e_i$, it cannot know.
#
# The nano recipe takes the variant `dense`, which needs less of $e_i$: the embedding **points** at one patch of one frame, and the perceptron reads there how the box lies around that patch. *Which* thing is meant still comes through $e_i$ alone.

# %%
model.head("region")

# %%
forward.predictions["region"].boxes_xyxy

# %%
assert forward.predictions["region"].boxes_xyxy.shape == (len(embeddings), 4), "one box per task embedding"

# %% [markdown]
# ## 3. The gradient's way back
#
# This is the point of TPO: the head's loss does not stop at the head.
#
# **Predict**: backpropagate the box loss alone. Which of these get a gradient: the head, the task token, the temporal head, LoRA in the language model, the words' output rows?

# %%
report = model.losses(batch, forward)
model.zero_grad()
report.per_head()["region"].backward()
reached = {n: p.grad.norm().item() for n, p in model.named_parts().items() if p.grad is not None}

# %%
parts = ("heads.region", "tokens.task.region", "llm.lora", "heads.temporal", "tokens.task.temporal", "tokens.rows.output")
norms = {part: sum(v**2 for n, v in reached.items() if n.startswith(part)) ** 0.5 for part in parts}
pd.Series(norms, name="gradient norm").to_frame()

# %%
assert min(norms["heads.region"], norms["tokens.task.region"], norms["llm.lora"]) > 0, f"the loss reaches head, token and LoRA: {norms}"
assert norms["heads.temporal"] == norms["tokens.rows.output"] == 0, "and nothing that the box does not depend on"

# %% [markdown]
# ## 4. Before training
#
# *Routed* means that the model has to ask the head itself. *Teacher-forced* means that the head is asked whatever the model says.
#
# **Predict**: which of the two is higher, and can it ever be the other way round?

# %%
before = tpo.evaluate(model, val)
pd.DataFrame({how: before.scores["region"][how] for how in ("routed", "teacher_forced")}).loc[["acc@0.5", "miou"]]

# %% [markdown]
# ## 5. Train stage 2
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
# ## 6. After training
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
assert steps or gain > 0, f"the whole stage improves the boxes, got {gain:+.3f}"

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
