# %% [markdown]
# # A head that predicts nonsense
#
# The loss falls, the run ends, and the boxes are nonsense. The cause may sit in a token, a slot, a convention, a gradient or a mask, and none of them raises an error. In this notebook you are given five models, each with one fault that published code has had. You find each by measuring one step **from outside** the model, repair it, and measure again.
#
# **Question**: a head predicts nonsense. Which few numbers tell you why?
#
# **Time and hardware**: about two minutes on two CPU cores; no training; a GPU is used where there is one.
#
# **Before**: [10_tokens_and_routing](10_tokens_and_routing.ipynb) and [20_region_head](20_region_head.ipynb). You should know what a route token, a slot and a task embedding are.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # a trained checkpoint with a region head; "" takes the shipped nano-tpo
out: str = "../runs/50_debugging"  # folder of this run: result.json
seed: int = 0  # of the data, and of the order of the faults
eval_samples: int = 12  # validation samples that every model is asked
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few samples, to see that every cell runs

# %%
import pandas as pd

import tpo_lab as tpo
from tpo_lab.notebooks import emit, start, world
from tpo_lab.probes import FAULTS, diagnosis, mysteries, plant, symptoms, wrong_letters
from tpo_lab.report import probing as charts
from tpo_widgets import GradientView, HeadView, TokenView, together

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
model = tpo.load(checkpoint or "nano-tpo").to(device)
list(model.heads)

# %% [markdown]
# ## 1. A healthy model
#
# Three kinds of questions are enough: for words, for a place, for a moment. `tpo.probe` runs one training step over them without moving a weight, and lets the model answer each of them. The result is a **trace**: a record of what went in, what came out, and what every loss did to every module.

# %%
tasks = ("conversation", "region", "temporal")
each = (6 if fast else eval_samples) // len(tasks)
known = [s for s in tpo.read(folder / "val.jsonl") if s.meta["kind"] not in ("caption", "absent") and len(s.targets.region or ()) < 2]
one = {(s.meta["task"], s.media.path): s for s in known if not s.prompts}  # of each task about each clip
asked = [s for task in tasks for s in [s for (of, _), s in one.items() if of == task][:each]]

# %%
sound = tpo.probe(model, asked)
print(f"loss {sound.loss:.2f}", "IoU of boxes", {how: round(sound.iou("region", how), 2) for how in ("routed", "forced")})

# %% [markdown]
# A head can only be asked if its route token is written. So look there first: how probable is each route as the first token of the answer? *Due* is what the true answer has.

# %%
charts.route_chart(sound)

# %% [markdown]
# The same record in the views: the boxes over the frames, and below them the row of tokens, the routes, and where a slot looks. Space plays, `w` jumps to the worst frame, `[` and `]` change the question. [51_views](51_views.ipynb) explains them.

# %%
together(HeadView(sound), TokenView(sound))

# %% [markdown]
# The row of one question, token by token. The patches of a frame are one chip. What is underlined is learned. The **route** is a word that the model writes; the **slot** behind it holds the task token, and is no word at all.

# %%
first = next(sample for sample in sound.samples if sample.slots)
charts.token_strip(first)

# %% [markdown]
# ### Exercise 1: whom does the head read?
#
# For every slot the trace says which token's hidden state is nearest to what the head was given: `slot.reads` is the place of that token in the row. Write the *kind* of that token into `kind`, for the first slot of the row above.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
slot = first.slots[0]
kind = ...  # a text, as in the legend above

# %% [markdown] tags=["hint"]
# `first.tokens` is the row. Each token has a `kind`.

# %% tags=["solution"]
slot = first.slots[0]
kind = first.tokens[slot.reads].kind

# %% tags=["check"]
assert kind is not ..., "exercise 1: expected the kind of a token, got ..."
assert kind == first.tokens[slot.reads].kind, f"exercise 1: expected the kind of the token at place {slot.reads}, got {kind!r}"
assert slot.reads == slot.token, "in a healthy model the head reads its own slot"

# %% [markdown]
# ## 2. Which loss moves what
#
# Every part of Eq. 1 has its own gradient. A row is a module, a column is a loss.
#
# **Predict**: the loss of the boxes reaches the region head, of course. Which other rows of its column are not zero? And which losses can move the output rows of the new tokens, and which cannot?

# %%
charts.gradient_chart(sound.gradients)

# %%
reached = [module for module in sound.gradients.modules if sound.gradients.norm("region", module) > 0]
assert "tokens.task.region" in reached, f"the box loss trains the task token of its head, it reaches {reached}"
assert any(module.startswith("llm.lora.") for module in reached), f"and the language model, it reaches {reached}"
assert "tokens.task.temporal" not in reached, "but nothing of another head's token"

# %% [markdown]
# And where two losses move the same module, do they agree? Blue cells agree, orange ones pull against each other.

# %%
charts.conflict_chart(sound.gradients)

# %% [markdown]
# `GradientView` has both, with the samples behind each conflict.

# %%
GradientView(sound)

# %% [markdown]
# ## 3. Five patients
#
# Each of the models A to E is a copy of the healthy one with one of these faults in it. All of them hit the region head. Nothing fails, and nothing warns.
#
# | fault | what was done |
# |---|---|
# | lost token row | the route token's learned rows are as before training, as after a checkpoint that forgot them |
# | wrong slot | the head reads the state one token before its slot |
# | swapped box convention | the box is centre and size, and is read as two corners |
# | frozen part | the head gets its task embedding detached, so its loss cannot leave it |
# | leaking label | the causal mask is off by one: each token of the text sees the one that it has to predict |
#
# **Predict**: which of the five make the boxes worse where the true route is given, which only where the model has to ask, and which not at all?

# %%
patients = mysteries(model, seed=seed)
traces = {letter: tpo.probe(patient.model, asked) for letter, patient in patients.items()}

# %%
everybody = {"sound": sound, **traces}
pd.DataFrame({name: {how: trace.iou("region", how) for how in ("routed", "forced")} for name, trace in everybody.items()}).round(2)

# %% [markdown]
# Scores say *that* something is wrong, and for some patients not even that. Now the measurements, one after the other. First **the routes**: is the head asked at all?

# %%
for letter, trace in traces.items():
    display(charts.route_chart(trace, f"Patient {letter}"))

# %% [markdown]
# **The slots**: the least cosine between what the region head was given and the hidden state at its slot.

# %%
pd.Series({name: min(s.cosine for t in trace.samples for s in t.slots if s.head == "region") for name, trace in everybody.items()})

# %% [markdown]
# **The boxes**: the mean IoU with the true boxes, if the four numbers that the head gives are read in each of four ways.

# %%
readings = {name: [t.heads["region"].readings for t in trace.samples if "region" in t.heads] for name, trace in everybody.items()}
pd.DataFrame({name: pd.DataFrame([r for r in some if r]).mean() for name, some in readings.items()}).round(2)

# %% [markdown]
# Or look: every patient beside the healthy model, under one scrubber. Whose boxes are missing, whose are of the wrong thing, whose have the wrong shape?

# %%
for letter, trace in traces.items():
    display(HeadView(sound, compare=trace, names=("sound", letter)))

# %% [markdown]
# **The gradients** of the box loss alone, in the parts that should learn from it.

# %%
parts = [m for m in sound.gradients.modules if m.endswith(".region") or m.startswith("llm.lora.")]
pd.DataFrame({name: {m: trace.gradients.norm("region", m) for m in parts} for name, trace in everybody.items()}).round(4)

# %% [markdown]
# **The attention**: a token must not look at those behind it, nor at slots. Here is the greatest share of attention that lands there, of the slots and of the tokens that routes are predicted from.
#
# **Predict**: in a healthy model this share is not small. It is exactly what?

# %%
pd.Series({name: max(a.hidden for a in trace.activations.attention) for name, trace in everybody.items()})

# %%
assert all(a.hidden == 0 for a in sound.activations.attention), "a mask leaves nothing, not just little"

# %% [markdown]
# ### Exercise 2: the diagnosis
#
# Name the fault of each patient, by its letter, in the words of `FAULTS`. One patient shows two symptoms; only one of them is the cause. *You should spend up to 15 minutes on this.*

# %% tags=["exercise"]
found = {"A": ..., "B": ..., "C": ..., "D": ..., "E": ...}  # one of list(FAULTS) each

# %% [markdown] tags=["hint"]
# Take the five measurements one by one. In each, one patient differs from the healthy model as no other does. Where a token gets no gradient, ask first whether anybody reads what comes of it.

# %% tags=["solution"]
found = {letter: diagnosis(trace) for letter, trace in traces.items()}

# %% tags=["check"]
assert ... not in found.values(), f"exercise 2: expected one of {list(FAULTS)} for every letter, got {found}"
wrong = wrong_letters(patients, found)
assert not wrong, f"exercise 2: look again at {', '.join(wrong)}: there, another measurement differs more"
assert sorted(found.values()) == sorted(FAULTS), "every fault was there once"

# %% [markdown]
# ## 4. The treatment
#
# `patient.treat(fault)` repairs what this fault breaks, and nothing else: for the lost row it brings the trained rows back, for the wrong slot it moves the slot back to its place, and so on. It says whether that was it.
#
# ### Exercise 3: repair and measure again
#
# Treat every patient with your diagnosis, and probe all of them again. Write the traces into `after`, by letter. *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
cured = ...  # letter -> what patients[letter].treat(...) says
after = ...  # letter -> the trace of patients[letter].model

# %% [markdown] tags=["hint"]
# Two comprehensions: `{letter: ... for letter, patient in patients.items()}`. The probe is the call from above.

# %% tags=["solution"]
cured = {letter: patient.treat(found[letter]) for letter, patient in patients.items()}
after = {letter: tpo.probe(patient.model, asked) for letter, patient in patients.items()}

# %% tags=["check"]
assert cured is not ... and after is not ..., "exercise 3: expected two dictionaries by letter, got ..."
assert all(cured.values()), f"exercise 3: expected every treatment to be the right one, got {cured}"
sick = [letter for letter, trace in after.items() if diagnosis(trace) is not None]
assert not sick, f"exercise 3: {sick} still show a symptom; probe them again after the treatment"
worse = [letter for letter, trace in after.items() if trace.iou("region", "routed") != sound.iou("region", "routed")]
assert not worse, f"exercise 3: expected the boxes of the healthy model, {worse} have others"

# %% [markdown]
# All quantities of all patients, before and after. A cell is orange where its rule says that the fault is there.
#
# **Predict**: one column has two orange cells. Which, and why?

# %%
display(charts.symptom_chart({name: symptoms(trace) for name, trace in everybody.items()}, "Before"))
display(charts.symptom_chart({letter: symptoms(trace) for letter, trace in after.items()}, "After"))

# %% [markdown]
# A head that reads another token's state trains that one, and its own task token gets nothing. The missing gradient is the consequence, the wrong place is the cause.
#
# ## 5. Break it yourself
#
# `plant(model, fault)` puts a fault into a model until the `with` block ends. Here it is the leak. The picture shows where the token looks that has to predict the route; the chip with the thick outline is the one that looks.

# %%
with plant(model, "leaking label"):
    leaking = tpo.probe(model, asked, gradients=False)

# %%
for trace in (sound, leaking):
    place = next(place for place, a in enumerate(trace.activations.attention) if a.kind == "ROUTE")
    looks = trace.activations.attention[place]
    display(charts.token_strip(trace.samples[looks.sample], looks))

# %% [markdown]
# In the second picture it looks at the route that it has to predict. The shares are means over layers. The weights were trained without the leak, so it does little harm. Trained with it, the loss of the words would fall to almost nothing, and the model could not write a word by itself.

# %%
again = tpo.probe(model, asked, gradients=False)
assert leaking.activations.attention[place].hidden > 0, "with the leak, there is attention on what must not be seen"
assert again.activations.attention[place].hidden == 0, "behind the block the model is whole again"

# %%
values = {each.fault: each.value for trace in traces.values() for each in symptoms(trace) if each.fault == diagnosis(trace)}
boxes = {f"IoU, {found[letter]}": trace.iou("region", "routed") for letter, trace in traces.items()}
headline = {"IoU, sound": sound.iou("region", "routed"), **boxes, "found": len(patients) - len(wrong_letters(patients, found))}
emit(out, notebook="50_debugging", headline=headline, symptoms=values, letters=found)

# %% [markdown]
# ## Summary
#
# | what you see | what you measure | the view | what it tells |
# |---|---|---|---|
# | no boxes at all, though they are good where the route is given | probability of the route where it is due | `TokenView`, routes | the route's row is lost, or was never trained |
# | boxes of the wrong thing | cosine of the task embedding and the state at the slot | `TokenView`, slots | the head reads another token |
# | boxes near the right thing, in the wrong shape | IoU under other readings | `HeadView` | two conventions meet |
# | good scores, and a task token that never moves | gradient norms of one loss, by module | `GradientView`, norms | the graph is cut |
# | a loss too good to be true | attention on tokens that must not be seen | `TokenView`, where it looks | the label leaks |
#
# Measure in this order: route, slot, boxes, gradient, attention. The first that is wrong is the cause of most that follow.
#
# **Exercises**
#
# 1. Plant `plant(model, "wrong slot", head="temporal")`. Which rows of the table in section 3 change, and which stay, because the region head is fine?
# 2. Load two checkpoints of your own and compare them with `tpo_lab.probes.compare(model, "folder")`. Which parts are equal that should differ?
#
# Next: [51_views](51_views.ipynb).
