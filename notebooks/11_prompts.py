# %% [markdown]
# # Box, point and scribble prompts
#
# Some things are hard to name and easy to point at. *Where does **this** go?* A user draws a box, taps a point or scribbles a line, and the model has to know what is meant.
# In TPO a prompt becomes one vector in the language model's sequence, in the place where the question mentions it.
#
# In this notebook you follow a prompt from pixels to that vector, move it over the frame and watch the answer move with it. Then you feed it wrong coordinates and see how quietly that fails.
#
# **Question**: how does what a user points at reach the language model, and does its place really matter?
#
# **Time and hardware**: about two minutes on two CPU cores; nothing is trained and no GPU is needed.
#
# **Before**: [00_tour](00_tour.ipynb) and [10_tokens_and_routing](10_tokens_and_routing.ipynb). You should know what a token embedding and the IoU of two boxes are.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs
checkpoint: str = ""  # a trained checkpoint to ask; "" takes the shipped nano-tpo
out: str = "../runs/11_prompts"  # folder of this run: result.json
seed: int = 0  # of the data and of untrained encoders
eval_samples: int = 400  # validation samples among which questions that point are looked for
threads: int = 0  # of torch; 0 leaves it to torch
fast: bool = False  # a small world and few samples, to see that every cell runs
sweep_steps: int = 13  # places of a box on its way from one thing to another

# %%
from collections import Counter

import pandas as pd
import torch

# %%
import tpo_lab as tpo
from tpo_lab.boxes import box_iou, normalise_xyxy, order_corners
from tpo_lab.lessons import prompts
from tpo_lab.notebooks import emit, start, world

# %%
from tpo_lab.prompts import RASTER, BoxPromptEncoder, DrawnPromptEncoder, draw_box, draw_stroke
from tpo_lab.report.bars import bar_chart
from tpo_lab.report.curves import Curves, curve_charts
from tpo_lab.report.prompt_pictures import drawn_picture, moved_picture, prompt_sheet

# %%
device = start(seed=seed, threads=threads)
folder = world(data, seed=seed, fast=fast)
val = tpo.read(folder / "val.jsonl")[:eval_samples]
Counter(prompt.type for sample in val for prompt in sample.prompts)

# %% [markdown]
# ## 1. What a sample says
#
# A sample lists its prompts beside the conversation. The question mentions them by number: `<prompt:0>` is the first one. A prompt has pixels of the original frame, and the time of the frame it lies on.

# %%
pointing = {sample.prompts[0].type: sample for sample in reversed(val) if sample.prompts}
prompt_sheet(list(pointing.values()))

# %%
[(sample.conversation[0].text, sample.prompts[0].model_dump()) for sample in pointing.values()]

# %% [markdown]
# The model never sees pixels as numbers. Videos come in any size, so the library divides by the frame's width and height before anything else happens.
#
# ### Exercise 1: from pixels to shares of the frame
#
# A user draws the box `pixels` on a frame of 80 x 60. Write the box that the model should get, each number in $[0, 1]$, into `shares`.
# *You should spend up to 5 minutes on this.*

# %% tags=["exercise"]
pixels = [20.0, 15.0, 40.0, 45.0]  # x0, y0, x1, y1
shares = ...  # four numbers

# %% [markdown] tags=["hint"]
# $x$ runs along the width, $y$ along the height, and the frame is not a square.

# %% tags=["solution"]
pixels = [20.0, 15.0, 40.0, 45.0]  # x0, y0, x1, y1
shares = [pixels[0] / 80, pixels[1] / 60, pixels[2] / 80, pixels[3] / 60]

# %% tags=["check"]
assert shares is not ..., "exercise 1: expected four numbers, got ..."
right = normalise_xyxy(torch.tensor(pixels), torch.tensor([80.0, 60.0]))
assert len(shares) == 4, f"exercise 1: expected four numbers, got {len(shares)}"
assert torch.allclose(torch.tensor(shares), right), (
    f"exercise 1: expected {right.tolist()}, x by the width and y by the height, got {shares}"
)

# %% [markdown]
# ## 2. A box as a token
#
# The paper encodes a box with a **two-layer perceptron** (section 4: *another two-layer MLP to encode the spatial input into the MLLM*): four numbers in, one vector of the language model's width $d$ out, $\mathbb{R}^4 \to \mathbb{R}^{d/2} \to \mathbb{R}^d$.
#
# **Predict**: how many tokens of the sequence does a box cost? And how many would it cost to write its four numbers as text?

# %%
model = (tpo.load(checkpoint) if checkpoint else tpo.load("nano-tpo")).to(device).eval()
print("understands:", ", ".join(prompts.kinds_understood(model)), "| setting:", model.prompts.understood)
width = model.backbone.hidden_size
BoxPromptEncoder(width)

# %% [markdown]
# Questions to ask: *where is this at the end?*, about things whose way is known. The batch holds the prompts, and the place of each in its row.

# %%
questions = prompts.pointing_questions(val)[: 14 if fast else 60]
batch = prompts.batch_of(model, questions)
truth = prompts.true_boxes(questions, batch)
len(questions), batch.prompts.boxes_xyxy[0].tolist(), batch.prompts.token[0].item()

# %%
tokens = model.backbone.tokenizer.convert_ids_to_tokens(batch.ids[0].tolist())
" ".join(tokens[int(batch.prompts.token[0]) - 6 : int(batch.prompts.token[0]) + 12])

# %% [markdown]
# What the language model gets in that place is the encoder's vector, and nothing else.

# %%
video = model.encode_video(batch.rows)
inputs, encoded = model.inputs(batch, video)
tuple(encoded.shape), f"length of the vector {encoded.norm(dim=-1).mean():.1f}"

# %%
at = (batch.prompts.row, batch.prompts.token)
assert torch.allclose(inputs.embeds[at], encoded), "at the place of the prompt stands the encoded prompt"
assert (batch.ids[at] == model.tokens.ids.prompt).all(), "and the token there is the one that stands for prompts"

# %% [markdown]
# ## 3. Points and scribbles as drawings
#
# A scribble has any number of points, so a perceptron of four numbers cannot take it. The library draws it on a grid of 16 x 16 cells: how much of the line lies in each cell. A point is the shortest scribble, and a box is drawn as the cells that it covers.
# The idea is that of VITRON's region encoder ([arXiv 2412.19806](https://arxiv.org/abs/2412.19806)).
#
# **Predict**: a long scribble and a point, which of the two drawings sums up to more?

# %%
ways = prompts.three_ways(batch.prompts.boxes_xyxy[0].tolist())
drawings = {kind: (draw_box if kind == "box" else draw_stroke)(torch.tensor(places)) for kind, places in ways.items()}
drawn_picture(questions[0], {kind: drawn.numpy() for kind, drawn in drawings.items()})

# %%
sums = {kind: round(drawn.sum().item(), 4) for kind, drawn in drawings.items()}
assert all(abs(total - 1) < 1e-4 for total in sums.values()), f"each drawing is a set of shares, in sum 1, got {sums}"
sums

# %% [markdown]
# ### Exercise 2: is the place still there?
#
# A grid of 16 cells is coarse: a cell of a 64-pixel frame is 4 pixels wide. Is a point known to 4 pixels only? Write `centre`, the $(x, y)$ in $[0, 1]$ that the drawing below has as its centre of mass, and compare.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
drawn = draw_stroke(torch.tensor([[0.30, 0.62]]))  # [y, x], in sum 1
middles = (torch.arange(RASTER) + 0.5) / RASTER  # of the cells, along a side
centre = ...  # two numbers: x, y

# %% [markdown] tags=["hint"]
# The centre of mass is the mean place, each cell weighing as much as is drawn in it. Sum over $y$ first and you have the weights of the columns.

# %% tags=["solution"]
drawn = draw_stroke(torch.tensor([[0.30, 0.62]]))  # [y, x], in sum 1
middles = (torch.arange(RASTER) + 0.5) / RASTER  # of the cells, along a side
centre = [(drawn.sum(0) @ middles).item(), (drawn.sum(1) @ middles).item()]

# %% tags=["check"]
assert centre is not ..., "exercise 2: expected two numbers, got ..."
assert len(centre) == 2, f"exercise 2: expected x and y, got {centre}"
assert abs(centre[0] - 0.62) > 0.01, "exercise 2: x and y are swapped; the drawing's axes are [y, x]"
assert max(abs(centre[0] - 0.30), abs(centre[1] - 0.62)) < 1e-4, f"exercise 2: expected the point itself, (0.30, 0.62), got {centre}"

# %% [markdown]
# So nothing is lost: a point counts for the four cells around it, each by its nearness, and the mean gives it back.
#
# The encoder of drawings then adds two things: **how it looks there**, the visual tokens under the drawing, and **where it is**, a perceptron of the drawing's first cosines. Take a new one and ask what each is worth.
#
# **Predict**: the same drawing on two clips. Are the two vectors equal?

# %%
encoder = DrawnPromptEncoder(width).to(device)
seen = torch.stack([features.tokens[0, : model.backbone.cells_per_frame] for features in video])
same = drawings["box"].to(device).expand(len(seen), -1, -1)
with_looks, only_where = encoder(same, seen), encoder(same, torch.zeros_like(seen))

# %%
assert torch.allclose(only_where[0], only_where[-1]), "without anything to see, the same drawing gives the same vector"
assert not torch.allclose(with_looks[0], with_looks[-1]), "and it differs by what lies under it"
f"looks {(with_looks - only_where).norm(dim=-1).mean():.2f}, where {only_where.norm(dim=-1).mean():.2f}"

# %% [markdown]
# ## 4. Ask
#
# In everyday use it looks like this. On the command line: `tpo-lab predict nano-tpo clip.mp4 "Where is <prompt:0> at the end?" --box 41,37,60,56`.

# %%
question = questions[0]
answer = model.answer(question.media_path, prompts.QUESTION, boxes=[question.prompts[0].xyxy])
answer.text, answer.boxes_xyxy, question.targets.region[0].xyxy

# %% [markdown]
# For numbers, ask all questions at once, and ask the region head whatever the model would have said (*teacher-forced*).
#
# **Predict**: give each question the box of *another* question. What happens to the IoU with the thing that was meant first?

# %%
reading = prompts.read_prompts(model, batch)
other = prompts.read_prompts(model, prompts.pointed_at(batch, batch.prompts.boxes_xyxy.roll(1, 0)))
overlap = {name: box_iou(order_corners(r.boxes_xyxy), truth).mean().item() for name, r in (("own", reading), ("other", other))}
pd.Series(overlap, name="mean IoU").to_frame()

# %%
assert checkpoint or overlap["own"] > 2 * overlap["other"], f"the trained model listens to the box, got {overlap}"
assert not torch.allclose(reading.task_embedding, other.task_embedding), "another prompt gives another task embedding"

# %% [markdown]
# ## 5. Move the box
#
# Take two things in one clip, $A$ and $B$. Start with the box of $A$ and move it, in equal steps, to that of $B$. Question, clip and words stay the same; four numbers change.
#
# **Predict**: does the answer glide from $A$ to $B$, or does it jump? And how far does the task embedding turn?

# %%
pairs = prompts.pairs_in_clips(questions)[: 6 if fast else 30]
moved = prompts.sweep(model, pairs, 7 if fast else sweep_steps)
shown = moved.clearest()
moved_picture(pairs[shown][0], moved.prompts_xyxy[shown].tolist(), moved.answers_xyxy[shown].tolist())

# %% [markdown]
# That is the clearest of all pairs. On the left of the chart is its answer, in the middle the mean over all of them, which also holds those where the model did not find the thing.

# %%
way, label = moved.share.tolist(), "share of the way from A to B"
pair = {"with A": (way, moved.first[shown].tolist()), "with B": (way, moved.second[shown].tolist())}
mean = {"with A": (way, moved.first.mean(0).tolist()), "with B": (way, moved.second.mean(0).tolist())}
turned = {"": (way, (1 - moved.alike.mean(0)).tolist())}
curve_charts(
    [Curves("IoU, this pair", pair, label), Curves("IoU, all pairs", mean, label), Curves("1 - cosine of the embedding", turned, label)]
)

# %%
start_iou, end_iou = moved.first[:, 0].mean().item(), moved.second[:, -1].mean().item()
assert checkpoint or end_iou > moved.second[:, 0].mean() + 0.1, "when the box arrives at B, the answer is B more often than before"
f"at A: IoU {start_iou:.2f} with A; at B: {end_iou:.2f} with B; the task embedding turned by {1 - moved.alike[:, -1].mean():.3f}"

# %% [markdown]
# The answer jumps. The prompt's vector changes smoothly, but what it *means* is one thing or another, and the head points at one of them. A small turn of $e_i$ is all it takes.
#
# ## 6. Break it: wrong coordinates
#
# Datasets and tools write boxes in many ways. Each of these arrives as four finite numbers, so nothing crashes:
#
# | convention | four numbers |
# |---|---|
# | as it should be | $x_0, y_0, x_1, y_1$ in $[0, 1]$ |
# | pixels, not divided | the same in pixels |
# | thousandths | the same times 1000 |
# | centre and size | $c_x, c_y, w, h$ in $[0, 1]$ |
# | x and y swapped | $y_0, x_0, y_1, x_1$ in $[0, 1]$ |
#
# **Predict**: which mistake costs most? Would you notice it in the loss of a training run?

# %%
here, size = batch.prompts.boxes_xyxy, prompts.sizes_wh(batch).to(device)
misread = {name: prompts.pointed_at(batch, change(here, size)) for name, change in prompts.MISREADINGS.items()}
broken = {name: prompts.read_prompts(model, each) for name, each in misread.items()}
ious = {name: box_iou(order_corners(r.boxes_xyxy), truth).mean().item() for name, r in broken.items()}
bar_chart(ious, "Mean IoU by how the box is written", marked=[name for name in ious if name != "as it should be"])

# %%
best = max(ious, key=ious.get)
assert fast or checkpoint or best == "as it should be", f"only the convention that the model was trained with works, got {ious}"
pd.Series({name: r.embedded.norm(dim=-1).mean().item() for name, r in broken.items()}, name="length of the prompt's vector").to_frame()

# %% [markdown]
# Numbers far outside $[0, 1]$ can be found: a perceptron makes a vector of enormous length of them, and a grid on which all of it falls off the edge always gives the same vector.
# Wrong conventions *within* $[0, 1]$ are worse. Their vectors look as they should, and the answer is wrong.
#
# ### Exercise 3: repair
#
# A tool exports `exported`: centre and size in $[0, 1]$, one row per question. Turn it into `repaired`, the corners that the model needs, so that the IoU is back.
# *You should spend up to 10 minutes on this.*

# %% tags=["exercise"]
exported = prompts.MISREADINGS["centre and size"](here, size)  # [question, 4]: cx, cy, w, h
repaired = ...  # [question, 4]: x0, y0, x1, y1

# %% [markdown] tags=["hint"]
# `cx, cy, w, h = exported.unbind(-1)`, and `torch.stack([...], -1)` puts columns together. A corner is half a size away from the centre.

# %% [markdown] tags=["hint"]
# The library has a function for it in `tpo_lab.boxes`. Write it yourself first.

# %% tags=["solution"]
exported = prompts.MISREADINGS["centre and size"](here, size)  # [question, 4]: cx, cy, w, h
cx, cy, w, h = exported.unbind(-1)
repaired = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)

# %% tags=["check"]
assert repaired is not ..., "exercise 3: expected a tensor [question, 4], got ..."
assert repaired.shape == here.shape, f"exercise 3: expected {tuple(here.shape)}, got {tuple(repaired.shape)}"
back = prompts.read_prompts(model, prompts.pointed_at(batch, repaired))
back_iou = box_iou(order_corners(back.boxes_xyxy), truth).mean().item()
assert torch.allclose(repaired, here, atol=1e-5), (
    f"exercise 3: IoU {back_iou:.3f}, expected {ious['as it should be']:.3f}; the corners differ"
)

# %% [markdown]
# ## 7. Box, point or scribble?
#
# Point at the same things in each way that this model understands. A model whose setting is `box` has learned boxes alone and refuses the others with a sentence; one with `box+stroke` or `drawn` takes all three.

# %%
kinds = prompts.kinds_understood(model)
strokes = {kind: [prompts.three_ways(box)[kind] for box in here.tolist()] for kind in kinds}
read = {kind: prompts.read_prompts(model, prompts.pointed_at(batch, drawn)) for kind, drawn in strokes.items()}
by_kind = {kind: box_iou(order_corners(r.boxes_xyxy), truth).mean().item() for kind, r in read.items()}
bar_chart(by_kind, "Mean IoU by how the thing is pointed at")

# %%
assert abs(by_kind["box"] - overlap["own"]) < 1e-4, "a box by another way is the same box"
headline = {"iou": overlap["own"], "iou_other_box": overlap["other"], "iou_at_a": start_iou, "iou_at_b": end_iou}
emit(out, notebook="11_prompts", headline=headline, conventions=ious, kinds=by_kind, understood=model.prompts.understood)

# %% [markdown]
# ## Summary
#
# | step | what happens | what can go wrong |
# |---|---|---|
# | pixels | divided by the frame's width and height | divided by the wrong one, or not at all |
# | box | a perceptron of two layers, $4 \to d/2 \to d$ | corners, centre, order of $x$ and $y$ |
# | point, scribble | drawn on a grid; what is seen there, and where that is | a model that never learned them |
# | language model | reads the vector where the question mentions the prompt | |
# | head | answers for the thing that is meant | it jumps from thing to thing |
#
# **Exercises**
#
# 1. Move a box over the *empty* part of a frame with `prompts.pointed_at`, and look at the answers. What does the model do when nothing is pointed at? What should it do?
# 2. Make the box smaller and larger around the same middle, from a tenth of its size to three times. How exact must a user be? Plot it with `curve_charts`.
#
# Next: [20_region_head](20_region_head.ipynb).
