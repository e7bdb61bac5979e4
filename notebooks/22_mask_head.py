# %% [markdown]
# # Stage 2: the mask head
#
# *What* does it cover, and *where* does it go? A box says little about a ring, and nothing about the frame after it. SAM2 knows how to outline and follow anything, once somebody points. Who points here is the language model: the mask head turns the task embedding into the tokens that SAM2's prompt encoder would have made of a box.
#
# You will see what goes into SAM2, take its memory away piece by piece while it follows a thing that hides, look at which frame it is prompted on, and follow a loss on the last frame back to the words.
#
# **Question**: how does one vector outline a thing in eight frames, and what has SAM2's memory to do with it?
#
# **Time and hardware**: about five minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [21_temporal_head](21_temporal_head.ipynb), whose checkpoint this one takes. You should know what the IoU of two masks is.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # from 21_temporal_head; "" starts from the shipped backbone
out: str = "../runs/22_mask_head"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
from collections import Counter

import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab.lessons.memory import VARIANTS, as_answer, finite_means, follow_box, hidden_for_a_while, looked_at, mask_ious, shown_masks

# %%
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.report import loss_chart, mask_picture, pointing_picture
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.curves import curve_chart
from tpo_lab.sam2 import Tracker

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps, eval_samples = (steps or 3, min(eval_samples, 10)) if fast else (steps, eval_samples)
device

# %%
train = tpo.read(folder / "train.jsonl")
val = [s for s in tpo.read(folder / "val.jsonl") if s.meta["task"] == "mask"][:eval_samples]
val.sort(key=lambda s: s.targets.mask is None)  # last those that ask to follow what is pointed at
len(val), val[0].conversation[0].text, val[-1].conversation[0].text

# %%
recipe = tpo.recipe(recipe_name)
model = (tpo.load(checkpoint) if checkpoint else tpo.build(recipe=recipe)).to(device)
model.add_lora(recipe.lora)
model.eval()
head = model.head("mask")
assert head.variant == "sam2-pointing", f"this notebook takes the mask head that points apart, not the {head.variant} head"

# %% [markdown]
# ## 1. SAM2, and who prompts it
#
# SAM2 has four parts. An **image encoder** looks at each frame, once, whoever is asked for. A **prompt encoder** makes tokens of points and boxes. A **mask decoder** makes a mask of a frame and of tokens. And a **memory** of what was outlined before lets it outline the same thing in frames that nobody prompts.
#
# TPO leaves all of it as it is and replaces the user: the *mask adapter* makes the tokens from the task embedding. In the nano recipe the embedding points at a patch, as that of the region head does, and the box around it is encoded; the published adapter, a perceptron of two layers, is added to that and starts at zero.
#
# **Predict**: into how many tokens does SAM2 turn a box?

# %%
batch = model.collate([Frames(model.backbone).row([s]) for s in val[:2]]).to(device)
forward = model(batch)
prediction = forward.predictions["mask"]
logits, there, quality = prediction.dense()
shapes = {"tokens": prediction.proposal.tokens.shape, "masks": logits.shape, "object scores": there.shape}
{name: list(shape) for name, shape in shapes.items()}

# %%
box = torch.tensor([[8.0, 8.0, 24.0, 30.0]], device=device)
assert head.tracker.prompt_boxes(box).sparse.shape[1] == prediction.proposal.tokens.shape[1] == 3, "two corners, and one for no more points"
sizes = {part: sum(p.numel() for p in getattr(head, part).parameters()) for part in ("sam", "adapter")}
pd.Series(sizes, name="parameters").to_frame()

# %% [markdown]
# ## 2. The memory
#
# In a frame that nobody prompts, SAM2 has no tokens to go by. It looks at its *memory bank* instead: the features and masks of the prompted frame and of the most recent ones, seven in all, and the *object pointers*, one vector for each of up to sixteen frames (SAM2, [arXiv 2408.00714](https://arxiv.org/abs/2408.00714)).
#
# ### Exercise 1: what is in the bank?
#
# A clip of sixteen frames, numbered from 0. Frame 2 was prompted, and the thing was followed forward from there. SAM2 comes to frame 12. Which frames' features does it look at? Write their numbers as a list, in order.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
remembered = ...  # a list of whole numbers

# %% [markdown] tags=["hint"]
# The bank holds seven frames. One place is kept for the prompted frame, however long ago it was.

# %% tags=["solution"]
remembered = [2, 6, 7, 8, 9, 10, 11]

# %% tags=["check"]
true = looked_at(head.tracker, 12, prompted=2)
assert remembered is not ..., "exercise 1: expected a list of whole numbers, got ..."
assert 2 in remembered, "exercise 1: the prompted frame is never forgotten"
assert sorted(remembered) == true, (
    f"exercise 1: {len(true)} frames are looked at, you wrote {sorted(remembered)}; how many recent ones have a place?"
)

# %% [markdown]
# ## 3. Break it: forget
#
# Take things that hide behind others for a while and come out again. SAM2 gets the true box in the first frame, so that no language model is in the way, and follows.

# %%
outlined = [s for s in val if s.targets.mask is not None]
hidden = hidden_for_a_while(outlined, 3 if fast else 5) or outlined[:1]
rows = [Frames(model.backbone).row([s]) for s in hidden]
targets = [model.targets(model.collate([row]).to(device))["mask"] for row in rows]
shown = shown_masks(follow_box(head.tracker, rows[0].frames.to(device), targets[0].boxes_xyxy[0, 0]), targets[0].masks.shape[-2:])

# %% [markdown]
# ### Exercise 2: how good is the track?
#
# `shown` are SAM2's masks of the first of these things, `truth` the true ones, both `True` and `False`, `[frame, y, x]`. Compute the IoU of each frame, a list of numbers.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
truth = targets[0].masks[0] > 0.5
iou = ...  # a list with one number for each frame

# %% [markdown] tags=["hint"]
# `&` and `|` work on whole tensors, and `.sum((1, 2))` counts the pixels of each frame. Where the thing is not to be seen at all, the number does not count.

# %% tags=["solution"]
truth = targets[0].masks[0] > 0.5
iou = ((shown & truth).sum((1, 2)) / (shown | truth).sum((1, 2)).clamp(min=1)).tolist()

# %% tags=["check"]
assert iou is not ..., "exercise 2: expected a list of numbers, got ..."
true = mask_ious(shown, truth)
assert len(iou) == len(true), f"exercise 2: expected one number for each of the {len(true)} frames, got {len(iou)}"
wrong = [n for n, (yours, right) in enumerate(zip(iou, true, strict=True)) if right == right and abs(float(yours) - right) > 1e-4]
assert not wrong, f"exercise 2: frame {wrong[0]} has an IoU of {true[wrong[0]]:.3f}, you have {float(iou[wrong[0]]):.3f}"

# %% [markdown]
# Now the same with parts of the memory taken away: without object pointers; without recent frames, so that only the prompted frame's features are left, and the pointers; and without any memory, with the first frame's box drawn in every frame anew.
#
# **Predict**: order the four curves, from best to worst, at the frame in which the things are hidden, and in the last one.

# %%
clips = list(zip(rows, targets, strict=True))
tracks = {
    name: [shown_masks(follow_box(head.tracker, row.frames.to(device), t.boxes_xyxy[0, 0], kept), t.masks.shape[-2:]) for row, t in clips]
    for name, kept in VARIANTS.items()
}
truths = [t.masks[0] > 0.5 for t in targets]
ious = {name: finite_means([mask_ious(*pair) for pair in zip(found, truths, strict=True)]) for name, found in tracks.items()}

# %%
curves = {name: (list(range(len(means))), means) for name, means in ious.items()}
curve_chart(curves, f"IoU of the mask, mean of {len(hidden)} things that hide", x_label="frame", high=1.0)

# %%
print(hidden[0].conversation[0].text, "| whole memory, then without any")
display(mask_picture(hidden[0], as_answer(tracks["all of it"][0], rows[0].clip)))
display(mask_picture(hidden[0], as_answer(tracks["no memory"][0], rows[0].clip)))

# %%
memory_iou = {name: sum(means) / len(means) for name, means in ious.items()}
assert fast or len(hidden) < 5 or memory_iou["all of it"] > memory_iou["no memory"] + 0.05, f"SAM2 follows with its memory: {memory_iou}"
memory_iou

# %% [markdown]
# A box that stays where it was outlines whatever comes by. The prompted frame shows how the thing looked, the recent ones where it was a moment ago, and the pointers which thing it is. Over 24 such things of a larger split the mean IoU was 0.74 with all of it, 0.71 without pointers, 0.67 without recent frames and 0.44 without memory; with the few of this notebook the two in the middle may change places.
#
# ## 4. Which frame?
#
# The published head prompts the first frame. Whatever is not to be seen there is lost: no later frame ever hears of the question. Here the task embedding points at a patch of *any* frame. The three frames in which it points most decidedly are candidates, and SAM2 itself says on which of them the mask looks best. From there it follows the thing forward and backward in time.
#
# **Predict**: before any training of this head, where does the embedding point?

# %%
clips = batch.slots["mask"].clips
print("prompted at", [clip.times_sec[int(frame)] for clip, frame in zip(clips, prediction.condition, strict=True)], "s")
shares = prediction.pointing[0].flatten().softmax(0).reshape(prediction.pointing.shape[1:]).detach()
pointing_picture(val[0], shares.cpu().numpy())

# %%
pairs = [pair for step in prediction.steps for pair in zip(step.slot.tolist(), step.frame.tolist(), strict=True)]
assert sorted(pairs) == [(slot, frame) for slot in range(len(there)) for frame in range(there.shape[1])], "each frame of each clip, once"

# %% [markdown]
# ## 5. A loss on the last frame
#
# In the published training SAM2 never runs: the tokens are compared with those of the true box, and nothing is learned from any other frame. Here the masks themselves are compared, in every frame. So the loss must go back through SAM2's memory.
#
# **Predict**: prompt the first frame, take the loss of the last one *alone*, and look at the gradient of the tokens. Is it larger or smaller than that of the first frame's loss?

# %%
tracker = Tracker(head.sam, soft=True)
frames = batch.rows[0].frames.to(device)
seen = tracker.encode(frames)
target = model.targets(batch)["mask"]
tokens = head.tracker.prompt_boxes(target.boxes_xyxy[:1, 0] * tracker.image_size).sparse.detach().requires_grad_()
bank = tracker.bank(len(frames))
masks = {0: tracker.start(0, seen.rows(slice(0, 1)), tracker.prompt_tokens(tokens), bank)}
masks |= dict(tracker.track(((n, seen.rows(slice(n, n + 1))) for n in range(1, len(frames))), bank))
norms = {n: torch.autograd.grad(m.logits.sigmoid().mean(), tokens, retain_graph=True)[0].norm().item() for n, m in masks.items()}
bar_chart({f"frame {n}": norm for n, norm in norms.items()}, "Gradient of the prompt, by the frame of the loss", unit="norm")

# %%
assert all(norm > 0 for norm in norms.values()), "every frame teaches the prompt"

# %% [markdown]
# SAM2 replaces a mask by nothing where its object score says that the thing is gone, and then no gradient would pass. In training that gate is open; whether the thing is there is a term of its own.

# %%
values = {name: term.mean().item() for name, term in head.losses(prediction, target).items() if len(term)}
weights = head.weights()
table = pd.DataFrame({"value": values, "weight": {name: weights[name] for name in values}})
table.assign(share=table.value * table.weight)

# %% [markdown]
# ## 6. Before and after training
#
# J is the IoU of a mask, F how well its contour lies on the true one; J&F is their mean. AO is the mean IoU of the boxes around the masks where the thing was pointed at, and only to be followed.
#
# **Predict**: LoRA, the adapter and the task token learn; SAM2 does not. Which of J and F gains more?

# %%
before = tpo.evaluate(model, val)
recipe = recipe.replace(**{"2.mask.steps": steps}) if steps else recipe
kept = {n: p.detach().clone() for n, p in model.named_parts().items() if n.startswith(("heads.region.", "heads.mask.sam."))}
run = tpo.fit(
    model,
    train,
    recipe,
    open_run(out) / "2.mask",
    stage="2.mask",
    resume=True,
    options=tpo.TrainingOptions(seed=seed, feature_cache=str(folder / "features")),
    listener=progress_line(),
)

# %%
loss_chart(run.metrics())

# %%
named = model.named_parts()
assert all(torch.equal(named[n], value) for n, value in kept.items()), "SAM2 and the region head are bit for bit the same"

# %%
after = tpo.evaluate(model, val)
found = {"before": before.scores, "after": after.scores}
ways = [(when, how) for when in found for how in ("routed", "teacher_forced")]
table = pd.DataFrame({(when, how): {**found[when]["mask"][how], **found[when].get("track", {}).get(how, {})} for when, how in ways})
table.reindex(["j", "f", "j&f", "ao", "sr@0.5", "sr@0.75"])

# %% [markdown]
# ## 7. Masks over the frames
#
# The outline, or the box of what was only to be followed, is the truth, in green; the veil is the model's mask. What the user pointed at, with a box, a point or a scribble, is white. The language model sees a drawing twice: as a token where the question mentions it, and beside the task token.

# %%
asked = {s.id: s for s in val}
shown = [record for record in after.records if record.forced.get("mask")]
for record in [*shown[:8:4], *shown[-5::4]]:
    print(record.question, "->", record.text)
    display(mask_picture(asked[record.id], record.forced["mask"]))

# %% [markdown]
# Which frames does it prompt now? The published head would have a single bar, at the first.

# %%
times = [round(record.forced["mask"]["prompted_sec"][0], 2) for record in shown]
bar_chart({f"{sec} s": count for sec, count in sorted(Counter(times).items())}, "Frames that are prompted", unit="questions")

# %%
gain = after.scores["mask"]["teacher_forced"]["j&f"] - before.scores["mask"]["teacher_forced"]["j&f"]
print(f"J&F, route given: {gain:+.3f}")
assert fast or steps or gain > 0, f"the whole stage improves the masks, got {gain:+.3f}"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores, "gradient_norms": norms, "memory_iou": memory_iou}
emit(out, notebook="22_mask_head", stages=["2.mask"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | part | sees | gives | learns in stage 2 |
# |---|---|---|---|
# | image encoder | a frame | features, once for all that is asked | no |
# | mask adapter | the task embedding, and the patch it points at | three prompt tokens | yes |
# | mask decoder | features, tokens | masks, what their IoU may be, whether the thing is there | no |
# | memory | the last six frames and the prompted one, and pointers | features that know what to look for | no |
#
# **Exercises**
#
# 1. Train with `tpo.recipe(recipe_name).replace(**{"switches.mask_loss": "official"})`, which compares tokens alone. What does J&F lose, and where: in the prompted frame, or in the others?
# 2. Let the mask decoder learn too: `recipe.replace(**{"2.mask.learning_rates": {**stage.learning_rates, "heads.mask.sam.mask_decoder.*": 1e-4}})` with `stage = recipe.stage("2.mask")[0]`. Does it help, and is the tracker still good at following boxes that a user draws?
#
# Next: [30_losses](30_losses.ipynb), on all terms of the objective; then [40_joint_training](40_joint_training.ipynb), with `checkpoint` set to this run's `run/2.mask/checkpoint`.
