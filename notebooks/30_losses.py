# %% [markdown]
# # Losses: Equation 1 term by term
#
# TPO trains a language model and its heads together, on one sum (Equation 1 of [the paper](https://arxiv.org/abs/2412.19326)):
#
# $$L = L_{mlm} + L_{assign} + \sum_i w_i \, L_{task_i}$$
#
# It fits on a line, and every symbol of it hides something: a mean over how many values, a loss with a dozen terms, a weight that decides who is heard. In this notebook you take one batch with a question of every task and follow each term, from the numbers it compares to the gradient it sends.
#
# **Question**: what exactly is added up, and what does a weight $w_i$ change?
#
# **Time and hardware**: about four minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [00_tour](00_tour.ipynb) and one of the notebooks about heads, such as [20_region_head](20_region_head.ipynb). You should know what cross-entropy and a gradient are.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # a trained checkpoint, or nano-tpo; "" takes the base with untrained heads
out: str = "../runs/30_losses"  # folder of this run: result.json
seed: int = 0  # of the data, the untrained heads and what they draw at random
recipe_name: str = "nano"  # whose heads, LoRA and weights are taken: a preset, or a .json or .toml file
steps: int = 25  # of each of the short trainings in section 7
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs
heavy: float = 1000.0  # the weight that is far too large, in section 7

# %%
import math

import pandas as pd
import torch

# %%
import tpo_lab as tpo
from tpo_lab.boxes import box_giou, box_iou
from tpo_lab.losses import BoxGIoU, BoxL1, dice_values, mask_bce_values, reduce_mean

# %%
from tpo_lab.lessons.losses import by_family, curves, few_steps, samples_of_each, terms_of
from tpo_lab.lessons.prompts import batch_of
from tpo_lab.lessons.pulls import pulls
from tpo_lab.notebooks import emit, start, world
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.curves import Curves, curve_charts
from tpo_lab.report.probing import gradient_chart

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
train = tpo.read(folder / "train.jsonl")
recipe = tpo.recipe(recipe_name)

# %%
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device).eval()
model.add_lora(model.lora or recipe.lora)
heads = tuple(model.heads)
heads

# %% [markdown]
# ## 1. One batch, all tasks
#
# Two questions of each task, each about a clip of its own, and two that are answered in words.

# %%
samples = samples_of_each(train, ("conversation", *heads), count=2)
batch = batch_of(model, samples)
[(sample.meta["task"], sample.conversation[0].text, sample.conversation[-1].text) for sample in samples]

# %% [markdown]
# **Predict**: the model learns to write the answers. Of all the tokens that it learns, how many are routes?

# %%
torch.manual_seed(seed)
forward = model(batch)
report = model.losses(batch, forward)
f"{len(batch.target)} learned tokens, {int(batch.is_route.sum())} of them routes"

# %%
parts = {owner: value.item() for owner, value in report.per_head().items()}
assert abs(sum(parts.values()) - report.total.item()) < 1e-3, "the total is the sum of its parts, and nothing else"
bar_chart(parts, "What each part adds to L")

# %% [markdown]
# ## 2. The words: $L_{mlm}$ and $L_{assign}$
#
# Both are cross-entropies of the next token, $-\log p(\text{token})$. $L_{mlm}$ is the mean over words; $L_{assign}$ is the mean over the places where a **route** is due, and over these alone.
#
# ### Exercise 1: cross-entropy at the route
#
# `forward.logits` holds a row of logits for each learned token, `batch.target` the token that is due there, `batch.is_route` whether it is a route. Compute $L_{assign}$ by hand into `assign`. Use `log_softmax` and indexing, not a loss function.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
logits, due = forward.logits[batch.is_route], batch.target[batch.is_route]
assign = ...  # one number

# %% [markdown] tags=["hint"]
# $\log p$ of all tokens is `logits.log_softmax(-1)`: [route, vocabulary]. You need one number of each row.

# %% [markdown] tags=["hint"]
# `log_p[torch.arange(len(due)), due]` picks them. Then the mean, and the sign.

# %% tags=["solution"]
logits, due = forward.logits[batch.is_route], batch.target[batch.is_route]
assign = -logits.log_softmax(-1)[torch.arange(len(due)), due].mean()

# %% tags=["check"]
assert assign is not ..., "exercise 1: expected a number, got ..."
by_hand, wanted = torch.as_tensor(assign).detach().item(), report.terms["assign"].item()
assert by_hand > 0, f"exercise 1: expected a positive number, since log p is negative, got {by_hand:.3f}"
assert abs(by_hand - wanted) < 1e-3, f"exercise 1: expected {wanted:.4f}, the mean of -log p over {len(due)} routes, got {by_hand:.4f}"

# %% [markdown]
# Why two terms? The released code has none for routes: they are words like others there. Put them back and look.
#
# **Predict**: $L_{assign}$ is left out of the sum and routes count as words. Does a route now weigh more or less than before?

# %%
inside = model.losses(batch, forward, {"mlm": 1.0})
words, routes = int((~batch.is_route).sum()), int(batch.is_route.sum())
print(f"apart: a route weighs 1/{routes}, a word 1/{words}; together: each weighs 1/{words + routes}")
inside.terms["mlm"].item(), math.log(forward.logits.shape[-1])

# %%
together = (words * report.terms["mlm"] + routes * report.terms["assign"]) / (words + routes)
assert abs(inside.terms["mlm"].item() - together.item()) < 1e-3, "the one mean is the two means, weighed by their counts"

# %% [markdown]
# The last number is $\log |V|$, what a model that knows nothing would pay for a token. A base that was never shown a route pays far more than that: it is sure that something else comes.
#
# ## 3. The region head: L1 and GIoU
#
# The paper names the mean squared error, the released code $2\,\text{L1} + 0.2\,(1 - \text{GIoU})$. GIoU ([arXiv 1902.09630](https://arxiv.org/abs/1902.09630), algorithm 1) is the IoU less the share of the hull that neither box covers:
#
# $$\text{GIoU} = \text{IoU} - \frac{|H| - |A \cup B|}{|H|}$$
#
# ### Exercise 2: GIoU by hand
#
# $A$ spans from $(0, 0)$ to $(2, 2)$, $B$ from $(1, 1)$ to $(3, 3)$. Put the areas together on paper, and write GIoU as a fraction into `giou`.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])
giou = ...  # such as 2 / 3 - 1 / 4

# %% [markdown] tags=["hint"]
# The two share one unit square. The union is $4 + 4 - 1$. The hull, the smallest box around both, is $3 \times 3$.

# %% tags=["solution"]
a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])
giou = 1 / 7 - (9 - 7) / 9

# %% tags=["check"]
assert giou is not ..., "exercise 2: expected a number, got ..."
assert abs(giou - box_iou(a, b).item()) > 1e-3, "exercise 2: that is the IoU; the empty part of the hull is still to be taken off"
assert abs(giou - box_giou(a, b).item()) < 1e-4, f"exercise 2: expected {box_giou(a, b).item():.4f}, got {giou:.4f}"

# %% [markdown]
# **Predict**: slide one box to the right, off the other. Which of 1 - IoU, 1 - GIoU and L1 still has a slope when they no longer touch?

# %%
still, shift = torch.tensor([0.1, 0.4, 0.3, 0.6]).expand(29, 4), torch.linspace(0, 0.56, 29)
slid = still + shift[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
lines = {"1 - IoU": 1 - box_iou(slid, still), "1 - GIoU": BoxGIoU()(slid, still), "L1": BoxL1()(slid, still)}
drawn = {name: (shift.tolist(), values.tolist()) for name, values in lines.items()}
curve_charts([Curves("A box that slides off another", drawn, "shift, in shares of the frame")])

# %%
flat = {name: (values[-1] - values[-8]).item() for name, values in lines.items()}
assert flat["1 - IoU"] == 0 and flat["1 - GIoU"] > 0 and flat["L1"] > 0, f"IoU is flat where boxes do not touch, the others are not: {flat}"

# %% [markdown]
# Then the same on the batch: each term, how many values it is the mean of, and what it adds. `l1` and `giou` have one value for each box. `patches`, of the head variant that points, is a cross-entropy: does the head point at patches that the box covers?

# %%
terms = terms_of(model, batch, forward, report)
table = pd.DataFrame([term.to_dict() for term in terms]).set_index(["owner", "term"])
table.loc[["mlm", "assign", "region"]]

# %%
assert abs(table["adds"].sum() - report.total.item()) < 1e-3, "mean x weight, summed over all terms, is L"
assert (table["values"] >= 0).all() and table.loc[("assign", "assign"), "values"] == routes, "assign is the mean over the routes"

# %% [markdown]
# ## 4. The temporal head: CG-DETR's terms
#
# CG-DETR ([arXiv 2311.08835](https://arxiv.org/abs/2311.08835)) brings its own sum. TPO scales all of it by 0.05; the nano recipe trains it unscaled.
#
# | family | what is compared |
# |---|---|
# | span, giou | matched windows: centre and width by L1, and their generalised IoU |
# | label | which proposals are windows at all (10 queries, few windows) |
# | saliency | margins and ranks between frames, and words that do not belong to the clip |
# | attention | the same for the share of attention that goes to the words |
# | align | moments and sentences find each other |
# | distill, orthogonal | dummy tokens take what the words do not explain, each something else |
# | glance | only in the head variant that points: its first guess of each frame |
#
# **Predict**: which family adds most to the sum, before any training?

# %%
families = by_family([term for term in terms if term.owner == "temporal"])
bar_chart({name.removeprefix("temporal "): value for name, value in families.items()}, "What CG-DETR's families add")

# %%
assert abs(sum(families.values()) - parts["temporal"]) < 1e-3, "the families are all of the temporal head's part"
table.loc[["temporal"]].sort_values("adds", ascending=False).head(8)

# %% [markdown]
# `label` without a number is the last decoder layer's, `label_layer1` the first one's: each layer answers, and each is corrected. The counts differ: `span` has a value for each matched window, `label` one for each proposal, `glance` one for each frame.
#
# ## 5. The mask head: BCE and Dice
#
# A mask has thousands of pixels, and most are outside. Binary cross-entropy asks each pixel alike. Dice ([arXiv 1606.04797](https://arxiv.org/abs/1606.04797)) asks for the overlap, whatever the size. The library smooths it by 1, as LISA and SAM2 do:
#
# $$\text{Dice} = 1 - \frac{2 \sum p\,t + 1}{\sum p + \sum t + 1}$$
#
# ### Exercise 3: Dice by hand
#
# The true mask is the left half of a 4 x 4 picture, the predicted one its upper half, both certain (0 or 1). Write the smoothed Dice loss as a fraction into `dice`.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
true_mask, predicted = torch.zeros(4, 4), torch.zeros(4, 4)
true_mask[:, :2], predicted[:2] = 1, 1
dice = ...  # such as 1 - 3 / 4

# %% [markdown] tags=["hint"]
# $\sum p\,t$ counts the pixels that are in both; $\sum p$ and $\sum t$ are 8 each.

# %% tags=["solution"]
true_mask, predicted = torch.zeros(4, 4), torch.zeros(4, 4)
true_mask[:, :2], predicted[:2] = 1, 1
dice = 1 - (2 * 4 + 1) / (8 + 8 + 1)

# %% tags=["check"]
assert dice is not ..., "exercise 3: expected a number, got ..."
certain = 100 * (2 * predicted - 1)  # logits: very sure of 1, very sure of 0
assert abs(dice - 0.5) > 1e-3, "exercise 3: that is without the smoothing by 1, above and below the line"
assert abs(dice - dice_values(certain, true_mask).item()) < 1e-4, (
    f"exercise 3: expected {dice_values(certain, true_mask).item():.4f}, got {dice:.4f}"
)

# %% [markdown]
# **Predict**: a lazy head says *nothing there* everywhere, with 99% certainty. What does it pay by each of the two losses, as the thing gets smaller?

# %%
sides = torch.arange(2, 33, 2)
squares = torch.stack([torch.nn.functional.pad(torch.ones(n, n), (0, 64 - n, 0, 64 - n)) for n in sides.tolist()])
lazy = torch.full((len(sides), 64, 64), math.log(0.01 / 0.99))
paid = {"BCE": mask_bce_values(lazy, squares), "Dice": dice_values(lazy, squares)}
drawn = {name: (sides.tolist(), values.tolist()) for name, values in paid.items()}
curve_charts([Curves("Saying 'nothing there'", drawn, "side of the thing, of 64 pixels")])

# %%
assert paid["BCE"][0] < 0.05 * paid["Dice"][0], "of a small thing BCE hardly notices that it is missing, Dice does"
table.loc[["mask"]] if "mask" in heads else "this model has no mask head"

# %% [markdown]
# `there` is the object score: is the thing visible in this frame? `bce` and `dice` have a value for each frame in which it is, and, in the head variant that points, only where the head points at the right thing already.
# An untrained head may well point at it nowhere. Then the batch has **no value** for these terms.
#
# ## 6. A mean of nothing
#
# What is the mean of no values? Batches without a task, clips without a window and masks nobody sees make such terms every day.
#
# **Predict**: what does `torch.zeros(0).mean()` give, and what would it do to $L$?

# %%
nothing = torch.zeros(0, requires_grad=True)
torch.zeros(0).mean().item(), reduce_mean(nothing).item()

# %%
assert math.isnan(torch.zeros(0).mean().item()), "a plain mean of nothing is not a number, and so is every sum that holds it"
assert reduce_mean(nothing).item() == 0 and reduce_mean(nothing).requires_grad, "here it is 0, still in the graph, and teaches nothing"
table.loc[table["values"] == 0, ["values", "mean", "adds"]]

# %% [markdown]
# ## 7. What a weight does
#
# A weight does not change what a loss *is*, only how loudly it speaks. Where do the parts of the sum speak to? Columns are parts of $L$, rows are the parts of the model that learn; a 0 is exactly zero.
#
# **Predict**: which rows does every column reach? Which rows does one column reach alone?

# %%
owned = [f"{part}.{head}" for part in ("tokens.task", "heads") for head in heads]
trained = {name: parameter for name, parameter in model.named_parts().items() if parameter.requires_grad}
named = ("vision", "connector", "llm.base", "llm.lora", "prompts", "tokens.rows", *owned)
learning = [part for part in named if any(name.startswith(part) for name in trained)]
gradients = pulls(report.per_head(), trained, learning)
gradient_chart(gradients)

# %%
norms = {owner: {part: gradients.norm(owner, part) for part in learning} for owner in gradients.owners}
shared = [part for part in learning if all(reached[part] > 0 for reached in norms.values())]
assert "llm.lora" in shared, f"the language model's LoRA is shared by all, got {shared}"
assert norms["region"]["heads.temporal"] == norms["temporal"]["heads.region"] == 0, "a head hears its own loss only"

# %% [markdown]
# A head and its task token hear their own loss, and nothing else. All meet in LoRA, and a little in the rows of the new words, which stand before every task token. There the gradients are **added**, and there $w_i$ decides.
#
# Now break it. A copy of the model learns this one batch for a few steps, with $w_{region}$ at 1, at 0, and far too large. All parts are shown before their weights.
#
# **Predict**: with the large weight, does the region loss fall a thousand times faster? What happens to the words?

# %%
count = min(steps, 4) if fast else steps
choices = {"w = 1": 1.0, "w = 0": 0.0, f"w = {heavy:g}": heavy}
histories = {name: few_steps(model, batch, {"region": w}, steps=count, seed=seed) for name, w in choices.items()}
panels = curves(histories)
curve_charts([Curves(f"{part}, by the weight of region", lines, "step") for part, lines in panels.items()])

# %%
last = {name: {part: history[-1][part] for part in panels} for name, history in histories.items()}
drop = {name: histories[name][0]["region"] - last[name]["region"] for name in choices}
pd.DataFrame(last).rename_axis("loss after the last step")

# %%
longer = count >= 20 and not checkpoint
assert not longer or drop["w = 1"] > drop["w = 0"], f"a loss that weighs nothing is not learned on purpose, got {drop}"
words_left = {name: last[name]["mlm"] + last[name]["assign"] for name in choices}
assert not longer or words_left[f"w = {heavy:g}"] > words_left["w = 1"], f"the loud loss drowns the words, got {words_left}"

# %% [markdown]
# Two things to see. The large weight does not speed up the region head: AdamW divides each gradient by its own size, so *one* loss times 1000 gives the same steps. But in LoRA the sum of all gradients is now that of the boxes, and the others are no longer heard.
# And at 0 the region head does not move at all; what its loss does is a side effect of the others, through $e_i$.

# %%
headline = {"loss": report.total.item(), **{f"loss_{owner}": value for owner, value in parts.items()}}
emit(out, notebook="30_losses", headline=headline, gradient_norms=norms, families=families, last=last, steps=count)

# %% [markdown]
# ## Summary
#
# | part of $L$ | terms | mean over | reaches |
# |---|---|---|---|
# | $L_{mlm}$ | cross-entropy | words of the answers | LoRA, new words |
# | $L_{assign}$ | cross-entropy | routes | LoRA, new words |
# | region | L1, GIoU, pointing | boxes | its head and task token, LoRA |
# | temporal | CG-DETR's families | windows, proposals, frames | its head and task token, LoRA |
# | mask | BCE, Dice, object score, pointing | frames of each thing | its adapter and task token, LoRA |
# | $w_i$ | | | decides who is heard where all meet |
#
# **Exercises**
#
# 1. `few_steps` uses AdamW. Copy it, put `torch.optim.SGD` in its place and repeat section 7. Which of the two conclusions changes, and why?
# 2. Take a batch with eight questions about boxes and one about a moment. How much does each *question* weigh in $L$ now? Would you rather take the mean over questions or over tasks?
#
# Next: [40_joint_training](40_joint_training.ipynb).
