# %% [markdown]
# # How the nano models were made
#
# Three sets of weights ship with TPO Lab: `nano`, a language model that sees; `nano-sam2`, a tracker; and `nano-tpo`, which TPO made of the first with the help of the second. Nobody else's weights are in them: they were trained from nothing, on two CPU cores, by commands that you can run.
#
# In this notebook you check what ships against what is said of it, and take every step of its making once, shortened to a minute or less.
#
# **Question**: where does what nano knows come from, and what did each part of it cost?
#
# **Time and hardware**: about six minutes on two CPU cores; no GPU is used. The whole took about eight hours.
#
# **Before**: [00_tour](00_tour.ipynb). You should know what a cross-entropy is.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
out: str = "../runs/90_how_nano_was_made"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the weights and of the data
eval_samples: int = 64  # captions of the validation split that the base is asked to explain
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs
tower_steps: int = 100  # of the vision tower's pretraining; nano had 2,500
language_steps: int = 100  # of the pretraining on words; nano had 8,200
tracker_steps: int = 40  # of the tracker's pretraining; nano-sam2 had 9,000
stage_steps: int = 6  # of each stage of TPO; nano-tpo had up to 4,500

# %%
from collections import Counter
from dataclasses import replace

import pandas as pd

import tpo_lab as tpo

# %%
from tpo_lab import checkpoint
from tpo_lab.backbones import shipped
from tpo_lab.backbones.nano import PATCH, new_nano
from tpo_lab.datasets.world.patches import patch_batches
from tpo_lab.datasets.world.scene import sample_scene

# %%
from tpo_lab.datasets.world.words import COLOURS, HELD_OUT_LOOKS, SHAPES
from tpo_lab.lessons import provenance
from tpo_lab.notebooks import emit, open_run, progress_line, start, world

# %%
from tpo_lab.pretraining.chance import chance_levels
from tpo_lab.pretraining.language import LanguagePretraining, pretrain_language
from tpo_lab.pretraining.shuffled import ShuffledFrames
from tpo_lab.pretraining.swapped import losses_by_video
from tpo_lab.pretraining.tower import TowerPretraining, pretrain_tower
from tpo_lab.pretraining.tracker import FIRST, TrackerPretraining, pretrain_tracker
from tpo_lab.report import clip_sheet
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.curves import curve_chart
from tpo_lab.runs import read_jsonl
from tpo_lab.sam2 import nano_config, untrained

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
run = open_run(out)

# %% [markdown]
# ## 1. What ships
#
# Each folder of weights holds one file of numbers, the settings that rebuild the model, and a README that says how it was made and how good it is.

# %%
weights = {name: provenance.weights(name) for name in provenance.NAMES}
stored = {name: {part: count / 1e6 for part, count in weights[name].parts.items()} for name in ("nano", "nano-tpo")}
stored["nano-sam2"] = {"all of it": weights["nano-sam2"].parameters / 1e6}
bar_chart(stored, "Numbers stored", unit="million", stacked=True)

# %% [markdown]
# `nano-tpo` stores only what differs from `nano`: the heads, LoRA (`llm`), the tokens, and the vision side, which stage 3 trains. The tracker has parts of its own; these are the largest:

# %%
pd.Series(weights["nano-sam2"].parts, name="numbers").nlargest(6).to_frame()

# %% [markdown]
# ### Exercise 1: count from the settings
#
# `nano.json` says how large the language model is. How many parameters has it? Count one decoder layer of Qwen2 first: queries, keys, values (each a matrix and a bias), the output matrix, three matrices of the gated MLP, two norms. Then the embedding, which is the output layer too, and the last norm. *You should spend up to 15 minutes on this.*

# %%
settings = pd.read_json(shipped("nano") / "nano.json", typ="series")
settings["vocabulary"], settings["language"]

# %% tags=["exercise"]
width, inner = settings["language"]["hidden_size"], settings["language"]["intermediate_size"]
layers, words = settings["language"]["num_hidden_layers"], settings["vocabulary"]
language_parameters = ...  # of all layers, the embedding and the last norm

# %% [markdown] tags=["hint"]
# Queries, keys and values are as wide as the model here: each has $d \cdot d + d$ parameters. The output matrix has no bias, and neither have the three of the MLP, of $d \cdot f$ each. A norm has $d$.

# %% tags=["solution"]
width, inner = settings["language"]["hidden_size"], settings["language"]["intermediate_size"]
layers, words = settings["language"]["num_hidden_layers"], settings["vocabulary"]
one_layer = 3 * (width * width + width) + width * width + 3 * width * inner + 2 * width
language_parameters = layers * one_layer + words * width + width

# %% tags=["check"]
expected = weights["nano"].parts["llm"]
assert language_parameters is not ..., "exercise 1: expected a whole number, got ..."
off = language_parameters - expected
assert off == 0, (
    f"exercise 1: off by {off:+,}; one layer is {(expected - (words + 1) * width) // layers:,}, the embedding {words * width:,}"
)

# %% [markdown]
# ## 2. Where it comes from
#
# A number that nobody can trace is worth little. The README of each folder names the commands; the checksum says that the file is the one that is meant.
#
# **Predict**: will what the READMEs say of size and precision agree with the files?

# %%
made_by = {name: provenance.commands(provenance.readme(name))[0] for name in weights}
files = {name: {"made by": made_by[name], "MB": found.size / 1e6, "sha256": found.sha256[:12]} for name, found in weights.items()}
pd.DataFrame(files).T

# %%
differences = [line for name in weights for line in provenance.disagreements(name)]
assert differences == [], f"a README and its weights disagree: {differences}"
defaults = {"nano": (TowerPretraining().steps, LanguagePretraining().rounds[0].steps), "nano-sam2": (TrackerPretraining().steps,)}
assert all(f"{steps:,}" in provenance.readme(name) for name in defaults for steps in defaults[name]), (
    "the commands' settings are those told"
)

# %% [markdown]
# `nano-tpo` is a checkpoint, and checkpoints say more: the commit of the code, every stage with its steps and seed, and a fingerprint of each tensor of the model that was saved. So it can be *checked* that nothing was lost, and that the language model below LoRA is still the one of `nano`.

# %%
config = checkpoint.read_config(shipped("nano-tpo"))
config["environment"]["commit"], pd.DataFrame(config["history"])

# %%
found = checkpoint.audit(shipped("nano-tpo"))
assert found["reload_difference"] == 0, "every stored number is read back as it was written"
assert found["parts"]["llm.base"]["changed"] == 0, "below LoRA, the language model is nano's, bit for bit"
pd.DataFrame(found["parts"]).T

# %% [markdown]
# What the whole cost, as the READMEs tell it, on two CPU cores:
#
# | step | steps | time | what it gives |
# |---|---|---|---|
# | vision tower | 2,500 | 20 minutes | colour, shape, material and size can be read off each patch |
# | captions and questions | 8,200 in four rounds | 230 minutes | 90% of plain questions answered; 31% without the video |
# | tracker | 9,000 | 2 hours | masks from a box or a point, through 16 frames |
# | TPO, three stages | those of the table above | an hour and a half or more | routes, boxes, moments |
#
# ## 3. What the base never saw
#
# The world has 7 colours and 5 shapes. Some pairs are **held out**: no scene of training, validation or test shows them, so that a model that puts colour and shape together can be told from one that has learned pairs by heart.
#
# ### Exercise 2: which pairs?
#
# Draw 400 training scenes and find the pairs of colour and shape that none of their things has. *You should spend up to 10 minutes on this.*

# %%
scenes = [sample_scene(index, seed=1) for index in range(400)]
thing = scenes[0].things[0]
(thing.colour, thing.shape), len(scenes[0].things)

# %% tags=["exercise"]
every_pair = {(colour, shape) for colour in COLOURS for shape in SHAPES}
never_seen = ...  # a set of pairs (colour, shape)

# %% [markdown] tags=["hint"]
# First the set of pairs that *are* seen: go through `scene.things` of each scene. Some scenes have a cup, whose shape is not in `SHAPES`; that does no harm.

# %% tags=["solution"]
every_pair = {(colour, shape) for colour in COLOURS for shape in SHAPES}
never_seen = every_pair - {(thing.colour, thing.shape) for scene in scenes for thing in scene.things}

# %% tags=["check"]
assert never_seen is not ..., "exercise 2: expected a set of pairs, got ..."
wrong = set(never_seen) ^ HELD_OUT_LOOKS
assert not wrong, f"exercise 2: these pairs are too many or missing: {sorted(wrong)[:5]}"

# %%
shown = Counter((thing.colour, thing.shape) for scene in scenes for thing in scene.things if thing.shape in SHAPES)
pd.DataFrame([[shown[colour, shape] for shape in SHAPES] for colour in COLOURS], index=list(COLOURS), columns=list(SHAPES))

# %% [markdown]
# ## 4. The vision tower
#
# Real towers come with attributes that can be read off their patches, because SigLIP saw billions of pictures with captions. Nano's tower gets the same in a short way: from each patch, linear readouts tell colour, shape, material and size of what fills it, and draw its pixels. The readouts are thrown away afterwards. There are no boxes in this task.
#
# ### Exercise 3: chance
#
# The scores count patches that show something (a label above 0). How often is the best *constant* answer right there, for each attribute? `labels` maps attributes to labels of 64 frames, `[frame, patch]`. *You should spend up to 10 minutes on this.*

# %%
batch = next(patch_batches(64, seed=seed, patch=PATCH))
labels = batch.labels
{name: rows.shape for name, rows in labels.items()}

# %% tags=["exercise"]
chance = ...  # {"colour": share, "shape": share, "material": share, "size": share}

# %% [markdown] tags=["hint"]
# `rows[rows > 0]` are the labels that count. `Counter(...).most_common(1)` gives the commonest one and how often it occurs.

# %% tags=["solution"]
kept = {name: rows[rows > 0].tolist() for name, rows in labels.items()}
chance = {name: Counter(values).most_common(1)[0][1] / len(values) for name, values in kept.items()}

# %% tags=["check"]
expected = chance_levels(batch)
assert chance is not ..., "exercise 3: expected a share for each attribute, got ..."
off = {name: round(share, 3) for name, share in expected.items() if abs(chance.get(name, -1) - share) > 0.005}
assert not off, f"exercise 3: expected {off}; leave out the patches of nothing, before you count and when you divide"

# %% [markdown]
# **Predict**: which attribute will be learned first, and is anything above chance after the first tenth of the steps?

# %%
chosen = TowerPretraining(steps=4 if fast else tower_steps, batch_size=8 if fast else 32, held_frames=16 if fast else 128, seed=seed)
chosen = replace(chosen, checkpoint_every=2 if fast else max(1, chosen.steps // 10))
backbone = new_nano()
scores = pretrain_tower(backbone.model.model.vision_tower, chosen, patch=PATCH, out=run / "tower")

# %%
rows = read_jsonl(run / "tower" / "metrics.jsonl")
steps_logged = [row["step"] for row in rows]
curve_chart({name: (steps_logged, [row[name] for row in rows]) for name in chance}, "Attributes read off patches of new scenes", high=1.0)

# %% [markdown]
# At first every readout says *nothing*, because most patches are empty, and so it is wrong wherever something is. A share is worth only what it is above chance: sizes, of which there are two, soon reach theirs and stay there, while colours leave theirs far behind. Shape takes longest, because a patch shows only a piece of it.

# %%
gain = scores["colour"] - chance["colour"]
print(f"colour: {scores['colour']:.2f}, by chance {chance['colour']:.2f}")
assert fast or tower_steps < 100 or gain > 0, f"after {chosen.steps} steps colour is read better than by chance, got {gain:+.2f}"

# %% [markdown]
# ## 5. Words
#
# Now the whole learns to continue captions and answers, with the tower kept as it is. Clips begin with one thing, and get fuller: questions about several things do not teach which word means which thing.

# %%
whole = LanguagePretraining(seed=seed)
short = replace(whole, rounds=(replace(whole.rounds[0], steps=25 if fast else language_steps),))
short = replace(short, batch_size=1 if fast else 8, questions=3 if fast else 8)
pretrain_language(backbone, short, out=run / "language")

# %%
rows = read_jsonl(run / "language" / "metrics.jsonl")
curve_chart({"loss per token": ([row["step"] for row in rows], [row["mlm"] for row in rows])}, "Words")

# %% [markdown]
# The loss falls fast: how captions are worded is soon learned. That says nothing about seeing. A better question to a language model is: **does it look?** Show it another clip than the one that the caption is about, and see whether the caption surprises it more.
#
# **Predict**: for the base that ships, and for the one that you have just trained: is the loss higher with another's clip?

# %%
captions = [sample for sample in tpo.read(folder / "val.jsonl") if sample.meta.get("kind") == "caption"]
captions = list({sample.media.path: sample for sample in captions}.values())[: 6 if fast else eval_samples]
clip_sheet(captions[:1])

# %%
base = tpo.build(heads=()).eval()
mine = tpo.TPOModel(backbone).eval()
looks = {name: losses_by_video(model, captions) for name, model in {"nano": base, "this one": mine}.items()}
pd.DataFrame(looks).T.round(3)

# %%
gap = {name: found["another"] - found["own"] for name, found in looks.items()}
assert gap["nano"] > 0.1, f"nano explains a caption better when it sees its clip, got {gap['nano']:+.3f}"
assert gap["nano"] > gap["this one"], "and looks more than a model of a few steps"

# %% [markdown]
# ## 6. The tracker
#
# `nano-sam2` never reads a word. It gets a box or a point on the first frame, and learns to draw that thing in all frames: single frames first, then three, then eight, so that it knows what a prompt means before it has to remember it.

# %%
first = replace(FIRST, steps=3, lessons=FIRST.lessons[:2]) if fast else replace(FIRST, steps=tracker_steps)
tracking = replace(
    TrackerPretraining(rounds=(first,), seed=seed), held_clips=16, checkpoint_every=3 if fast else max(1, tracker_steps // 5)
)
sam = untrained(nano_config())
reached = pretrain_tracker(sam, tracking, out=run / "tracker")

# %%
rows = read_jsonl(run / "tracker" / "metrics.jsonl")
lines = {"box, first frame": "box/first", "box, later": "box", "point, later": "point"}
curve_chart({name: ([row["step"] for row in rows], [row[key] for row in rows]) for name, key in lines.items()}, "Mean IoU", high=1.0)

# %% [markdown]
# The shipped one reaches 0.89 on the first frame and 0.78 later, on clips with shell games. It took 9,000 steps; what you see here is the very beginning.
#
# ## 7. TPO
#
# What remains is what the notebooks 10 to 40 teach: the stages of TPO, on the shipped base. In the shipped model they had the steps of the table in section 2. The losses of two stages can't be compared, since each adds up other terms. Here each has a few, in one call; in fast mode, the first stage alone.

# %%
recipe = tpo.recipe("nano").replace(**{"all.steps": 1 if fast else stage_steps})
which = "1" if fast else "all"
model = tpo.build(recipe=recipe)
options = tpo.TrainingOptions(seed=seed)
trained = tpo.fit(
    model, tpo.read(folder / "train.jsonl"), recipe, run / "tpo", stage=which, resume=True, options=options, listener=progress_line()
)

# %%
history = [entry["stage"] for entry in model.provenance.history]
assert history == [stage.name for stage in recipe.stage(which)], f"every stage of the recipe was run, in its order, got {history}"
table = pd.DataFrame(trained.metrics())
by_stage = {f"stage {name}": (list(part.index + 1), list(part["loss"])) for name, part in table.groupby("stage", sort=False)}
curve_chart(by_stage, "Loss of each stage", x_label="step of all")

# %% [markdown]
# ## 8. Something to break
#
# How do you know that the tower learned from what it saw, and not from how often each label occurs? Train it again, with **the labels of other frames**: the same steps, the same data, the same labels, only that they do not belong to the picture.
#
# **Predict**: where will the curve of colours end: at 0, at chance, or in between?

# %%
control = ShuffledFrames(new_nano().model.model.vision_tower)
control_scores = pretrain_tower(control, chosen, patch=PATCH, out=run / "control")
right, wrong = (read_jsonl(run / name / "metrics.jsonl") for name in ("tower", "control"))

# %%
colours = {name: (steps_logged, [row["colour"] for row in rows]) for name, rows in {"right": right, "shuffled": wrong}.items()}
curve_chart(colours, "Colour of what a patch shows", levels={"best constant answer": chance["colour"]}, high=1.0)

# %% [markdown]
# It learns how common each label is, and the commonest is *nothing*. So it says nothing everywhere, which is right for most patches and counts for none. A loss that falls is no proof of learning to see; a control that falls as well shows it.

# %%
better = scores["colour"] - control_scores["colour"]
assert fast or tower_steps < 100 or better > 0.1, f"the right labels teach what the shuffled ones do not, got {better:+.3f}"
headline = {"tower colour": scores["colour"], "tower colour, shuffled": control_scores["colour"], "tracker IoU, box": reached["box"]}
headline |= {f"caption gap, {name}": value for name, value in gap.items()}
found = {"tower": scores, "control": control_scores, "tracker": reached, "captions": looks}
emit(out, notebook="90_how_nano_was_made", headline=headline, sha256={name: file.sha256 for name, file in weights.items()}, **found)

# %% [markdown]
# ## Summary
#
# | weights | learn from | never see | command |
# |---|---|---|---|
# | nano's tower | attributes of patches, pixels | words, boxes, held-out pairs | `tpo-lab pretrain nano` |
# | nano | captions and questions | boxes, masks, windows, held-out pairs | `tpo-lab pretrain nano` |
# | nano-sam2 | masks, told by boxes and points | words | `tpo-lab pretrain tracker` |
# | nano-tpo | tasks with boxes, moments and masks | held-out pairs | `tpo-lab demo --long` |
#
# **Exercises**
#
# 1. Shuffle the captions: hand `pretrain_language` a backbone whose tower is wrapped in `ShuffledFrames`, for as many steps as you have patience for. From which step on can you tell the two loss curves apart?
# 2. Train the tower with `reconstruction_weight=0.0` and compare `place` and `shape`. What were the pixels good for?
#
# This was the last notebook. To run any of them again with other values: [80_reruns](80_reruns.ipynb).
