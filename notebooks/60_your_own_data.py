# %% [markdown]
# # Your own data in one file
#
# Everything that is trained here comes from one kind of file: a line of JSON for each question about a video. You can write it with a text editor.
# In this notebook you annotate a video yourself, find the mistakes that people make in such files, bring in a file of another format, mix it all, and train on it.
#
# **Question**: how does a video of yours become something a head can learn from, and what can go wrong without anybody noticing?
#
# **Time and hardware**: about four minutes on two CPU cores; a GPU is used where there is one.
#
# **Before**: [20_region_head](20_region_head.ipynb). You should know what a box `[x0, y0, x1, y1]` is.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl of the world, mixed in; "" makes it in ../runs
checkpoint: str = ""  # the model that is trained on; "" takes the shipped "nano-tpo"
out: str = "../runs/60_your_own_data"  # folder of this run: videos, files, checkpoints, result.json
seed: int = 0  # of the world and the order of training
steps: int = 0  # of each of the two trainings; 0 takes 100, or 16 where fast
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few steps, to see that every cell runs

# %%
from collections import Counter
from pathlib import Path

import pandas as pd
import torch

import tpo_lab as tpo

# %%
from tpo_lab.boxes import box_iou
from tpo_lab.datasets import yard
from tpo_lab.datasets.against_media import against_media
from tpo_lab.datasets.conversion import converted
from tpo_lab.datasets.formats import Source, format_named
from tpo_lab.datasets.mixture import mixture

# %%
from tpo_lab.lessons.mistakes import halve_boxes, plant_mistakes, records_of, write_records
from tpo_lab.notebooks import emit, open_run, progress_line, start, world
from tpo_lab.report import box_picture, clip_sheet, line_chart, term_panel
from tpo_lab.report.ruled import film_strip, ruled_picture
from tpo_lab.stages import Stage

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
steps = steps or (16 if fast else 100)
home = Path(out) / "yard"

# %% [markdown]
# ## 1. A video that nobody has annotated
#
# Here are films of a yard, one for each day. A parcel slides in and stops. A lamp shines for a while. They are real mp4 files of 64 x 48 pixels and 6 seconds. Take videos of your own in their place if you like: nothing below depends on what they show.

# %%
films = [yard.film(home, number) for number in range(8)]
film_strip(films[0])

# %%
ruled_picture(films[0], 6.0)

# %% [markdown]
# The second picture is the end of the film, with rulers. They count **pixels of the original frame**, from the corner above on the left.
#
# ### Exercise 1: two samples by hand
#
# A *sample* is a question and its answer. Where a head shall answer, the answer holds a **marker**, and the number goes into `targets`. Read the box of the parcel off the second picture, `[x0, y0, x1, y1]`, and when the lamp shines off the first, `[start, end]` in seconds.
# *You should spend up to 8 minutes on this.*

# %% tags=["exercise"]
media = {"path": "yard-0.mp4", "start_sec": 0.0, "end_sec": 6.0}
where = {
    "id": "yard-0-where",
    "source": "yard",
    "media": media,
    "conversation": [{"role": "user", "text": "Where is the parcel?"}, {"role": "assistant", "text": "<region>"}],
    "targets": {"region": [{"time_sec": 6.0, "xyxy": ...}]},
}
when = {
    "id": "yard-0-when",
    "source": "yard",
    "media": media,
    "conversation": [{"role": "user", "text": "When does the lamp shine?"}, {"role": "assistant", "text": "<temporal>"}],
    "targets": {"temporal": {"windows_sec": [...]}},
}

# %% [markdown] tags=["hint"]
# The long marks of the rulers are 16 pixels apart, the short ones 4. Two or three pixels too many or too few do not matter.

# %% [markdown] tags=["hint"]
# The lamp shines from the first frame in which it is yellow to the first in which it is dark again.

# %% tags=["solution"]
media = {"path": "yard-0.mp4", "start_sec": 0.0, "end_sec": 6.0}
where = {
    "id": "yard-0-where",
    "source": "yard",
    "media": media,
    "conversation": [{"role": "user", "text": "Where is the parcel?"}, {"role": "assistant", "text": "<region>"}],
    "targets": {"region": [{"time_sec": 6.0, "xyxy": [34, 22, 44, 34]}]},
}
when = {
    "id": "yard-0-when",
    "source": "yard",
    "media": media,
    "conversation": [{"role": "user", "text": "When does the lamp shine?"}, {"role": "assistant", "text": "<temporal>"}],
    "targets": {"temporal": {"windows_sec": [[1.0, 3.0]]}},
}

# %% tags=["check"]
box, window = where["targets"]["region"][0]["xyxy"], when["targets"]["temporal"]["windows_sec"][0]
truth = yard.day(0)
assert box is not ... and len(box) == 4, f"exercise 1: expected four numbers for the box, got {box}"
overlap = box_iou(torch.tensor([box], dtype=torch.float32), torch.tensor([truth.parcel_xyxy], dtype=torch.float32)).item()
assert overlap > 0.6, f"exercise 1: your box overlaps the parcel with an IoU of {overlap:.2f}, expected more than 0.6; x goes first, then y"
assert window is not ... and len(window) == 2, f"exercise 1: expected [start, end] in seconds, got {window}"
late = max(abs(mine - true) for mine, true in zip(window, truth.lamp_sec, strict=True))
assert late <= 0.5, f"exercise 1: expected a window within half a second of the lamp's, got {window}, off by {late:g} s"

# %% [markdown]
# ## 2. The file
#
# Four more days have been annotated for you, so that it is ten samples. A file is one JSON object a line, that is all. The media path starts from the folder of the file.

# %%
others = [sample for number in range(1, 5) for sample in yard.written(home, number)]
path = write_records(home / "own.jsonl", [where, when, *records_of(others)])
print(path.read_text()[:700])

# %%
own = tpo.read(path)
print(len(own), "samples,", len(tpo.validate(path, check_media=True)), "problems")
clip_sheet(own[1:4])

# %% [markdown]
# `tpo.read` gives checked objects: what is wrong in a file is named with line, field and rule, and nothing wrong gets through to the training. On the command line: `tpo-lab data validate own.jsonl --media` and `tpo-lab data show own.jsonl`.
#
# ## 3. What goes wrong
#
# Here is the file again, with four planted mistakes. People make all of them: a window whose ends are swapped; a box in pixels of a larger picture; a video under another name; a marker whose target was forgotten.
#
# **Predict**: `tpo.validate` reads the lines and looks whether the files are there. Which of the four can it *not* find?

# %%
broken = write_records(home / "broken.jsonl", plant_mistakes(own))
listed = tpo.validate(broken, check_media=True)
[str(problem) for problem in listed]

# %%
assert len(listed) == 3 and "box_in_frame" not in {p.rule for p in listed}, "lines alone do not say how large a frame is"
opened = against_media(broken)
[str(problem) for problem in opened]

# %% [markdown]
# How large a frame is, only the video knows. `against_media` opens each file once. What was forgotten, nobody knows but who looks again:

# %%
ruled_picture(films[1], 6.0)

# %% [markdown]
# ### Exercise 2: repair them
#
# `records` is a list of dictionaries, in the order of the lines. Change the four wrong ones, so that both lists are empty. Throwing a record away is no repair. For the forgotten target, read the picture above.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
records = plant_mistakes(own)
# for example: records[7]["media"]["path"] = "yard-3.mp4"

# %% [markdown] tags=["hint"]
# Line 1 is `records[0]`. Its box is ten times too large. `records[1]["targets"]["temporal"]["windows_sec"][0]` is the swapped window; a list has `.reverse()`.

# %% [markdown] tags=["hint"]
# `records[2]` needs `["targets"] = {"region": [{"time_sec": 6.0, "xyxy": [...]}]}`, and `records[3]` the name of a file that exists.

# %% tags=["solution"]
records = plant_mistakes(own)
target = records[0]["targets"]["region"][0]
target["xyxy"] = [edge / 10 for edge in target["xyxy"]]
records[1]["targets"]["temporal"]["windows_sec"][0].reverse()
records[2]["targets"] = {"region": [{"time_sec": 6.0, "xyxy": [42, 24, 54, 36]}]}
records[3]["media"]["path"] = "yard-1.mp4"

# %% tags=["check"]
repaired = write_records(home / "repaired.jsonl", records)
left = tpo.validate(repaired, check_media=True) + against_media(repaired)
assert not left, f"exercise 2: expected no problem, still {len(left)}, the first: {left[0]}"
assert [record["id"] for record in records] == [sample.id for sample in own], "exercise 2: expected the same ten records in the same order"
moved = [record["id"] for record, true in zip(records, own, strict=True) if record["media"]["path"] != true.media.path]
assert not moved, f"exercise 2: expected each record with the film that it was about, another one in {moved}"
assert records[2]["targets"].get("region"), "exercise 2: expected the forgotten target of line 3, not a question without one"
looked = torch.tensor([records[2]["targets"]["region"][0]["xyxy"]], dtype=torch.float32)
overlap = box_iou(looked, torch.tensor([yard.day(1).parcel_xyxy], dtype=torch.float32)).item()
assert overlap > 0.6, f"exercise 2: the new box of line 3 overlaps the parcel with an IoU of {overlap:.2f}, expected more than 0.6"
changed = [mine.id for mine, true in zip(tpo.read(repaired), own, strict=True) if mine.targets != true.targets and mine.id != own[2].id]
assert not changed, f"exercise 2: expected the targets as they were before the mistakes, other ones in {changed}"

# %% [markdown]
# ## 4. Files that others have written
#
# Thirty official formats are read as they are. Charades-STA, for example, has a line for each moment: the video's name, start and end in seconds, two hashes, a sentence.

# %%
print(format_named("charades-sta").layout)
film_strip(films[5])

# %% [markdown]
# ### Exercise 3: a line of Charades-STA
#
# Write the line for this film, `yard-5`, and the sentence `the lamp shines.`
# *You should spend up to 4 minutes on this.*

# %% tags=["exercise"]
line = ...  # text: "video start end##sentence"

# %% [markdown] tags=["hint"]
# With other numbers: `yard-9 0.5 1.5##the lamp shines.`

# %% tags=["solution"]
line = "yard-5 {} {}##the lamp shines.".format(*yard.day(5).lamp_sec)

# %% tags=["check"]
assert line is not ..., "exercise 3: expected a line of text, got ..."
official = home / "charades_sta_train.txt"
others_lines = "yard-6 {} {}##the lamp shines.\nyard-7 4.0 1.5##the lamp shines.\n".format(*yard.day(6).lamp_sec)
official.write_text(f"{line}\n{others_lines}")
counts, dropped = converted(format_named("charades-sta"), Source(official, media=home, split="train"), home / "moments.jsonl")
moments = tpo.read(home / "moments.jsonl")
assert len(moments) == 2, f"exercise 3: expected your line and the next to be read, got {len(moments)}; dropped: {list(map(str, dropped))}"
found = moments[0].targets.temporal.windows_sec[0]
late = max(abs(mine - true) for mine, true in zip(found, yard.day(5).lamp_sec, strict=True))
assert moments[0].media.path == films[5].name, f"exercise 3: expected the film {films[5].name}, got {moments[0].media.path}"
assert late <= 0.5, f"exercise 3: expected a window within half a second of the lamp's, got {found}, off by {late:g} s"

# %%
print(counts)
print([str(each) for each in dropped])
moments[0].conversation[0].text, moments[0].targets.model_dump(exclude_none=True)

# %% [markdown]
# The third line ends before it starts. It is left out, counted and named; the rest is read. On the command line: `tpo-lab data convert charades-sta charades_sta_train.txt --media . --out moments.jsonl --dropped dropped.jsonl`.
#
# ## 5. A mixture
#
# Ten samples are few, and a model that sees nothing else forgets what it knew. A **mixture** says which files are visited how often. `own: 6.0` means: six times in each pass.
#
# **Predict**: 10 samples six times, 2 moments six times, and a part of the world. Which source will have the most samples?

# %%
text = f"""
name: yard
datasets:
  own: {{path: own.jsonl}}
  moments: {{path: charades_sta_train.txt, format: charades-sta, media: ., split: train}}
  world: {{path: "{(folder / "train.jsonl").resolve().as_posix()}"}}
stages:
  "3a":
    - of: {{own: 6.0, moments: 6.0}}
    - {{of: {{world: 1.0}}, samples: 240}}
"""
(home / "mixture.yaml").write_text(text)
mixed = mixture(home / "mixture.yaml").samples("3a", seed=seed)
Counter(sample.source for sample in mixed)

# %%
assert sum(sample.source == "yard" for sample in mixed) == 6 * len(own), "each of the ten is visited six times"

# %% [markdown]
# ## 6. Train on it
#
# The model was trained on the world, and has never seen a yard, a parcel or a lamp. Five days of the file are for training. Five *other* days tell whether it learned what is asked, or only these ten answers.
#
# **Predict**: before any training, will it write `<region>` and `<temporal>` where they are due? And will the box be right?

# %%
new = [sample for number in range(20, 25) for sample in (yard.film(home, number) and yard.written(home, number))]
trained = checkpoint or "nano-tpo"
model = tpo.load(trained).to(device)
before = {"own": tpo.evaluate(model, own), "new": tpo.evaluate(model, new)}
print([record.text for record in before["new"].records])
box_picture(new[0], before["new"].records[0].forced["region"])

# %%
stage = Stage(
    name="3a",
    title="a yard",
    learning_rates={"llm.lora.*": 5e-4, "heads.region.*": 1e-3, "heads.temporal.*": 5e-4, "tokens.task.*": 5e-4},
    data={"region": 2.0, "temporal": 1.0},
    losses={"mlm": 1.0, "assign": 1.0, "region": 1.0, "temporal": 1.0},
    steps=steps,
    batch_size=8,
    max_questions=2,
    warmup_ratio=0.1,
    grad_clip=1.0,
    precision="fp32",
)
recipe = tpo.Recipe(name="yard", stages=(stage,), lora=model.lora, frames=model.backbone.num_frames, resolution=model.backbone.image_size)

# %%
options = tpo.TrainingOptions(seed=seed)
place = open_run(out)
run = tpo.fit(model, mixed, recipe, place / "right", resume=True, options=options, listener=progress_line())
after = {"own": tpo.evaluate(model, own), "new": tpo.evaluate(model, new)}

# %% [markdown]
# **Predict**: on which of the two does it gain more, on its own ten samples or on the new days?

# %%
states = {"before": before, "after": after}
iou = {name: {some: each.scores["region"]["teacher_forced"]["miou"] for some, each in state.items()} for name, state in states.items()}
pd.DataFrame(iou).rename_axis("mean IoU of the boxes")

# %%
routes = {name: {some: each.scores["routing"]["accuracy"] for some, each in state.items()} for name, state in states.items()}
pd.DataFrame(routes).rename_axis("right route")

# %% [markdown]
# A thing that slides in was easy to find: the world is full of such things. But *when* was a question that the world asks in other words, so the model answered in words of its own. A few samples teach the route.

# %%
answer = model.answer(new[0].media_path, yard.WHERE)
print(answer.text, answer.boxes_xyxy)
box_picture(new[0], after["new"].records[0].forced["region"])

# %%
gain = iou["after"]["own"] - iou["before"]["own"]
assert fast or steps < 100 or gain > 0, f"training on ten samples improves the answers to these ten, got {gain:+.3f}"
assert fast or steps < 100 or routes["after"]["own"] > 0.9, f"and their routes are learned, got {routes['after']['own']:.0%}"

# %% [markdown]
# ## 7. Break it: a file that is right in every line, and wrong
#
# Somebody annotated the films in a tool that shows them at **half the size**, and wrote down the pixels of that picture.
#
# **Predict**: which rule does such a file break? And will the loss fall?

# %%
small = write_records(home / "halved.jsonl", records_of(halve_boxes(own)))
print(tpo.validate(small, check_media=True), against_media(small))
box_picture(tpo.read(small)[0], None)

# %%
assert not tpo.validate(small, check_media=True) + against_media(small), "no rule can know what a number was meant to be"
(home / "halved.yaml").write_text(text.replace("own.jsonl", "halved.jsonl"))
wrong = tpo.load(trained).to(device)
wrong_data = mixture(home / "halved.yaml").samples("3a", seed=seed)
wrong_run = tpo.fit(wrong, wrong_data, recipe, place / "halved", resume=True, options=options, listener=progress_line())

# %%
line_chart([term_panel({"right": run.metrics(), "halved": wrong_run.metrics()}, "region/l1", "loss of the boxes")])

# %%
halved = {"own": tpo.evaluate(wrong, own), "new": tpo.evaluate(wrong, new)}
iou["halved"] = {some: each.scores["region"]["teacher_forced"]["miou"] for some, each in halved.items()}
pd.DataFrame(iou).rename_axis("mean IoU of the boxes")

# %%
box_picture(own[0], halved["own"].records[0].forced["region"])

# %% [markdown]
# The wrong loss starts higher, as for any new task, and falls like the other: a network learns wrong numbers as gladly as right ones. Neither the rules nor the loss tell. What tells is one look at the picture above the training: the green box beside the parcel. **Look at your data with its targets drawn in**, `tpo-lab data show own.jsonl`, before you train on it.

# %%
assert fast or steps < 100 or iou["halved"]["own"] < iou["after"]["own"], f"halved boxes do not teach where the parcel is: {iou}"
headline = {"own before": iou["before"]["own"], "own": iou["after"]["own"], "new": iou["after"]["new"], "own, halved": iou["halved"]["own"]}
headline["new, right route"] = routes["after"]["new"]
emit(out, notebook="60_your_own_data", headline=headline, stages=["3a"], checkpoint=str(run.path / "checkpoint"), iou=iou, routes=routes)

# %% [markdown]
# ## Summary
#
# | step | in Python | on the command line |
# |---|---|---|
# | write | any text editor; `tpo.write` for samples | |
# | check the lines | `tpo.validate(path, check_media=True)` | `tpo-lab data validate FILE --media` |
# | check against the videos | `against_media(path)` | |
# | look | `clip_sheet`, `box_picture` | `tpo-lab data show FILE` |
# | bring in official files | `converted(format_named(...), Source(...), out)` | `tpo-lab data convert FORMAT SRC --out FILE` |
# | mix | `mixture("mine.yaml").samples(stage)` | `tpo-lab data mixture mine.yaml` |
# | train | `tpo.fit(model, samples, recipe, out)` | `tpo-lab train --data FILE ...` |
#
# **Exercises**
#
# 1. Take a video of your own of a few seconds. Write three samples about it, check them both ways, and ask `tpo.load("nano-tpo")` before and after training. What does the model take your things for?
# 2. Shift all windows by one second, as if they counted from another start, and train again. Which curve or picture shows it? Which would have to be there so that it shows at once?
#
# Next: [61_your_own_head](61_your_own_head.ipynb).
