# %% [markdown]
# # A real MLLM on a GPU
#
# Everything so far ran on `nano`, three million parameters that fit anywhere. The paper's models have seven billion and more. **The code is the same**: `nano` is built of the real model's classes, and only numbers differ.
#
# In this notebook you take the path of a real LLaVA-OneVision from its folder to an answer, and count beforehand what it will cost. With `backbone=""` it makes a tiny random checkpoint on disk, so that nothing is downloaded; with `backbone="llava-hf/llava-onevision-qwen2-7b-ov-hf"`, or a folder that holds it, the same cells run on the real one.
#
# **Question**: what changes between a model of 3 million parameters and one of 8 billion, and which card do I need?
#
# **Time and hardware**: about four minutes on two CPU cores with the tiny checkpoint, half of it for the world where there is none yet. With the real one: a GPU, a download of 16 GB, and the memory that you are about to count.
#
# **Before**: [10_tokens_and_routing](10_tokens_and_routing.ipynb). You should know what LoRA is, and that AdamW keeps two numbers for each one that it trains.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
out: str = "../runs/70_real_model"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "paper"  # a preset such as "official", or a .json or .toml file
steps: int = 12  # of stage 1; 0 takes the number in the recipe
eval_samples: int = 80  # validation samples on which the number of frames is changed
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs
backbone: str = ""  # a folder or hub id of a LLaVA-OneVision; "" makes a tiny random one
frames: int = 16  # of a clip that the model is shown, in training and later
batch_size: int = 8  # rows of an optimizer step; the paper takes 128
micro_batch: int = 2  # rows that go through the model at once

# %%
import math
from pathlib import Path

import pandas as pd
import torch

import tpo_lab as tpo

# %%
from tpo_lab import freeze
from tpo_lab.backbones import counting
from tpo_lab.backbones.tiny import write_tiny
from tpo_lab.errors import UsageError
from tpo_lab.lessons.frames import scores_by_frames

# %%
from tpo_lab.media import Frames
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.report import loss_chart
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.curves import curve_chart
from tpo_lab.training.cost import memory

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
device

# %% [markdown]
# ## 1. What the configuration says
#
# Before a single weight is loaded, the configuration of a model tells its size. Here are three of the same class.

# %%
seven = counting.llava_onevision_7b()
local = backbone or str(write_tiny("llava_onevision", Path(out) / "tiny", seed=seed))
backbones = {"nano": tpo.build(heads=()).backbone, "this one": tpo.build(local, heads=(), num_frames=frames).backbone}
configs = {**{name: found.model.config for name, found in backbones.items()}, "7B": seven}

# %%
vision = pd.DataFrame({name: config.vision_config.to_dict() for name, config in configs.items()})
language = pd.DataFrame({name: config.text_config.to_dict() for name, config in configs.items()})
pd.concat({"vision": vision.loc[["image_size", "patch_size"]], "language": language.loc[["num_hidden_layers"]]})

# %%
sizes = ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size"]
language.loc[sizes]

# %% [markdown]
# A frame of $s \times s$ pixels in patches of $p \times p$ gives $\lfloor s/p \rfloor^2$ patches. LLaVA-OneVision pools 2 x 2 of them into one visual token; where their number is odd, the last row and column are tokens too. After the last frame of a clip comes one more token that ends it.
#
# ### Exercise 1: how long is a clip?
#
# How many visual tokens does a clip of `frames` frames take in the 7B model? Compute it from `seven.vision_config`. *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
vision_config = seven.vision_config  # has image_size and patch_size
clip_tokens = ...  # a whole number

# %% [markdown] tags=["hint"]
# `384 // 14` patches per side. Half of an odd number of them is rounded up: `math.ceil(patches / 2)`.

# %% tags=["solution"]
vision_config = seven.vision_config
patches = vision_config.image_size // vision_config.patch_size
clip_tokens = frames * math.ceil(patches / 2) ** 2 + 1

# %% tags=["check"]
expected = counting.tokens_per_clip(seven, frames)
assert clip_tokens is not ..., "exercise 1: expected a whole number, got ..."
assert clip_tokens != expected - 1, "exercise 1: nearly; one token more ends the clip"
assert clip_tokens == expected, f"exercise 1: expected {expected} ({(expected - 1) // frames} for each frame, and 1), got {clip_tokens}"

# %% [markdown]
# ## 2. Build it
#
# `tpo.build` takes a folder or a hub id where it took `"nano"`. It loads the weights as they are stored (the real ones in bfloat16), adds TPO's tokens to the tokenizer, and builds the heads at the language model's width.
#
# Three things of the recipe are changed. The paper's temporal head reads InternVideo2 features from files, which the synthetic world does not have; so it looks at the backbone's own. It is built small, because at its published size it would be thirty times larger than a tiny backbone. And the batch is small. The mask head is left out here: for it the paper takes SAM2 Large, which is `switches.mask_sam`, a folder too.

# %%
smaller = {"switches.temporal_size": "nano"} if not backbone else {}
changes = {"switches.temporal_features": "backbone", "1.batch_size": batch_size, **smaller}
recipe = tpo.recipe(recipe_name).replace(**changes)
recipe = recipe.replace(**{"1.steps": 4 if fast else steps}) if fast or steps else recipe
model = tpo.build(local, heads=("region", "temporal"), recipe=recipe, num_frames=frames).to(device)
model.backbone.name, next(model.backbone.model.parameters()).dtype

# %% [markdown]
# **Predict**: the tokenizer gets new words. Does the embedding table of the backbone grow?

# %%
before, after = len(backbones["this one"].tokenizer), len(model.backbone.tokenizer)
print(f"tokens: {before} and then {after}; rows of the output layer: {model.backbone.vocabulary}")
model.tokens.ids.route, tuple(model.tokens.rows["input"].shape)

# %%
assert model.backbone.vocabulary == configs["this one"].text_config.vocab_size, "the backbone's own vocabulary keeps its size"
assert len(model.tokens.rows["input"]) == len(model.tokens.ids.all), "every new token has a row in a table of its own"

# %% [markdown]
# ## 3. LoRA
#
# The recipe's `lora.targets` are last names of linear layers. The backbone makes a pattern of them that matches the *language model's* layers only: the vision tower has a `q_proj` too.

# %%
model.add_lora(recipe.lora)
wrapped = [name for name in model.named_parts() if ".lora_A." in name]
pd.Series([name.split(".lora_A.")[0].rpartition(".")[2] for name in wrapped]).value_counts().to_frame("layers")

# %%
assert not any(name.startswith("vision.") for name in wrapped), "the vision tower carries no LoRA"
built = sum(p.numel() for name, p in model.named_parts().items() if name.startswith("llm.lora."))
assert built == counting.lora_parameters(configs["this one"], recipe.lora), "the count from the configuration is what was built"

# %% [markdown]
# A linear layer with $n$ inputs and $m$ outputs gets $A \in \mathbb{R}^{r \times n}$ and $B \in \mathbb{R}^{m \times r}$ beside its frozen weights ([Hu et al. 2021](https://arxiv.org/abs/2106.09685), section 4.1). Here are the seven layers of one decoder layer of the 7B model, as (outputs, inputs):

# %%
shapes = counting.linear_shapes(seven.text_config)
shapes

# %% [markdown]
# ### Exercise 2: what does LoRA cost?
#
# With rank 16 on these seven layers, in all 28 decoder layers: how many parameters are that? And how many bytes of memory, if each is kept in single precision, with its gradient and AdamW's two numbers? *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
rank, layers = 16, seven.text_config.num_hidden_layers
lora_parameters = ...  # how many
lora_bytes = ...  # of parameters, gradients and AdamW's moments together

# %% [markdown] tags=["hint"]
# $A$ and $B$ together have $r\,(n + m)$ parameters. Single precision takes 4 bytes; there are four numbers for each parameter.

# %% tags=["solution"]
rank, layers = 16, seven.text_config.num_hidden_layers
lora_parameters = rank * layers * sum(outputs + inputs for outputs, inputs in shapes.values())
lora_bytes = lora_parameters * 4 * 4

# %% tags=["check"]
expected = counting.lora_parameters(seven, tpo.recipe("paper").lora)
assert lora_parameters is not ... and lora_bytes is not ..., "exercise 2: expected two numbers, got ..."
assert lora_parameters == expected, f"exercise 2: expected {expected:,} parameters, got {lora_parameters:,}"
assert lora_bytes == 16 * expected, f"exercise 2: expected 16 bytes for each of {expected:,} parameters, got {lora_bytes / expected:g}"

# %%
counts = counting.parameter_counts(seven)
print(
    f"LoRA: {lora_parameters:,} parameters, {lora_parameters / sum(counts.values()):.2%} of the model; {lora_bytes / 2**30:.2f} GiB to train"
)

# %% [markdown]
# ## 4. What trains in stage 1
#
# ### Exercise 3: the trained parts
#
# Read the recipe's stage 1. Write the set of parts that train there, each by the first piece of its name, such as `"vision"`, `"connector"`, `"llm"`, `"tokens"`, `"prompts"` or `"heads"`. *You should spend up to 5 minutes on this.*

# %%
stage = recipe.for_heads(tuple(model.heads)).stage("1")[0]
stage.title, dict(stage.losses)

# %% tags=["exercise"]
trained_parts = ...  # a set of names

# %% [markdown] tags=["hint"]
# `stage.learning_rates` maps patterns of parameter names to rates. Whatever no pattern names is frozen.

# %% tags=["solution"]
trained_parts = {pattern.partition(".")[0] for pattern in stage.learning_rates}

# %% tags=["check"]
shape = freeze.shape(freeze.FreezePlan.of(stage), model.named_parts())
expected = {name.partition(".")[0] for name, part in shape["parts"].items() if part["trained"]}
assert trained_parts is not ..., "exercise 3: expected a set of names, got ..."
assert set(trained_parts) == expected, f"exercise 3: look at the frozen and trained rows of the plan: {shape['parts']}"

# %%
print(f"{shape['trained']:,} of {shape['total']:,} parameters train")
pd.DataFrame(shape["parts"]).T

# %% [markdown]
# ## 5. Memory, counted and measured
#
# Four things fill the card: the **parameters**, in bfloat16 if they are frozen; the **gradients** and **AdamW's moments** of those that train, in single precision; and the **activations**, which the forward pass keeps for the backward pass. The first three do not depend on the data. The last grows with rows and tokens.
#
# Let us count what one decoder layer keeps for each token, and then measure it on the model of this notebook.
#
# **Predict**: at 7B, with one clip on the card, what takes most memory: parameters, what LoRA trains, or activations?

# %%
samples = tpo.read(folder / "train.jsonl")
rows = [Frames(model.backbone).row([s]) for s in samples if s.meta["task"] == "region"][:micro_batch]
batch = model.collate(rows).to(device)
found = memory.measured(model, batch, stage)

# %%
added = sum(p.numel() for name, p in model.named_parts().items() if name.startswith(("tokens.", "prompts.", "heads.")))
row_tokens, learned = batch.ids.shape[1], len(batch.target)
same = {"rows": len(rows), "tokens": row_tokens, "learned": learned, "added": added, "trained": shape["trained"], "device": device}
counted = memory.estimate(configs["this one"], recipe.lora, **same)

# %% [markdown]
# `memory.measured` runs two steps and counts the bytes of every tensor while it lives. The switch that saves most is **gradient checkpointing**: keep the input of each layer alone, and compute the rest again when the gradient needs it. A recipe has no field for it yet; `checkpoint_layers` switches on that of `transformers` in the model inside.

# %%
memory.checkpoint_layers(model)
cheaper = memory.measured(model, batch, stage)
memory.checkpoint_layers(model, on=False)
counted_cheaper = memory.estimate(configs["this one"], recipe.lora, **same, checkpointing=True)

# %%
both = {"counted": counted, "measured": found, "counted, checkpointing": counted_cheaper, "measured, checkpointing": cheaper}
bar_chart({name: parts.mib() for name, parts in both.items()}, f"A step of {len(rows)} rows on this model", unit="MiB", stacked=True)

# %% [markdown]
# The first three parts are exact. Of the activations, what is counted is what is *kept*; the backward pass needs some memory of its own for the layer that it works on. With a few layers, as here, that shows; with 28 it is a small share.

# %%
exact = [getattr(found, name) == getattr(counted, name) for name in ("parameters", "gradients", "optimizer")]
assert all(exact) or device != "cpu", "parameters, gradients and moments are counted exactly"
assert counted.activations < found.activations < 2 * counted.activations or backbone, "and activations to a factor"
assert cheaper.activations < found.activations, "checkpointing saves activations"

# %% [markdown]
# Now the same count for 7B: a row is a clip of `frames` frames with their numbers, and a hundred tokens for the words. Heads and tokens have about 25 million parameters at that width.

# %%
tokens = counting.tokens_per_clip(seven, frames) + 2 * frames + 100
ways = {"1 row": (1, False), "4 rows": (4, False), "1 row, checkpointing": (1, True), "4 rows, checkpointing": (4, True)}
real = {n: memory.estimate(seven, recipe.lora, rows=r, tokens=tokens, added=25_000_000, checkpointing=c) for n, (r, c) in ways.items()}
bar_chart({name: parts.gib() for name, parts in real.items()}, f"Stage 1 at 7B, {tokens} tokens a row", unit="GiB", stacked=True)

# %%
assert real["1 row"].optimizer < real["1 row"].parameters / 10, "LoRA's share of the memory is small"
assert real["1 row, checkpointing"].activations < real["1 row"].activations / 5, "checkpointing makes activations small"
pd.Series({name: round(parts.total / 2**30, 1) for name, parts in real.items()}, name="GiB in all").to_frame()

# %% [markdown]
# These are counts, so leave a tenth of the card for what is not counted. Then stage 1 fits a card of 24 GB with checkpointing and one row at a time; one of 80 GB takes a row without it, or many with it. `micro_batch` says how many rows go through the model at once, and gradients are added up until the batch is whole, so the *result* does not depend on the card. Stage 3 trains the vision tower too, which this count leaves out.
#
# **bfloat16** is a field of each stage, `precision`. In the paper's recipe it is `"bf16"`: matrices are multiplied in bfloat16, while LoRA, tokens and heads are kept in single precision, because steps of $2 \cdot 10^{-5}$ would vanish in its rounding.

# %%
tiny_step = torch.tensor(1.0, dtype=torch.bfloat16) + torch.tensor(2e-5, dtype=torch.bfloat16)
assert tiny_step == 1, "a step of 2e-5 on a weight of 1 is lost in bfloat16"
{stage.name: stage.precision for stage in recipe.stages}

# %% [markdown]
# ## 6. Train, save, load, ask
#
# A few steps of stage 1, as in notebook 10. With random weights nothing sensible comes of it; look at the path.

# %%
kept = {name: p.detach().clone() for name, p in model.named_parts().items() if name.startswith(("vision.", "llm.base."))}
options = tpo.TrainingOptions(seed=seed, micro_batch=micro_batch)
run = tpo.fit(model, samples, recipe, open_run(out) / "1", stage="1", resume=True, options=options, listener=progress_line())
loss_chart(run.metrics())

# %%
named = model.named_parts()
assert all(torch.equal(named[name], value) for name, value in kept.items()), "frozen weights are bit for bit the same"
asked = next(s for s in samples if s.meta["task"] == "region" and not s.prompts)
answer = model.to(device).answer(asked.media_path, asked.conversation[0].text, max_tokens=8)
answer.text, answer.boxes_xyxy

# %% [markdown]
# The checkpoint holds what was trained, and the backbone's *name*. The 16 GB of a real one are not copied for each run; they are read from where they were.
#
# **Predict**: how much larger than the checkpoint is the folder of a 7B backbone?

# %%
checkpoint_path = run.path / "checkpoint"
again = tpo.load(checkpoint_path).to(device)
twice = again.answer(asked.media_path, asked.conversation[0].text, max_tokens=8)
assert (twice.text, twice.boxes_xyxy) == (answer.text, answer.boxes_xyxy), "the loaded model gives the same answer"

# %%
saved = real["1 row"]
stored = 2 * sum(counts.values())
print(f"this checkpoint: {sum(f.stat().st_size for f in checkpoint_path.rglob('*') if f.is_file()) / 2**20:.1f} MiB")
print(f"at 7B: {stored / 2**30:.1f} GiB of backbone, {(saved.parameters - stored) / 2**30:.2f} GiB of LoRA, tokens and heads")

# %% [markdown]
# ## 7. Something to break
#
# **LoRA on names that no layer has.** Other families call their layers `query` and `value`. A pattern that matches nothing must not train nothing in silence.

# %%
other = tpo.build(local, heads=("region",), num_frames=frames)
wrong = tpo.recipe("paper").replace(**{"lora.targets": ("query", "value")}).lora
try:
    other.add_lora(wrong)
except UsageError as error:
    print(error)

# %%
try:
    freeze.apply(freeze.FreezePlan({"llm.lroa.*": 2e-5}), model.named_parts())
except UsageError as error:
    refusal = str(error)
assert "llm.lora.*" in refusal, "a pattern that matches nothing is refused, and the closest name offered"
refusal

# %% [markdown]
# **Another number of frames than in training.** Nothing refuses that: each number of frames is a valid input. The shipped model was trained with eight frames of each clip. Ask it again, with fewer and with more.
#
# **Predict**: 16 frames show *more*. Are the answers better?

# %%
shipped = tpo.load("nano-tpo").to(device)
asked_of = [sample for sample in tpo.read(folder / "val.jsonl") if sample.meta["task"] in ("region", "temporal")]
by_frames = scores_by_frames(shipped, asked_of[: 24 if fast else eval_samples], [2, 8] if fast else [2, 4, 8, 12, 16])
table = pd.DataFrame(by_frames).T[["REC Acc@0.5", "R1@0.5", "route accuracy"]]

# %%
lines = {name: (list(table.index), list(values)) for name, values in table.items()}
curve_chart(lines, "nano-tpo, trained with 8 frames", x_label="frames shown", high=1.0)

# %%
trained_with = shipped.backbone.num_frames
assert table["REC Acc@0.5"].idxmax() == trained_with or fast, f"boxes are best at the {trained_with} frames of training"
table.round(3)

# %% [markdown]
# The visual tokens of frame 5 stand where those of frame 3 stood, and "late" has another number. So the number of frames is stored in the checkpoint, and `tpo.load` restores it. Change it only before you train.
#
# ## 8. The real one
#
# On one card, this notebook with another parameter:
#
# ```bash
# papermill 70_real_model.ipynb out.ipynb -p backbone llava-hf/llava-onevision-qwen2-7b-ov-hf -p micro_batch 1
# ```
#
# On eight cards, the whole of stage 1 on the paper's data mixture, with the vision features of each clip kept on disk for the later stages:
#
# ```bash
# accelerate launch --num_processes 8 -m tpo_lab train --recipe paper --stage 1 \
#   --backbone llava-hf/llava-onevision-qwen2-7b-ov-hf --data paper --root DATA \
#   --out runs/paper --micro-batch 1 --feature-cache features
# ```
#
# `--dry-run` prints what each stage trains, and stops. `--resume` goes on after an interruption. What changes between nano and 7B are only these values:

# %%
names = ["backbone", "recipe", "frames", "side of a frame, pixels", "switches.mask_sam"]
large = ["llava-hf/llava-onevision-qwen2-7b-ov-hf", "paper", 16, seven.vision_config.image_size, "a folder with SAM2 Large"]
small = ["nano", "nano", shipped.backbone.num_frames, shipped.backbone.image_size, "nano-sam2"]
pd.DataFrame({"nano": small, "7B": large}, index=names)

# %%
headline = {f"7B GiB, {name}": parts.total / 2**30 for name, parts in real.items()}
headline["activations, measured / counted"] = found.activations / counted.activations
headline["activations, checkpointing / without"] = cheaper.activations / found.activations
checkpoint = str(checkpoint_path)
frames_table = {str(count): scores for count, scores in by_frames.items()}
emit(out, notebook="70_real_model", headline=headline, stages=["1"], checkpoint=checkpoint, by_frames=frames_table)

# %% [markdown]
# ## Summary
#
# | what | how it is found | at 7B |
# |---|---|---|
# | tokens of a clip | frames x (half the patches per side, rounded up) squared, and 1 | 3137 at 16 frames |
# | LoRA, rank 16 | $r\,(n+m)$ for each layer | 40 million parameters, 0.6 GiB to train |
# | weights | 2 bytes each, frozen | 15 GiB |
# | activations | counted by layer and token | 26 GiB a row; 1.6 GiB with checkpointing |
# | frames | the number of training, always | 16 |
#
# **Exercises**
#
# 1. Which of the counted activations come from LoRA's dropout? Set `lora.dropout` to 0 in `recipe.replace(...)`, count again, and measure. What would you lose?
# 2. Take `recipe_name="official"`: which parts train there that the paper leaves alone, and what does it do to the memory?
#
# Next: [80_reruns](80_reruns.ipynb).
