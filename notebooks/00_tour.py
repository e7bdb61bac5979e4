# %% [markdown]
# # A tour of TPO Lab
#
# A video language model can say *what* happens. Ask it *where* or *when*, and it has only words to answer with.
# **Task Preference Optimization** (TPO, [arXiv 2412.19326](https://arxiv.org/abs/2412.19326)) gives it heads that answer with boxes and moments, and lets
# what the heads learn flow back into the language model.
#
# In this notebook you look at the small world that everything here runs on, ask the model questions, and find the three things that TPO adds to it.
#
# **Question**: what does TPO add to a language model, and where is it?
#
# **Time and hardware**: about one minute on two CPU cores; no download; a GPU is used where there is one.
#
# **Before**: nothing. You should be able to read Python; what a token and an embedding are is enough theory.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # a trained checkpoint to ask; "" takes the base with untrained heads
out: str = "../runs/00_tour"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
eval_samples: int = 40  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few samples, to see that every cell runs

# %%
from collections import Counter

import tpo_lab as tpo
from tpo_lab.notebooks import emit, start, world
from tpo_lab.report import clip_sheet, confusion_chart

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
device

# %% [markdown]
# ## 1. The world
#
# Clips of four seconds: a few shapes move, blink, stop, meet and hide behind each other. Every box, moment and answer is known exactly, because the clips are drawn from them.
# Each clip is a real mp4 file, and each *sample* is one question about one clip.

# %%
samples = tpo.read(folder / "val.jsonl")[: 12 if fast else eval_samples]
len(samples), samples[0].media_path.name

# %%
tasks = {sample.meta["task"]: sample for sample in samples}
clip_sheet(list(tasks.values()))

# %% [markdown]
# Read the answers below the questions. A plain question is answered in words. The others are answered by a **marker**: `<region>` says *ask the head that draws boxes*,
# `<temporal>` says *ask the head that finds moments*, `<mask>` and `<track>` say *ask the head that outlines and follows*. The numbers are not in the text at all: they are the
# sample's **targets**.

# %%
[(task, sample.targets.model_dump(exclude_none=True)) for task, sample in tasks.items() if task != "mask"]

# %%
assert {"conversation", "region", "temporal"} <= set(tasks), f"expected a sample of every task, got {sorted(tasks)}"
assert tasks["region"].targets.region is not None, "a question about a place has boxes as its target"

# %% [markdown]
# ### Exercise 1: where is the answer?
#
# Take the sample that asks for a place. Its answer has no number in it. Write the box, `[x0, y0, x1, y1]`, as the data knows it, into `box`.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
place = tasks["region"]
box = ...  # a list of four numbers, from the sample

# %% [markdown] tags=["hint"]
# `place.targets` holds what the heads should answer. The cell above shows how it is built up. There may be several boxes; take the first.

# %% tags=["solution"]
place = tasks["region"]
box = place.targets.region[0].xyxy

# %% tags=["check"]
assert box is not ..., "exercise 1: expected four numbers, got ..."
assert list(box) == list(place.targets.region[0].xyxy), f"exercise 1: expected the first box of the sample's targets, got {box}"
assert "<region>" in place.conversation[-1].text, "and the words of the answer hold a marker only"

# %% [markdown]
# ## 2. The model
#
# `nano` is a LLaVA-OneVision of three million parameters: the real classes of the real model, only small. It was pretrained on captions and questions of this world, and never saw a box or a moment. Its mask head comes with a SAM2, pretrained as well, which it prompts and which stays as it is.

# %%
model = (tpo.load(checkpoint) if checkpoint else tpo.build()).to(device).eval()
parts = Counter()
for name, parameter in model.named_parts().items():
    parts["sam2" if ".sam." in name else name.partition(".")[0]] += parameter.numel()
parts

# %% [markdown]
# **Predict**: of these parts, which hold what TPO adds? And roughly what share of the parameters is that?
#
# Then ask a plain question about the first clip.

# %%
added = (parts["tokens"] + parts["heads"]) / parts.total()
clip, question = samples[0].media_path, samples[1].conversation[0].text
print(f"added by TPO: {added:.1%}")
print(question, "->", model.answer(clip, question).text)

# %%
assert added < 0.2, f"TPO adds little beside the backbone, expected under 20%, got {added:.0%}"

# %% [markdown]
# ## 3. What TPO adds
#
# 1. **Route tokens**, one per task. The language model *writes* one to say which task it was asked.
# 2. **Task tokens**, one per task: learnable vectors $v_i$. Each is put right behind its route token, and what the language model makes of it is the **task embedding** $e_i$.
# 3. **Heads**, one per task. Each reads its task embedding and answers in boxes, moments or masks.

# %%
model.tokens.ids.route, model.tokens.ids.slot

# %%
{name: tuple(vector.shape) for name, vector in model.tokens.task.items()}

# %%
{name: type(head).__name__ for name, head in model.heads.items()}

# %%
assert set(model.tokens.task) == set(model.heads), "every head has one task token"

# %% [markdown]
# ### Exercise 2: how large is what TPO adds?
#
# A task token is one vector, as long as a hidden state of the language model. How many numbers do all task tokens of this model hold together? Compute it from `model`.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
numbers = ...

# %% [markdown] tags=["hint"]
# `model.tokens.task` holds one vector for each head, by the head's name. `vector.numel()` counts.

# %% tags=["solution"]
numbers = sum(vector.numel() for vector in model.tokens.task.values())

# %% tags=["check"]
assert numbers is not ..., "exercise 2: expected a number, got ..."
width = next(iter(model.tokens.task.values())).numel()
assert numbers == width * len(model.heads), f"exercise 2: expected {len(model.heads)} vectors of {width} numbers, got {numbers}"

# %% [markdown]
# ## 4. Does it know which task it is asked?
#
# **Predict**: with heads that nobody trained, what will the model write when it is asked *where* something is?
# The picture counts what was expected against what was emitted.

# %%
found = tpo.evaluate(model, samples)
routing = found.scores["routing"]
confusion_chart(routing["labels"], routing["confusion"], "Routes")

# %%
assert sum(map(sum, routing["confusion"])) == len(found.records), "every answer is counted once"

# %% [markdown]
# The base has never seen a route token, so it answers in words, or in none. The next notebooks change that, one stage at a time.
#
# ## 5. The same in ten lines
#
# This is the whole of it, with the model that stage 3 leaves behind in place of `model`:

# %%
answer = model.answer(clip, tasks["region"].conversation[0].text)
answer.text, answer.task, answer.boxes_xyxy, answer.windows_sec

# %% [markdown]
# ```python
# import tpo_lab as tpo
# model = tpo.load("runs/40_joint_training/run/3b/checkpoint")
# answer = model.answer("clip.mp4", "When does the red ball stop?")
# answer.text, answer.task, answer.windows_sec, answer.saliency
# recipe = tpo.recipe("nano")                      # stages are data: print it, change one, run it
# run = tpo.fit(model, tpo.read("train.jsonl"), recipe, "runs/first", stage="3b")
# ```

# %%
assert set(answer.structured) == set(answer.routes), "a head answers where, and only where, its route was written"
emit(out, notebook="00_tour", headline=found.headline(), routing=routing, parameters=dict(parts))

# %% [markdown]
# ## Summary
#
# | part | what it is | who makes it |
# |---|---|---|
# | route token | a word of the language model: *this task is asked* | written by the language model (stage 1) |
# | task token $v_i$ | a learnable vector behind the route token | trained with its head (stage 2) |
# | task embedding $e_i$ | the last hidden state at that place | the language model |
# | head | boxes or moments from $e_i$ | trained (stages 2 and 3) |
#
# **Exercises**
#
# 1. Set `eval_samples` to 200 and read `found.records`: which kinds of plain questions does the base answer, and which not? (`record.kind` says what is asked.)
# 2. Ask about a video of your own with `model.answer("my.mp4", "How many things are there?")`. What would have to change for a sensible answer?
#
# Next: [10_tokens_and_routing](10_tokens_and_routing.ipynb).
