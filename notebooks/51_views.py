# %% [markdown]
# # The views: seeing what a head does
#
# A score says how good a head is. It does not say on which frame it loses the ball, which word it looks at, or who pulls it away. The views of `tpo_widgets` show that. Each draws one record, and computes nothing: what you see can be looked up in the record.
#
# **Question**: what can be seen of a model that no score tells?
#
# **Time and hardware**: about two minutes on two CPU cores; a few steps of training; a GPU is used where there is one.
#
# **Before**: [50_debugging](50_debugging.ipynb), where the record is explained.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # a trained checkpoint; "" takes the shipped nano-tpo
out: str = "../runs/51_views"  # folder of this run: result.json, pages with the views, the runs that are trained here
seed: int = 0  # of the data and of the training
eval_samples: int = 8  # validation samples that are looked at
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
import pandas as pd

import tpo_lab as tpo
from tpo_lab.notebooks import emit, open_run, start, world
from tpo_lab.probes import plant
from tpo_lab.sample import BoxPrompt
from tpo_widgets import GradientView, HeadView, PromptPad, RunsView, StageView, TokenView, together

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
model = tpo.load(checkpoint or "nano-tpo").to(device)

# %% [markdown]
# ## 1. What a head predicts
#
# One step record holds it all: some questions, what the model answered, what each loss did to each module. `words=True` also asks where in the video each word of an answer is seen.

# %%
count = 4 if fast else eval_samples
of_tasks = {(s.meta["task"], s.meta["kind"]): s for s in tpo.read(folder / "val.jsonl") if s.targets.names and s.meta["kind"] != "absent"}
asked = list(of_tasks.values())[:count]
trace = tpo.probe(model, asked, words=True)

# %% [markdown]
# Space plays, the arrow keys step, `w` jumps to the worst frame, `[` and `]` change the question. Green is true, orange is the model's.

# %%
heads = HeadView(trace)
heads

# %% [markdown]
# The scrubber and the selection are one object, the **playhead**. What you do on screen can be read in Python, and what Python sets is seen on screen.
#
# ### Exercise 1: the worst answer
#
# Show the question whose answer with the route given has the lowest IoU: set the playhead's sample to its id. *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
worst = ...  # the id of a sample
heads.playhead.sample = "" if worst is ... else worst

# %% [markdown] tags=["hint"]
# Each sample of the trace has `heads`, by name, and each of those `matches["forced"]`, one per true object, with its `iou`.

# %% tags=["solution"]
ious = {s.id: m.iou for s in trace.samples for head in s.heads.values() for m in head.matches.get("forced", ())}
worst = min(ious, key=ious.get)
heads.playhead.sample = worst

# %% tags=["check"]
assert worst is not ..., "exercise 1: expected the id of a sample, got ..."
lowest = [(m.iou, s.id) for s in trace.samples for head in s.heads.values() for m in head.matches.get("forced", ())]
assert worst in {name for iou, name in lowest if iou == min(lowest)[0]}, (
    f"exercise 1: {worst!r} has not the lowest IoU, {min(lowest)[0]:.2f}"
)
assert heads.moment.sample == worst, "exercise 1: expected the playhead at that sample"

# %% [markdown]
# ## 2. Break it, and see
#
# The same model with a fault: the region head's centre and size are read as two corners. `compare` puts two checkpoints side by side, under one scrubber.
#
# **Predict**: where on the frame will the wrong boxes be? Every one of them is shifted and stretched in the same way.

# %%
with plant(model, "swapped box convention"):
    broken = tpo.probe(model, asked, gradients=False)

# %%
HeadView(trace, compare=broken, names=("sound", "swapped"), how="forced")

# %%
assert broken.iou("region") < trace.iou("region"), "a box in the wrong convention cannot fit better"

# %% [markdown]
# ## 3. Ask with your own hand
#
# Choose a tool, draw on the frame, and press Enter in the question. The pad keeps what you drew in pixels of the original frame: `pad.prompts`.

# %%
pointed = next((s for s in asked if s.prompts), asked[0])
pad = PromptPad(pointed, model)
pad

# %% [markdown]
# Python can draw too. A box over the upper left quarter of the frame, and the same question:

# %%
width, height = trace.samples[asked.index(pointed)].size_wh
pad.prompts = [BoxPrompt(xyxy=(0, 0, width / 2, height / 2))]
pad.ask().text

# %%
assert len(pad.prompts) == 1, "what was drawn before has gone, the new box is there"
assert pad.sample().prompts == tuple(pad.prompts), "the pad gives a sample with the same box"

# %% [markdown]
# ## 4. Where a task token looks
#
# The row as the language model reads it, the probability of each route where one is due, and on the frames the attention of the slot. Words of the model's own answer have a map too: choose one.
#
# **Predict**: does the slot of the region head look at the thing that is asked for? In all layers?

# %%
together(HeadView(trace), TokenView(trace))

# %% [markdown]
# Attention says where a token looks, not what it makes of it. In a model as small as this one, it is spread widely.
#
# ## 5. Who pulls against whom
#
# Rows are modules, columns are losses, or pairs of them. Orange pulls apart. Click a conflict, and the samples behind it are listed; click one of them, and every view that shares the playhead shows it.

# %%
gradients = GradientView(trace, playhead=heads.playhead)
gradients

# %% [markdown]
# ### Exercise 2: the strongest conflict
#
# Which two losses pull against each other the most, and in which module of the language model's LoRA? Set `gradients.pair` (such as `"mlm|region"`, in the order of `trace.gradients.owners`) and `gradients.module`. *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
pair, module = ..., ...
(gradients.pair, gradients.module) = ("", "") if pair is ... else (pair, module)

# %% [markdown] tags=["hint"]
# `trace.gradients.to_dict()["modules"]` has the cosines of each module by pair; a cosine is None where one of the two does not reach it.

# %% tags=["solution"]
found = trace.gradients.to_dict()["modules"].items()
cosines = {(p, m): c for m, numbers in found if m.startswith("llm.lora") for p, c in numbers["cosines"].items() if c is not None}
pair, module = min(cosines, key=cosines.get)
(gradients.pair, gradients.module) = (pair, module)

# %% tags=["check"]
assert pair is not ... and module is not ..., "exercise 2: expected a pair and a module, got ..."
least = [
    (trace.gradients.cosine(one, other, m), f"{one}|{other}", m)
    for m in trace.gradients.modules
    for i, one in enumerate(trace.gradients.owners)
    for other in trace.gradients.owners[i + 1 :]
    if m.startswith("llm.lora") and trace.gradients.cosine(one, other, m) is not None
]
assert (pair, module) == min(least)[1:], f"exercise 2: {pair} in {module} is not the least cosine, {min(least)[0]:.2f}"
assert (gradients.pair, gradients.module) == (pair, module), "exercise 2: expected the view to show them"

# %% [markdown]
# ## 6. A recipe, and a run that follows it
#
# The snowflake is frozen, the flame is trained. The view listens while the model trains: losses, rates, memory, and alarms where a head gets no gradient or all questions take one route.

# %%
recipe = tpo.recipe("nano").replace(**{name: 2 if fast else 8 for name in ("1.steps", "2.region.steps", "3b.steps")})
stages = StageView(recipe, model)
stages

# %% [markdown]
# Two short runs, with two seeds. `probe_every` keeps the gradients as training goes on.

# %%
train = tpo.read(folder / "train.jsonl")[:240]
options = {number: tpo.TrainingOptions(seed=number, probe_every=4) for number in (seed, seed + 1)}
models = {number: tpo.build(recipe=recipe).to(device) for number in options}
folders = {number: open_run(out) / f"seed-{number}" for number in options}
runs = {n: tpo.fit(models[n], train, recipe, folders[n], stage="2.region", options=options[n], listener=stages.listener) for n in options}

# %%
GradientView(run=runs[seed].path)

# %% [markdown]
# And many runs at once: a row each, filters, parallel coordinates, learning curves. [80_reruns](80_reruns.ipynb) has a whole sweep of them.

# %%
last = {number: run.metrics()[-1] for number, run in runs.items()}
RunsView(
    pd.DataFrame(
        {"seed": list(last), "loss": [line["loss"] for line in last.values()], "memory": [line["memory_mib"] for line in last.values()]}
    )
)

# %% [markdown]
# ## 7. Take it with you
#
# Every view makes a page that works without a kernel and without a network, and a picture for where nothing moves.

# %%
page = together(heads, gradients).to_html(f"{out}/views.html")
picture = heads.to_png(f"{out}/head.png")

# %%
assert "<script src" not in page and "https://" not in page.replace("http://www.w3.org", ""), "the page asks nobody for anything"
assert picture[:4] == b"\x89PNG", "and the picture is one"

# %%
headline = {"IoU of the worst": min(lowest)[0], "least cosine": min(least)[0], "loss": last[seed]["loss"], "page, MB": len(page) / 1e6}
emit(out, notebook="51_views", headline=headline, worst=worst, pair=pair, module=module)

# %% [markdown]
# ## Summary
#
# | you want to know | view | from |
# |---|---|---|
# | what a head predicts, on which frame it fails | `HeadView` | a trace, samples with answers or records |
# | what it answers to a box of your own | `PromptPad` | a clip and a model |
# | whether it is asked, where its token looks | `TokenView` | a trace |
# | which loss moves what, who is in conflict | `GradientView` | a trace, or a run with `probe_every` |
# | what trains when, and whether it goes well | `StageView` | a recipe, a run, a run that still trains |
# | which of many runs is the best | `RunsView` | a sweep's folder, or a table |
#
# **Exercises**
#
# 1. Plant another fault of [50_debugging](50_debugging.ipynb), and find it with the views alone. Which one can't be seen in any of them?
# 2. Draw a scribble over two things at once, and ask what moves. Which of the two does the model take?
#
# Next: [60_your_own_data](60_your_own_data.ipynb)
