# %% [markdown]
# # Stage 2: the mask head
#
# *What* does it cover, and *where* does it go? A box says little about a ring, and nothing about the frame after it. SAM2 knows how to outline and follow anything, once somebody points. Who points here is the language model: the mask head turns the task embedding into the tokens that SAM2's prompt encoder would have made of a box.
#
# You will see what goes into SAM2, on which frame it is prompted, how a loss on the last frame finds its way back to the words, and what training changes.
#
# **Time and hardware**: about five minutes on two CPU cores; a GPU is used where there is one.

# %% tags=["parameters"]
data: str = ""  # folder with train.jsonl and val.jsonl; "" makes the synthetic world in ../runs/world
checkpoint: str = ""  # from 21_temporal_head; "" starts from the shipped backbone
out: str = "../runs/22_mask_head"  # folder of this run: checkpoints, metrics, result.json
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
from tpo_lab.notebooks import emit, open_run, progress_line
from tpo_lab.report import loss_chart, mask_picture, pointing_picture
from tpo_lab.sam2 import Tracker

# %%
if threads:
    torch.set_num_threads(threads)
torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"
device

# %%
folder = world_data(data or "../runs/world", seed=seed)
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
# ## 2. Which frame?
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
# ## 3. A loss on the last frame
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
pd.Series(norms, name="gradient norm").rename_axis("frame of the loss").to_frame()

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
# ## 4. Before and after training
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
# ## 5. Masks over the frames
#
# The outline, or the box of what was only to be followed, is the truth, in green; the veil is the model's mask. What the user pointed at, with a box, a point or a scribble, is white. The language model sees a drawing twice: as a token where the question mentions it, and beside the task token.

# %%
asked = {s.id: s for s in val}
shown = [record for record in after.records if record.forced.get("mask")]
for record in [*shown[:8:4], *shown[-5::4]]:
    print(record.question, "->", record.text)
    display(mask_picture(asked[record.id], record.forced["mask"]))

# %%
gain = after.scores["mask"]["teacher_forced"]["j&f"] - before.scores["mask"]["teacher_forced"]["j&f"]
print(f"J&F, route given: {gain:+.3f}")
assert steps or gain > 0, f"the whole stage improves the masks, got {gain:+.3f}"

# %%
scores = {"headline": after.headline(), "before": before.scores, "after": after.scores, "gradient_norms": norms}
emit(out, notebook="22_mask_head", stages=["2.mask"], checkpoint=str(run.path / "checkpoint"), **scores)

# %% [markdown]
# ## Summary
#
# | part | sees | gives | learns in stage 2 |
# |---|---|---|---|
# | image encoder | a frame | features, once for all that is asked | no |
# | mask adapter | the task embedding, and the patch it points at | three prompt tokens | yes |
# | mask decoder | features, tokens | masks, what their IoU may be, whether the thing is there | no |
# | memory | the last six frames and the prompted one | features that know what to look for | no |
#
# **Exercises**
#
# 1. Train with `tpo.recipe(recipe_name).replace(**{"switches.mask_loss": "official"})`, which compares tokens alone. What does J&F lose, and where: in the prompted frame, or in the others?
# 2. Let the mask decoder learn too: `recipe.replace(**{"2.mask.learning_rates": {**stage.learning_rates, "heads.mask.sam.mask_decoder.*": 1e-4}})` with `stage = recipe.stage("2.mask")[0]`. Does it help, and is the tracker still good at following boxes that a user draws?
#
# Next: [40_joint_training](40_joint_training.ipynb), with `checkpoint` set to this run's `run/2.mask/checkpoint`.
