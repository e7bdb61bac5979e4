# %% [markdown]
# # Stage 1: tokens and routing
#
# Before a head can answer, the model must notice that it is asked. Stage 1 teaches it one thing: **to write the route token of the task**.
#
# You will see where route and task tokens stand among the words, which of them are learned, and why nothing that comes after a task token ever sees it. You break that rule and
# watch what follows. Then you train stage 1 and compare the confusion matrices.
#
# **Question**: how does a language model say which head it wants, without hearing the head's own token?
#
# **Time and hardware**: about three minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [00_tour](00_tour.ipynb). You should know what cross-entropy and an attention mask are.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # "" starts from the shipped backbone
out: str = "../runs/10_tokens_and_routing"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
from collections import Counter
from dataclasses import replace

import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab import freeze

# %%
from tpo_lab.conversation import Kind
from tpo_lab.lessons.side_branch import apart, states_under, states_without_slots
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.record_scores import score
from tpo_lab.report import confusion_chart, loss_chart
from tpo_lab.report.curves import curve_chart
from tpo_lab.report.grids import grid_chart

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps, eval_samples = (steps or 6, min(eval_samples, 24)) if fast else (steps, eval_samples)
device

# %%
train, val = tpo.read(folder / "train.jsonl"), tpo.read(folder / "val.jsonl")[:eval_samples]
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
Counter(sample.meta["task"] for sample in val)

# %% [markdown]
# ## 1. Where the tokens stand
#
# Take one question that asks for a place. Its answer is written in markers, one `<region>` for each box.
#
# **Predict**: how many tokens does a marker become?

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

# %% [markdown]
# ### Exercise 1: which tokens does the model learn to write?
#
# `encoded.kinds` says of every token of the conversation what it is: `Kind.CONTEXT`, `Kind.TEXT` (a word of the answer), `Kind.ROUTE` or `Kind.SLOT`.
# Write `learned`, a list with `True` or `False` for each token: does the loss look at it? The slot is the one to think about: who puts it there?
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
learned = ...  # a list as long as encoded.kinds

# %% [markdown] tags=["hint"]
# Nobody has to *write* the slot: it is put behind its route, in training and in inference alike. A list comprehension over `encoded.kinds` with `kind in (...)` is enough.

# %% tags=["solution"]
learned = [kind in (Kind.TEXT, Kind.ROUTE) for kind in encoded.kinds]

# %% tags=["check"]
frames = Frames(model.backbone)
batch = model.collate([frames.row([sample])]).to(device)
assert learned is not ..., "exercise 1: expected a list of True and False, got ..."
assert len(learned) == len(encoded.ids), f"exercise 1: expected one value for each of the {len(encoded.ids)} tokens, got {len(learned)}"
chosen = [token for token, yes in zip(words, learned, strict=True) if yes]
true = model.backbone.tokenizer.convert_ids_to_tokens(batch.target.tolist())
assert chosen == true, f"exercise 1: the library learns {true}, you chose {chosen}"

# %% [markdown]
# The library's own list, with the tokens that count for $\mathcal{L}_{assign}$:

# %%
pd.DataFrame({"learned": true, "as a route": batch.is_route.tolist()})

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
# ### Exercise 2: write the mask
#
# `mask[query, key]` is `True` where the query may look at the key. Build it yourself from three tensors: `causal`, `itself` and `is_slot` (which tokens are slots).
# The batch has one question and no padding. *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
count = len(mask)
causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
itself = torch.eye(count, dtype=torch.bool, device=device)
is_slot = batch.is_slot[0]
mine = ...  # bool [query, key]

# %% [markdown] tags=["hint"]
# `is_slot` has one axis. As a row, `is_slot[None, :]`, it speaks of keys; as a column, `is_slot[:, None]`, of queries. `&`, `|` and `~` are *and*, *or* and *not*.

# %% tags=["solution"]
count = len(mask)
causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
itself = torch.eye(count, dtype=torch.bool, device=device)
is_slot = batch.is_slot[0]
mine = causal & ~is_slot[None, :] | itself

# %% tags=["check"]
assert mine is not ..., "exercise 2: expected a tensor of True and False, got ..."
assert mine.shape == mask.shape, f"exercise 2: expected {list(mask.shape)}, got {list(mine.shape)}"
differs = [tuple(place) for place in (mine != mask).nonzero().tolist()]
assert not differs, (
    f"exercise 2: {len(differs)} cells differ from the library's mask, the first at (query, key) = {differs[0]}; the slot is {slot}"
)

# %% [markdown]
# ## 4. Break it: hide nothing
#
# Now let every later token look at the slot, as plain causal attention would. The last tokens of both masks; a blue cell is one that may be looked at.
#
# **Predict**: which cells are added?

# %%
last = slice(slot - 4, len(mask))
tokens = model.backbone.tokenizer.convert_ids_to_tokens(batch.ids[0, last].tolist())
grid_chart(mask[last, last].tolist(), "Hidden", rows=tokens, columns=tokens, row_title="query", column_title="key", digits=None)

# %%
grid_chart(causal[last, last].tolist(), "Open", rows=tokens, columns=tokens, row_title="query", column_title="key", digits=None)

# %% [markdown]
# Does it matter? In inference the later words have never seen the slot. So take the slot out of the row altogether and compute the states of all other tokens: that is the truth. How far are the states of training from it, with either mask?
#
# **Predict**: for which tokens is the distance zero with the open mask too?

# %%
truth = states_without_slots(model, batch)
hidden = apart(states_under(model, batch, batch.attention_mask())[0], truth)
opened = apart(states_under(model, batch, causal[None, None])[0], truth)

# %%
places = list(range(slot - 4, len(mask)))
curves = {"slot hidden": (places, hidden[last].tolist()), "slot open": (places, opened[last].tolist())}
curve_chart(curves, "Distance of training's states from those of inference", x_label=f"token (the slot is {slot})")

# %%
later = torch.arange(len(mask), device=device) > slot
assert hidden.nan_to_num().max() < 1e-3, "with the slot hidden, training and inference see the same"
assert (opened[later].nan_to_num() > 10 * hidden[later].nan_to_num()).any(), (
    "with the slot open, later words are not what inference will see"
)

# %% [markdown]
# A word after the slot would be learned with something in sight that is never there when the model answers. It need not look dramatic in the loss of training, which is why it is a good fault to know.
#
# ## 5. Before training
#
# **Predict**: how often does the untrained model write the right route? Remember that plain questions need *none*.

# %%
before = tpo.evaluate(model, val)
routing = before.scores["routing"]
confusion_chart(routing["labels"], routing["confusion"], "Before stage 1")

# %% [markdown]
# ### Exercise 3: the lazy model
#
# A model that never writes a route is right wherever none is due. `record.expected` of each of `before.records` holds the routes that are due, as a tuple of names.
# What is the route accuracy of that model? *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
lazy = ...  # a share from 0 to 1

# %% [markdown] tags=["hint"]
# An empty tuple is `False`. Count the records where nothing is expected.

# %% tags=["solution"]
lazy = sum(not record.expected for record in before.records) / len(before.records)

# %% tags=["check"]
silent = [replace(record, emitted=()) for record in before.records]
true = score(silent, tuple(model.heads))["routing"]["accuracy"]
assert lazy is not ..., "exercise 3: expected a share from 0 to 1, got ..."
assert abs(lazy - true) < 1e-6, f"exercise 3: scored like any other model, the silent one reaches {true:.3f}, you say {lazy}"

# %%
print(f"right routes {routing['accuracy']:.1%}; a model that never routes gets {lazy:.1%}")

# %% [markdown]
# ## 6. Train stage 1
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
# ## 7. After training
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
assert fast or steps or chance.after > 100 * chance.before, "the whole stage makes due routes far likelier"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores, "never_routing": lazy}
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
# Next: [11_prompts](11_prompts.ipynb), on what a user points at; then [20_region_head](20_region_head.ipynb), with `checkpoint` set to this run's `run/1/checkpoint`.
