# %% [markdown]
# # Stage 1: tokens and routing
#
# Before a head can answer, the model must notice that it is asked. Stage 1 teaches it one thing: **to write the route token of the task**.
#
# You will see where route and task tokens stand among the words, which of them are learned, and why nothing that comes after a task token ever sees it. Then you train stage 1 and
# watch the confusion matrix change.
#
# **Time and hardware**: about two minutes on two CPU cores; a GPU is used where there is one.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs/world
checkpoint: str = ""  # "" starts from the shipped backbone
out: str = "../runs/10_tokens_and_routing"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch

# %%
from collections import Counter

import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab import freeze

# %%
from tpo_lab.demo import world_data
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line
from tpo_lab.report import confusion_chart, loss_chart

# %%
if threads:
    torch.set_num_threads(threads)
torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"
device

# %%
folder = world_data(data or "../runs/world", seed=seed)
train, val = tpo.read(folder / "train.jsonl"), tpo.read(folder / "val.jsonl")[:eval_samples]
Counter(sample.meta["task"] for sample in val)

# %%
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
recipe

# %% [markdown]
# ## 1. Where the tokens stand
#
# Take one question that asks for a place. Its answer is written `<region>`, one marker.
#
# **Predict**: how many tokens does the marker become?

# %%
sample = next(s for s in val if s.targets.region)
turns = [(turn.role, turn.text) for turn in sample.conversation]
encoded = model.encoder.encode(turns)

# %%
words = model.backbone.tokenizer.convert_ids_to_tokens(encoded.ids)
pd.DataFrame({"token": words, "id": encoded.ids, "is": [kind.name for kind in encoded.kinds]}).tail(8)

# %% [markdown]
# Two: the **route** token, which the model must write, and the **slot**, where the task token $v_i$ is put. Everything before the answer is context.

# %%
ids = model.tokens.ids
kinds = [kind.name for kind in encoded.kinds]
assert kinds.count("ROUTE") == kinds.count("SLOT") == len(sample.targets.region), "one route and one slot for each box"
assert encoded.ids[kinds.index("ROUTE") + 1] == ids.slot["region"], "the slot stands right behind its route"

# %% [markdown]
# ## 2. Which tokens are learned
#
# The loss looks at the tokens of the answer only. The objective (Eq. 1 of the paper) is
#
# $$\mathcal{L} = \mathcal{L}_{mlm} + \mathcal{L}_{assign} + \sum_i \mathcal{L}_{task_i}$$
#
# $\mathcal{L}_{assign}$ is the cross-entropy at the route tokens, $\mathcal{L}_{mlm}$ at all other words of the answer.
#
# **Predict**: is the slot among the learned tokens?

# %%
frames = Frames(model.backbone)
batch = model.collate([frames.row([sample])])
learned = model.backbone.tokenizer.convert_ids_to_tokens(batch.target)
pd.DataFrame({"learned": learned, "as a route": batch.is_route.tolist()})

# %%
assert ids.slot["region"] not in batch.target.tolist(), "the slot is masked out: nobody has to write it"
assert batch.is_route.sum() == kinds.count("ROUTE"), "every route token is learned as a route"

# %% [markdown]
# ## 3. The slot is a side branch
#
# The task token reads the whole conversation before it. But no later word may look at it: when the model answers by itself, the slot is read on a copy of the cache, so training must hide it in the same way.
#
# **Predict**: in the attention mask, what stands in the slot's *column* (who looks at it), and what in its *row* (whom it looks at)?

# %%
slot = int(batch.slots["region"].token[0])
mask = batch.attention_mask()[0, 0]
{"who looks at the slot": mask[:, slot].sum().item(), "whom the slot looks at": mask[slot].sum().item(), "its place": slot}

# %%
assert mask[:, slot].nonzero().flatten().tolist() == [slot], "only the slot itself looks at the slot"
assert mask[slot, : slot + 1].all(), "the slot looks at everything before it"

# %% [markdown]
# ## 4. Before training
#
# **Predict**: how often does the untrained model write the right route? Remember that plain questions need *none*.

# %%
before = tpo.evaluate(model, val)
routing = before.scores["routing"]
confusion_chart(routing["labels"], routing["confusion"], "Before stage 1")

# %%
plain = sum(not record.expected for record in before.records) / len(before.records)
print(f"right routes {routing['accuracy']:.1%}; a model that never routes gets {plain:.1%}")

# %% [markdown]
# ## 5. Train stage 1
#
# The language model stays as it is. What learns are LoRA adapters in it, and the rows of the new tokens.

# %%
model.add_lora(recipe.lora)
stage = recipe.for_heads(tuple(model.heads)).stage("1")[0]
plan = freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())
pd.DataFrame(plan["parts"]).T

# %%
kept = {name: value.clone() for name, value in model.heads.state_dict().items()}
recipe = recipe.replace(**{"1.steps": steps}) if steps else recipe
run = tpo.fit(
    model,
    train,
    recipe,
    open_run(out) / "1",
    stage="1",
    resume=True,
    options=tpo.TrainingOptions(seed=seed, feature_cache=str(folder / "features")),
    listener=progress_line(),
)

# %%
loss_chart(run.metrics())

# %%
same = all(torch.equal(value, kept[name]) for name, value in model.heads.state_dict().items())
assert same, "stage 1 leaves the heads alone"
assert all("assign" in line for line in run.metrics()), "every step has learned routes"

# %% [markdown]
# ## 6. After training
#
# The matrix counts what the model writes, its likeliest first word. Forty steps make a due route about a hundred thousand times likelier, and that may or may not be enough to be first: whatever the matrix shows, the next stages learn routes too and go on from here. Stage 1 hears no plain questions. Trained longer by itself, it would route those as well; stage 3 is there to tell them apart.
#
# **Predict**: which cells of the matrix have emptied?

# %%
after = tpo.evaluate(model, val)
routing = after.scores["routing"]
confusion_chart(routing["labels"], routing["confusion"], "After stage 1")

# %%
due = {"before": before.records, "after": after.records}
chance = {when: [r.route_probability[r.expected[0]] for r in found if r.expected] for when, found in due.items()}
chance = pd.DataFrame(chance).mean()
print(f"right routes {routing['accuracy']:.1%}, {routing['accuracy'] - before.scores['routing']['accuracy']:+.1%}")
print(f"a due route is the first word with probability {chance.before:.1e} before, {chance.after:.1e} after")
assert steps or chance.after > 100 * chance.before, "the whole stage makes due routes far likelier"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores}
emit(out, notebook="10_tokens_and_routing", stages=["1"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | token | who puts it there | learned by | seen by later words |
# |---|---|---|---|
# | route | the language model writes it | $\mathcal{L}_{assign}$ | yes |
# | slot (task token $v_i$) | put behind the route | its head's loss (stage 2) | no |
# | words | the language model writes them | $\mathcal{L}_{mlm}$ | yes |
#
# The model has begun to say which head it wants. The head itself still answers nonsense.
#
# **Exercises**
#
# 1. Train again with `recipe.replace(**{"switches.train_rows": "none"})`: the new tokens then keep the same output row. What happens to `assign`, and why can no number of steps help?
# 2. Look at the questions of `after.records` that got the wrong route. What do they share? Write a template that would help, and say where it belongs.
#
# Next: [20_region_head](20_region_head.ipynb), with `checkpoint` set to this run's `run/1/checkpoint`.
