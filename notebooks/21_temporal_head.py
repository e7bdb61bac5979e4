# %% [markdown]
# # Stage 2: the temporal head
#
# *When* does it happen? A moment has a start, an end, and every second around it matters more or less. CG-DETR answers both: windows with scores (*moment retrieval*) and a score for each frame (*highlights*).
#
# You will take the head apart: what goes in, how it keeps apart frames that the question speaks of from all others, how it proposes windows, what it learns from, and what training changes.
#
# **Time and hardware**: about five minutes on two CPU cores; a GPU is used where there is one.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs/world
checkpoint: str = ""  # from 20_region_head; "" starts from the shipped backbone
out: str = "../runs/21_temporal_head"  # folder of this run: checkpoints, metrics, result.json
seed: int = 0  # of the data, the untrained heads and the order of training
recipe_name: str = "nano"  # a preset such as "nano-long", or a .json or .toml file
steps: int = 0  # of each stage; 0 takes the number in the recipe
eval_samples: int = 120  # validation samples looked at before and after
threads: int = 0  # of torch; 0 leaves it to torch

# %%
import pandas as pd
import torch

import tpo_lab as tpo
from tpo_lab.demo import world_data
from tpo_lab.media import Frames

# %%
from tpo_lab.heads.cg_detr.glance import likeliest_windows
from tpo_lab.notebooks import emit, open_run, progress_line
from tpo_lab.report import Panel, line_chart, loss_chart, window_picture
from tpo_lab.spans import cw_to_sec

# %%
if threads:
    torch.set_num_threads(threads)
torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"
device

# %%
folder = world_data(data or "../runs/world", seed=seed)
train = tpo.read(folder / "train.jsonl")
val = [s for s in tpo.read(folder / "val.jsonl") if s.meta["task"] == "temporal"][:eval_samples]
val.sort(key=lambda s: s.targets.temporal is None)  # last those that ask for what does not happen
len(val), val[0].conversation[0].text, val[0].targets.temporal.windows_sec

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
batch = model.collate([Frames(model.backbone).row([s]) for s in val[:2]]).to(device)
forward = model(batch)
prediction = forward.predictions["temporal"]
scene = prediction.scene
shapes = {"frames": scene.frames.shape, "text": scene.text.shape, "dummies": scene.dummies.shape}
pd.DataFrame(shapes, index=["slot", "token", "width"]).T

# %%
words = forward.visuals["temporal"].query_valid.sum(-1)
assert torch.equal(scene.text_valid.sum(-1), words + 1), "the words of each question, and the task embedding behind them"
assert scene.frames.shape[1] == len(batch.slots["temporal"].clips[0].times_sec), "one token for each frame"

# %% [markdown]
# Each frame also gets a first guess, by the thing's changes alone, whether it belongs to the moment: the *glance*. It has a loss of its own, and the decoder's proposals start from the likeliest windows by it: of all windows from the start of one frame to the end of another, those whose frames' logits have the largest sum, near doubles left out.
#
# **Predict**: before any training, is the best of these windows short or long, and why?

# %%
ends = prediction.cells_sec / prediction.duration_sec[:, None, None]
guess = likeliest_windows(prediction.glance_logits, ends, prediction.frame_valid, head.settings.queries, head.settings.nms_iou)
pd.DataFrame(guess[0].tolist(), columns=["centre", "width"]).round(2)

# %%
cells = torch.linspace(0, 1, 5).unfold(0, 2, 1)[None]  # four frames with their ends
surest = likeliest_windows(torch.tensor([[-3.0, 2, 2, -1]]), cells, torch.ones(1, 4).bool(), count=1, nms_iou=0.7)
assert surest.tolist() == [[[0.5, 0.5]]], "the second and third frame: half of the clip, around its middle"

# %% [markdown]
# ## 2. Dummies take what the text does not speak of
#
# Every frame looks at the text. A softmax makes it look *somewhere*, even where the question has nothing to do with it. So *dummy tokens*, made from the question, stand beside the words: a frame outside the moment is to look at them. What share of a frame's attention goes to real words is then a first guess of the moment.

# %%
clips = list(batch.slots["temporal"].clips)
decoded = head.decode(prediction, clips, batch.slots["temporal"].answer)
curves = {name: tuple(torch.tensor(decoded[0][name]).T.tolist()) for name in ("attention", "saliency")}
line_chart([Panel("before training", curves)], x_label="seconds")

# %%
columns = prediction.attention.shape[-1]
assert columns == head.settings.dummies + scene.text.shape[1], "a column for each dummy and each token of the text"
total = prediction.attention[0].sum(-1)
assert torch.allclose(total, torch.ones_like(total), atol=1e-5), "each frame shares out exactly one"

# %% [markdown]
# ## 3. Proposals
#
# The decoder starts from those windows and refines them layer by layer, each time looking at the frames. Every proposal is a centre and a width, both as shares of the clip, with the probability that something is there. That probability starts from how well the proposal's window agrees with the glance: while matching hands the true window now to one proposal and now to another, none of them learns to tell a good window from a bad one, and the first guess knows better.

# %%
spans_sec = cw_to_sec(prediction.spans_cw[:, 0], clips[0].duration_sec)
probability = prediction.class_logits[-1, 0].softmax(-1)[:, 0]
layers = {f"layer {n}": [f"{a:.2f} to {b:.2f}" for a, b in spans.tolist()] for n, spans in enumerate(spans_sec, 1)}
pd.DataFrame({**layers, "something there": probability.tolist()})

# %% [markdown]
# ## 4. What it learns from
#
# *One* proposal answers for each true window: the cheapest by position, overlap and probability together (Hungarian matching). All others are to say "nothing". Where the window lies is learned by more of them: by the one that answers, and by each that starts near it, with an IoU of 0.3 or more; otherwise refinement would only ever be taught to one, and would draw good starts away.
#
# **Predict**: there is one true window and five proposals. Which of them learn to move, and which learn to be silent?

# %%
target = model.targets(batch)["temporal"]
found = head.match(prediction, target)
names = ("layer", "slot", "query", "window")
pd.DataFrame({name: getattr(found, name).tolist() for name in names})

# %%
true = int(target.window_valid.sum())
assert len(found.query) == true * head.settings.decoder_layers, "each layer has one proposal for each true window"

# %% [markdown]
# Beside the windows there are terms for the glance, for the saliency (frames of the moment above the others, and all of them low for a *question of another clip*), for the attention (dummies outside, words inside), and for the alignment of the moment with the sentence. Each is a named value with a named weight.

# %%
values = {name: term.mean().item() for name, term in head.losses(prediction, target).items() if len(term)}
weights = head.weights()
table = pd.DataFrame({"value": values, "weight": {name: weights[name] for name in values}})
table.assign(share=table.value * table.weight).sort_values("share", ascending=False).head(8)

# %%
alone = model.collate([Frames(model.backbone).row([val[0]])]).to(device)
lonely = head.losses(model(alone).predictions["temporal"], model.targets(alone)["temporal"])
assert len(lonely["saliency_negative"]) == 0, "a single clip has no question of another clip: that term has no value"

# %% [markdown]
# ## 5. Before and after training
#
# R1@0.5 is the share of questions whose *first* window overlaps a true one with an IoU of 0.5 or more. HIT@1 is the share whose highest frame is a highlight.
#
# **Predict**: what R1@0.5 does a head get that always says "the whole clip"?

# %%
before = tpo.evaluate(model, val)
timed = [s for s in val if s.targets.temporal]
whole = [max(end - start for start, end in s.targets.temporal.windows_sec) / s.media.duration_sec for s in timed]
print(f"always the whole clip: R1@0.5 {sum(share >= 0.5 for share in whole) / len(whole):.1%}")

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
# ## 6. Predictions over the frames
#
# As in Figure 7 of the paper: the true window is green, the model's first window and its saliency orange.

# %%
asked = {s.id: s for s in timed}
answered = [record for record in after.records if record.id in asked]
for record in answered[:12:4]:
    print(record.question, "->", record.text)
    display(window_picture(asked[record.id], record.forced["temporal"]))

# %%
forward = model(batch)
with torch.no_grad():
    share = head.diagnostics(forward.predictions["temporal"], model.targets(batch)["temporal"])
share

# %%
gain = after.scores["temporal"]["teacher_forced"]["miou"] - before.scores["temporal"]["teacher_forced"]["miou"]
print(f"mean IoU, route given: {gain:+.3f}")
assert steps or gain > 0, f"the whole stage improves the windows, got {gain:+.3f}"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores}
emit(out, notebook="21_temporal_head", stages=["2.temporal"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | part | sees | gives |
# |---|---|---|
# | pointing | patches, the states of the video's tokens, the task embedding | each frame as the thing that is asked about, and how it changes |
# | dummy tokens | the question | a place for the attention of frames that the question does not speak of |
# | adaptive cross-attention | frames, words, dummies | frames that know how much they belong to the question |
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
