# %% [markdown]
# # Reruns and sweeps
#
# One run of one notebook is an anecdote: with another seed, the other setting might have won. A **sweep** runs a notebook at many points and with many seeds, and makes one table of it.
# You write a sweep, run it, break a run in it, and learn how many seeds a claim needs.
#
# **Question**: is one setting better than another, or was it the seed?
#
# **Time and hardware**: about two minutes on two CPU cores; a GPU is of no use here.
#
# **Before**: any one of the notebooks before this, so that you know their `parameters` cell. What a standard error is.

# %% tags=["parameters"]
out: str = "../runs/80_reruns"  # folder of this run: the sweep, its table, result.json
fast: bool = False  # three seeds and few steps, to see that every cell runs
workers: int = 2  # runs at a time
seeds: int = 8  # of each point

# %% [markdown]
# ## 1. A notebook is a program
#
# This sweep takes the smallest notebook that is worth it: a perceptron learns to read a box from a noisy vector. Like all notebooks here it declares typed **parameters**, and its last cell
# shows a **result record**. It is written into the folder of this run.

# %%
from pathlib import Path

import pandas as pd

from tpo_lab import notebooks
from tpo_lab.errors import UsageError
from tpo_lab.lessons.perceptron import fit_boxes, write_notebook

# %%
folder = Path(out).resolve()
small = write_notebook(folder / "small.ipynb")
pd.DataFrame([vars(parameter) for parameter in notebooks.parameters(small).values()])

# %% [markdown]
# **Predict**: papermill, which runs the notebooks, would take `rate="fast"` without a word. What happens here?

# %%
try:
    notebooks.checked(small, {"rate": "fast"})
except UsageError as error:
    refused = str(error)
refused

# %%
assert "rate: expected float, got 'fast'" in refused, f"a wrong type is refused before anything runs: {refused}"

# %% [markdown]
# ## 2. A sweep file
#
# A sweep is a file in YAML: which notebook, what is fixed, what is varied, which seeds. The same file runs from a terminal with `tpo-lab rerun losses.yaml`.

# %%
sweep_file = folder / "losses.yaml"
number = 3 if fast else seeds
text = f"""notebook: small.ipynb
parameters: {{steps: {60 if fast else 150}}}
grid: {{loss: [l1, giou], rate: [0.003, 0.01]}}
seeds: {list(range(number))}
baseline: {{loss: l1, rate: 0.01}}
"""
sweep_file.write_text(text)
print(text)

# %% [markdown]
# ### Exercise 1: how many runs?
#
# How many runs does this sweep make? Compute it from the sizes of its lists, with `number` seeds.
# *You should spend up to 3 minutes on this.*

# %% tags=["exercise"]
runs = ...

# %% [markdown] tags=["hint"]
# `grid` means every combination: each loss with each rate. Each combination runs with each seed.

# %% tags=["solution"]
runs = 2 * 2 * number

# %% tags=["check"]
from tpo_lab.reruns import Planner, Sweep

jobs = Planner(Sweep.read(sweep_file)).jobs()
assert runs == len(jobs), f"exercise 1: expected as many as are planned, {len(jobs)}, got {runs}"

# %% [markdown]
# Each run has a **key**: the hash of all that its result depends on, which is the notebook, the parameters, the version of the library and the input data.

# %%
pd.DataFrame([{"key": job.key, **job.point, "seed": job.seed} for job in jobs]).head(6)

# %% [markdown]
# ## 3. Run it
#
# Each run is an executed notebook, with its figures, in a folder named by its key. Two workers run two at a time.

# %%
from tpo_lab.reruns import rerun

summary = rerun(Sweep.read(sweep_file), folder / "sweep", workers=workers)
{"ran": summary.ran, "reused": summary.reused, "failed": summary.failed}

# %%
assert summary.done == len(jobs) and not summary.failed, f"every run is done, got {summary}"

# %% [markdown]
# **Predict**: run the same sweep again. How many runs are made?

# %%
again = rerun(Sweep.read(sweep_file), folder / "sweep", workers=workers)
{"ran": again.ran, "reused": again.reused}

# %%
assert (again.ran, again.reused) == (0, len(jobs)), "what is finished and unchanged is not run again"

# %% [markdown]
# ## 4. The table
#
# Over the seeds of each point: mean, standard error, the interval in which the mean lies, and the difference from the baseline, *seed by seed*. `tpo-lab runs table FOLDER` prints the same.

# %%
from tpo_lab.reruns import grouped_table, runs_in

found = runs_in(folder / "sweep")
grouped = grouped_table(found, ["headline.iou"], {"loss": "l1", "rate": 0.01})
grouped.frame

# %% [markdown]
# All runs of the folder, to sort, to filter and to brush: drag along an axis, and only the runs in that range stay. A click on a run's name opens its notebook.

# %%
from tpo_widgets import RunsView

RunsView(folder / "sweep")

# %% [markdown]
# Each dot is a seed. A diamond is their mean, a bar the interval of the mean.

# %%
from tpo_lab.report.seeds import seeds_chart

by_point = {}
for run in found:
    by_point.setdefault(f"{run.job.point['loss']}, rate {run.job.point['rate']}", []).append(run.values["headline.iou"])
intervals = {name: (row.low, row.high) for name, row in zip(by_point, grouped.frame.itertuples(), strict=True)}
seeds_chart(by_point, f"IoU on held-out boxes, {grouped.method}", intervals=intervals)

# %% [markdown]
# ### Exercise 2: is it better?
#
# Compare GIoU with L1, both at rate 0.01: take the IoU of each run with GIoU minus that of the run with L1 *of the same seed*, and the mean of these differences.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
difference = ...

# %% [markdown] tags=["hint"]
# `by_point` has the values of each point in the order of the seeds.

# %% tags=["solution"]
pairs = zip(by_point["giou, rate 0.01"], by_point["l1, rate 0.01"], strict=True)
difference = sum(giou - l1 for giou, l1 in pairs) / number

# %% tags=["check"]
row = grouped.frame.query("loss == 'giou' and rate == 0.01").iloc[0]
assert difference is not ..., "exercise 2: expected a number, got ..."
assert abs(difference - row["difference"]) < 1e-9, f"exercise 2: the table says {row['difference']:+.4f}, you say {difference:+.4f}"
print(f"GIoU minus L1: {difference:+.4f}, 95% interval {row['difference_low']:+.4f} to {row['difference_high']:+.4f}")

# %% [markdown]
# Does the interval hold 0? Then these seeds do not say which one is better, whatever the mean is.
#
# ## 5. Break it: one seed only
#
# Suppose you had run one seed of each, and claimed that the larger number wins. The differences of all seeds show how often you would have claimed which.
#
# **Predict**: for how many of the seeds does GIoU win?

# %%
differences = [giou - l1 for giou, l1 in zip(by_point["giou, rate 0.01"], by_point["l1, rate 0.01"], strict=True)]
wins = sum(value > 0 for value in differences)
print(f"GIoU wins with {wins} of {number} seeds")
seeds_chart({"GIoU minus L1": differences}, "What each seed alone would have said", zero=True)

# %%
assert len(differences) == number, "every seed is one answer that a single run might have given"

# %% [markdown]
# ### Exercise 3: a run that fails
#
# A rate below 0 cannot be trained with. Write a point, as a dictionary with a rate, that makes the run fail and is of the right type all the same.
# *You should spend up to 3 minutes on this.*

# %% tags=["exercise"]
point = ...

# %% [markdown] tags=["hint"]
# A point names parameters, as `{"rate": 0.003}` does.

# %% tags=["solution"]
point = {"rate": -0.01}

# %% tags=["check"]
assert isinstance(point, dict), f"exercise 3: expected a dictionary, got {point}"
notebooks.checked(small, point)
try:
    fit_boxes(rate=point["rate"], steps=1)
except UsageError as error:
    failing = str(error)
assert "expected a number above 0" in failing, "exercise 3: expected a rate that the training refuses"

# %% [markdown]
# A failed run is a row of the table like any other, with the cell and the error. The others are not touched by it.

# %%
(folder / "broken.yaml").write_text(
    f"notebook: small.ipynb\nparameters: {{steps: 60}}\nlist: [{{rate: 0.01}}, {{rate: {point['rate']}}}]\n"
)
broken = rerun(Sweep.read(folder / "broken.yaml"), folder / "broken", workers=workers)
pd.DataFrame([{**run.job.point, "state": run.state, "problem": run.problem} for run in runs_in(folder / "broken")])

# %%
assert (broken.done, broken.failed) == (1, 1), f"one run failed and one is done, got {broken}"

# %% [markdown]
# What came out, for a sweep over this notebook:

# %%
headline = {"difference": difference, "wins": wins, "runs": len(jobs)}
notebooks.emit(out, notebook="80_reruns", headline=headline, table=grouped.frame.astype(str).to_dict("records"), method=grouped.method)

# %% [markdown]
# ## Summary
#
# | word | what it is |
# |---|---|
# | point | one setting of what is varied |
# | run | one notebook at one point with one seed, in a folder of its own |
# | key | hash of notebook, parameters, library and inputs: the same key is the same run |
# | done | the result record is there, with this key; nothing else counts |
# | paired difference | seed by seed, so that what a seed does to both falls out |
#
# **Exercises**
#
# 1. Add seeds to the sweep file until the interval of GIoU minus L1 leaves 0 out, if it ever does. How many runs are new each time? (Deciding when to stop by looking is itself a way to fool yourself: how would you fix the number beforehand?)
# 2. Write a chain, in which `20_region_head` takes the checkpoint of `10_tokens_and_routing` at the same seed: in place of `notebook` stands `chain: [{notebook: 10_tokens_and_routing}, {notebook: 20_region_head, takes: {checkpoint: checkpoint}}]`. With `parameters: {fast: true}` it is a matter of minutes. What is the key of the second run made of?
#
# Next: [90_how_nano_was_made](90_how_nano_was_made.ipynb).
