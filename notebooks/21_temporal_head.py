# %% [markdown]
# # Stage 2: the temporal head
#
# *When* does it happen? A moment has a start, an end, and every second around it matters more or less. CG-DETR answers both: windows with scores (*moment retrieval*) and a score for each frame (*highlights*).
#
# You will take the head apart: what goes in, how it keeps apart frames that the question speaks of from all others, how it proposes windows, and what it learns from. Each part is shown with its tensor. After training you switch the parts off, one by one, and watch what breaks.
#
# **Question**: what does each part of CG-DETR ([arXiv 2311.08835](https://arxiv.org/abs/2311.08835)) do for the answer?
#
# **Time and hardware**: about five minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [20_region_head](20_region_head.ipynb), whose checkpoint this one takes. You should know what attention does, and what a softmax is.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # from 20_region_head; "" starts from the shipped backbone
out: str = "../runs/21_temporal_head"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab.heads.cg_detr.glance import likeliest_windows
from tpo_lab.lessons.moments import agreements, proposals, without_dummies
from tpo_lab.media import Frames

# %%
from tpo_lab.metrics.temporal import moment_ious
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.report import loss_chart, window_picture
from tpo_lab.report.curves import curve_chart
from tpo_lab.report.grids import grid_chart
from tpo_lab.report.spans import Span, span_chart
from tpo_lab.spans import cw_to_sec, sec_to_cw, span_giou

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps, eval_samples = (steps or 6, min(eval_samples, 16)) if fast else (steps, eval_samples)
device

# %%
train = tpo.read(folder / "train.jsonl")
val = [s for s in tpo.read(folder / "val.jsonl") if s.meta["task"] == "temporal"][:eval_samples]
timed = [s for s in val if s.targets.temporal]  # the others ask for what does not happen
len(val), len(timed), timed[0].conversation[0].text, timed[0].targets.temporal.windows_sec

# %%
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)
model.eval()
head = model.head("temporal")
assert head.variant == "cg-detr-pointing", f"this notebook takes CG-DETR that points apart, not the {head.variant} head"

# %% [markdown]
# ## 1. What goes in
#
# Three things meet. The **frames**: one vector each, the mean of the vision tower's patches *where the task embedding points*, so that it shows the thing that is asked about and not the whole scene; with the frame's two ends as shares of the clip, and a few numbers that say how that thing changes and moves. The **text**: the language model's states at the words of the question. And behind the last word, as one more token, the **task embedding**.
#
# **Predict**: a question of seven tokens and a clip of eight frames. How long are the two sequences that the head sees?

# %%
one = next(s for s in timed if len(s.targets.temporal.windows_sec) == 1)
other = next(s for s in timed if s.media != one.media)
batch = model.collate([Frames(model.backbone).row([s]) for s in (one, other)]).to(device)
forward = model(batch)
prediction = forward.predictions["temporal"]

# %%
scene = prediction.scene
shapes = {"frames": scene.frames.shape, "text": scene.text.shape, "dummies": scene.dummies.shape}
pd.DataFrame(shapes, index=["slot", "token", "width"]).T

# %%
words = forward.visuals["temporal"].query_valid.sum(-1)
assert torch.equal(scene.text_valid.sum(-1), words + 1), "the words of each question, and the task embedding behind them"
assert scene.frames.shape[1] == len(batch.slots["temporal"].clips[0].times_sec), "one token for each frame"

# %% [markdown]
# ### Exercise 1: which frames belong to the moment?
#
# A frame stands for its *cell*, a part of the clip. `cells` holds their starts and ends in seconds, `window` the true moment. Write `inside`, a list with `True` or `False` for each frame:
# it belongs to the moment if at least half of its cell lies in the window. *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
cells = prediction.cells_sec[0].tolist()
window = one.targets.temporal.windows_sec[0]
inside = ...  # a list of True and False

# %% [markdown] tags=["hint"]
# Two stretches of time share `min(ends) - max(starts)` seconds; below zero they do not touch.

# %% tags=["solution"]
cells = prediction.cells_sec[0].tolist()
window = one.targets.temporal.windows_sec[0]
inside = [min(end, window[1]) - max(begin, window[0]) >= (end - begin) / 2 for begin, end in cells]

# %% tags=["check"]
target = model.targets(batch)["temporal"]
truth = target.inside(prediction.cells_sec, prediction.frame_valid)
assert inside is not ..., "exercise 1: expected a list of True and False, got ..."
assert len(inside) == len(cells), f"exercise 1: expected one value for each of the {len(cells)} frames, got {len(inside)}"
assert list(inside) == truth[0].tolist(), f"exercise 1: the window is {window}; expected {truth[0].tolist()}, got {list(inside)}"

# %% [markdown]
# Each frame also gets a first guess, by the thing's changes alone, whether it belongs to the moment: the *glance*. It has a loss of its own, and the decoder's proposals start from the likeliest windows by it: of all windows from the start of one frame to the end of another, those whose frames' logits have the largest sum, near doubles left out.
#
# **Predict**: before any training, is the best of these windows short or long, and why?

# %%
ends = prediction.cells_sec / prediction.duration_sec[:, None, None]
guess = likeliest_windows(prediction.glance_logits, ends, prediction.frame_valid, head.settings.queries, head.settings.nms_iou)
pd.DataFrame(guess[0].tolist(), columns=["centre", "width"]).round(2)

# %%
quarters = torch.linspace(0, 1, 5).unfold(0, 2, 1)[None]  # four frames with their ends
surest = likeliest_windows(torch.tensor([[-3.0, 2, 2, -1]]), quarters, torch.ones(1, 4).bool(), count=1, nms_iou=0.7)
assert surest.tolist() == [[[0.5, 0.5]]], "the second and third frame: half of the clip, around its middle"

# %% [markdown]
# ## 2. Dummies take what the text does not speak of
#
# Every frame looks at the text. A softmax makes it look *somewhere*, even where the question has nothing to do with it. So *dummy tokens*, made from the question, stand beside the words: a frame outside the moment is to look at them. What share of a frame's attention goes to real words is then a first guess of the moment.
#
# The tensor is `prediction.attention`: a row for each frame, a column for each dummy (d0, d1, ...), each token of the question, and the task embedding. The first column of the text is the question's first token.
#
# **Predict**: no dummy has been trained yet. Do frames inside the moment look at the words more than others?

# %%
begin, end = batch.slots["temporal"].question[0].tolist()
words = model.backbone.tokenizer.convert_ids_to_tokens(batch.ids[batch.slots["temporal"].row[0], begin:end].tolist())
keys = [f"d{n}" for n in range(head.settings.dummies)] + words + ["task embedding"]
names = [f"{sec:.2f} s{' *' if yes else ''}" for sec, yes in zip(prediction.times_sec[0].tolist(), inside, strict=True)]

# %%
shares = prediction.attention[0, :, : len(keys)].tolist()
grid_chart(shares, "Attention before training", rows=names, columns=keys, row_title="* inside", column_title="key", digits=None)

# %%
columns = prediction.attention.shape[-1]
assert columns == head.settings.dummies + scene.text.shape[1], "a column for each dummy and each token of the text"
total = prediction.attention[0].sum(-1)
assert torch.allclose(total, torch.ones_like(total), atol=1e-5), "each frame shares out exactly one"

# %% [markdown]
# ## 3. Sentence and moment
#
# What should go into a dummy, and what into a word? CG-DETR sums up the words in one *sentence token*, and the dummies in another; the frames inside the moment in one *moment token*, and those outside in another. In training the inside is to agree with the words, the outside with the dummies. The tensor holds their cosines, `[slot, 2, 2]`; these tokens exist for the loss alone, no answer needs them.
#
# **Predict**: what should the diagonal be after training, and what the rest?

# %%
before_cosines = agreements(head.network, scene, truth)[0].tolist()
grid_chart(before_cosines, "Cosines before training", rows=["inside", "outside"], columns=["words", "dummies"])

# %% [markdown]
# ## 4. Saliency
#
# One more token stands in front of the frames: the mean of the clip, moved by the *prototype* that fits it best. Its product with each frame is the frame's saliency. The prototypes are learned, and the same for all clips: `[prototype, width]`.

# %%
print(list(head.network.saliency.prototypes.shape), list(prediction.saliency_logits.shape))
curves = {"before training": (prediction.times_sec[0].tolist(), prediction.saliency_logits[0].tolist())}
curve_chart(curves, "Saliency, as logits; shaded: the true moment", x_label="seconds", spans=[Span(*window)])

# %% [markdown]
# ## 5. Proposals
#
# The decoder starts from the glance's windows and refines them layer by layer, each time looking at the frames. Every proposal is a centre and a width, both as shares of the clip, with the probability that something is there. That probability starts from how well the proposal's window agrees with the glance: while matching hands the true window now to one proposal and now to another, none of them learns to tell a good window from a bad one, and the first guess knows better.
#
# A bar for each proposal, the darker the likelier. The decoder's last map starts at zero, so before training the layers leave the windows as they are.

# %%
duration = prediction.duration_sec[0].item()
probability = prediction.class_logits[:, 0].softmax(-1)[..., 0]
layers = {f"layer {n}": proposals(*pair, duration) for n, pair in enumerate(zip(prediction.spans_cw[:, 0], probability, strict=True), 1)}
bars = {"start": proposals(prediction.first_cw[0], None, duration), **layers}
span_chart(bars, "Proposals before training; shaded: the true moment", duration_sec=duration, truth=[Span(*window)])

# %% [markdown]
# ## 6. What it learns from
#
# *One* proposal answers for each true window: the cheapest by position, overlap and probability together (Hungarian matching). All others are to say "nothing". Where the window lies is learned by more of them: by the one that answers, and by each that starts near it, with an IoU of 0.3 or more; otherwise refinement would only ever be taught to one, and would draw good starts away.
#
# **Predict**: there is one true window and five proposals. Which of them learn to move, and which learn to be silent?

# %%
found = head.match(prediction, target)
columns = ("layer", "slot", "query", "window")
pd.DataFrame({name: getattr(found, name).tolist() for name in columns})

# %%
true = int(target.window_valid.sum())
assert len(found.query) == true * head.settings.decoder_layers, "each layer has one proposal for each true window"

# %% [markdown]
# ### Exercise 2: who answers for the window?
#
# Compute the matching's cost for the five proposals of the last layer and the one true window of the first sample. It is the sum of three terms, each with its weight:
# `weight_span` times $|c - c^*| + |w - w^*|$, minus `weight_giou` times the generalised IoU, minus `weight_label` times the probability. *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
spans, chances, weight = prediction.spans_cw[-1, 0], probability[-1], head.settings
wanted = sec_to_cw(torch.tensor([window], device=device), duration)
overlap = span_giou(cw_to_sec(spans, 1.0), cw_to_sec(wanted, 1.0))
cost = ...  # a tensor with a number for each proposal

# %% [markdown] tags=["hint"]
# `spans` and `wanted` are (centre, width), with axes `[proposal, 2]` and `[1, 2]`. The first term is the sum of the absolute differences over the last axis.

# %% tags=["solution"]
spans, chances, weight = prediction.spans_cw[-1, 0], probability[-1], head.settings
wanted = sec_to_cw(torch.tensor([window], device=device), duration)
overlap = span_giou(cw_to_sec(spans, 1.0), cw_to_sec(wanted, 1.0))
cost = weight.weight_span * (spans - wanted).abs().sum(-1) - weight.weight_giou * overlap - weight.weight_label * chances

# %% tags=["check"]
distance = torch.cdist(spans, wanted, p=1)[:, 0]
answering = found.query[(found.layer == head.settings.decoder_layers - 1) & (found.slot == 0)].item()
true = distance * weight.weight_span - overlap * weight.weight_giou - chances * weight.weight_label
assert cost is not ..., "exercise 2: expected a tensor with a number for each proposal, got ..."
assert cost.shape == true.shape, f"exercise 2: expected {list(true.shape)}, got {list(cost.shape)}"
assert torch.allclose(cost, true, atol=1e-4), f"exercise 2: expected {true.tolist()}, got {cost.tolist()}"
assert int(cost.argmin()) == answering, (
    f"exercise 2: the library lets proposal {answering} answer, the cheapest of yours is {int(cost.argmin())}"
)

# %% [markdown]
# Beside the windows there are terms for the glance, for the saliency (frames of the moment above the others, and all of them low for a *question of another clip*), for the attention (dummies outside, words inside), and for the alignment of the moment with the sentence. Each is a named value with a named weight.

# %%
values = {name: term.mean().item() for name, term in head.losses(prediction, target).items() if len(term)}
weights = head.weights()
table = pd.DataFrame({"value": values, "weight": {name: weights[name] for name in values}})
table.assign(share=table.value * table.weight).sort_values("share", ascending=False).head(8)

# %%
alone = model.collate([Frames(model.backbone).row([one])]).to(device)
lonely = head.losses(model(alone).predictions["temporal"], model.targets(alone)["temporal"])
assert len(lonely["saliency_negative"]) == 0, "a single clip has no question of another clip: that term has no value"

# %% [markdown]
# ## 7. Before and after training
#
# R1@0.5 is the share of questions whose *first* window overlaps a true one with an IoU of 0.5 or more. HIT@1 is the share whose highest frame is a highlight.
#
# ### Exercise 3: the whole clip
#
# What R1@0.5 does a head get that always says "from the first second to the last"? Compute it over `timed`; a sample's windows are in `s.targets.temporal.windows_sec`, its clip lasts `s.media.duration_sec`.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
constant = ...  # a share from 0 to 1

# %% [markdown] tags=["hint"]
# A window inside the clip has an IoU with the whole clip of its own length over the clip's. Of several true windows the best one counts.

# %% tags=["solution"]
lengths = [max(end - start for start, end in s.targets.temporal.windows_sec) / s.media.duration_sec for s in timed]
constant = sum(length >= 0.5 for length in lengths) / len(lengths)

# %% tags=["check"]
ious = moment_ious([[[0.0, s.media.duration_sec]] for s in timed], [s.targets.temporal.windows_sec for s in timed])
true = float((ious >= 0.5).mean())
assert constant is not ..., "exercise 3: expected a share from 0 to 1, got ..."
assert abs(constant - true) < 1e-6, f"exercise 3: scored like any other head, it reaches {true:.3f}, you say {constant}"

# %%
before = tpo.evaluate(model, val)
print(f"always the whole clip: R1@0.5 {constant:.1%}")

# %% [markdown]
# Stage 2 for this head. The region head must come out of it untouched.

# %%
recipe = recipe.replace(**{"2.temporal.steps": steps}) if steps else recipe
region = {n: p.detach().clone() for n, p in model.named_parts().items() if n.startswith("heads.region.")}
run = tpo.fit(
    model,
    train,
    recipe,
    open_run(out) / "2.temporal",
    stage="2.temporal",
    resume=True,
    options=tpo.TrainingOptions(seed=seed, feature_cache=str(folder / "features")),
    listener=progress_line(),
)

# %%
loss_chart(run.metrics())

# %%
named = model.named_parts()
assert all(torch.equal(named[n], value) for n, value in region.items()), "the region head is not touched by this stage"
terms = {"span", "giou", "label", "saliency_margin", "glance"}
assert {f"temporal/{term}" for term in terms} <= set(run.metrics()[-1]), "all parts are learned"

# %%
after = tpo.evaluate(model, val)
names = ["r1@0.3", "r1@0.5", "r1@0.7", "miou", "map", "hl_hit@1", "hl_map"]
scores = {"before": before.scores["temporal"], "after": after.scores["temporal"]}
pd.DataFrame({(when, how): found[how] for when, found in scores.items() for how in ("routed", "teacher_forced")}).loc[names]

# %% [markdown]
# ## 8. Predictions over the frames
#
# As in Figure 7 of the paper: the true window is green, the model's first window and its saliency orange.

# %%
known = {s.id: s for s in timed}
answered = [record for record in after.records if record.id in known]
for record in answered[:12:4]:
    print(record.question, "->", record.text)
    display(window_picture(known[record.id], record.forced["temporal"]))

# %%
gain = after.scores["temporal"]["teacher_forced"]["miou"] - before.scores["temporal"]["teacher_forced"]["miou"]
print(f"mean IoU, route given: {gain:+.3f}")
assert fast or steps or gain > 0, f"the whole stage improves the windows, got {gain:+.3f}"

# %% [markdown]
# ## 9. Break it, part by part
#
# The same sample once more, with the head as it is now. First the **dummies**. Without them the softmax has only words to go to.
#
# **Predict**: what share of each frame's attention goes to words then, and what is left of it as a guess of the moment?

# %%
model.eval()
with torch.no_grad():
    prediction = model(batch).predictions["temporal"]
scene, seconds, network = prediction.scene, prediction.times_sec[0].tolist(), head.network
readings = {"with dummies": network.read(scene), "without": without_dummies(network, scene)}
assert readings["without"].attention.shape[-1] == scene.text.shape[1], "no column of a dummy is left"

# %%
words = scene.text.shape[1]
shares = {name: reading.attention[0, :, -words:].sum(-1) for name, reading in readings.items()}
curves = {name: (seconds, share.tolist()) for name, share in shares.items()}
curve_chart(curves, "Share of attention that goes to words", x_label="seconds", spans=[Span(*window)])

# %%
assert torch.allclose(shares["without"], torch.ones_like(shares["without"]), atol=1e-5), (
    "without dummies all of it goes to words, in every frame"
)
share = head.diagnostics(prediction, target)
share

# %% [markdown]
# Second, the **question**: ask about this clip what the other sample asks about another one. In training, the term `saliency_negative` wants the network's scores low then; the glance has no such term.
#
# **Predict**: which curve is lower, and is it lower everywhere?

# %%
strange = one.model_copy(update={"conversation": other.conversation})
with torch.no_grad():
    asked = model(model.collate([Frames(model.backbone).row([strange])]).to(device)).predictions["temporal"]
logits = {"its own question": prediction.saliency_logits, "question of another clip": asked.saliency_logits}
logits["without dummies"] = readings["without"].saliency_logits + prediction.glance_logits
curves = {name: (seconds, found[0].tolist()) for name, found in logits.items()}
curve_chart(curves, "Saliency, as logits; shaded: the true moment", x_label="seconds", spans=[Span(*window)])

# %% [markdown]
# Do not be surprised if the wrong question scores as high as the right one: the shape of the curve is mostly the glance's, and two hundred steps of this term do not teach a small head to refuse. R1 never asks for that; only questions about what does not happen do.
#
# Third, the **start**. Without the glance's windows the decoder starts every proposal in the same place, the middle of the clip.
#
# **Predict**: how many different windows are left?

# %%
with torch.no_grad():
    spans, labels = network.decoder(readings["with dummies"].memory, scene.frame_position, scene.frame_valid)
ends = {"from the glance": (prediction.spans_cw, prediction.class_logits), "from the middle": (spans, labels)}
bars = {name: proposals(cw[-1, 0], logits[-1, 0].softmax(-1)[:, 0], duration) for name, (cw, logits) in ends.items()}
span_chart(bars, "Proposals of the last layer; shaded: the true moment", duration_sec=duration, truth=[Span(*window)])

# %%
apart = (spans[-1, 0] - prediction.spans_cw[-1, 0]).abs().max().item()
assert apart > 0.01, f"where a proposal starts decides where it ends, got windows that differ by {apart:.3f} of the clip at most"

# %% [markdown]
# Last, the cosines of section 3 again.

# %%
cosines = agreements(network, scene, truth)[0].tolist()
grid_chart(cosines, "Cosines after training", rows=["inside", "outside"], columns=["words", "dummies"])

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores, "whole_clip": constant, "text_share": share}
emit(out, notebook="21_temporal_head", stages=["2.temporal"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | part | sees | gives |
# |---|---|---|
# | pointing | patches, the states of the video's tokens, the task embedding | each frame as the thing that is asked about, and how it changes |
# | dummy tokens | the question | a place for the attention of frames that the question does not speak of |
# | adaptive cross-attention | frames, words, dummies | frames that know how much they belong to the question |
# | sentence and moment tokens | words, dummies, frames inside and outside | only a loss: what words and dummies are to stand for |
# | saliency token | frames, and prototypes that it is mixed from | a score for every frame: the highlights |
# | decoder | frames | windows, refined layer by layer, each with a probability |
# | matching | proposals and true windows | who learns to move, and who to be silent |
#
# **Exercises**
#
# 1. Build the simple head of the paper's Table 11 with `tpo.recipe(recipe_name).replace(**{"switches.temporal_head": "simple"})` and train it as long. It never sees a frame: what does it lose at IoU 0.5, what at 0.7, and why is the gap not the same?
# 2. Stage 2 of the temporal head also moved LoRA. Evaluate the *region* questions with the checkpoint that you started from and with the new one. What did the region head lose, and which stage is there to repair it?
#
# Next: [22_mask_head](22_mask_head.ipynb), with `checkpoint` set to this run's `run/2.temporal/checkpoint`.
