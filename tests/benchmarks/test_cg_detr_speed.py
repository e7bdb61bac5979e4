"""One training step of CG-DETR at the published sizes: 32 clips of 75 features, 20 words of 4096 numbers, two threads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from tpo_lab.heads import CGDETRHead, CGDETRSettings, ClipInfo, Visual
from tpo_lab.losses import reduce_mean

SLOTS, FRAMES, TOKENS, WORDS, VISION = 32, 75, 20, 4096, 768
TARGET_SEC, THREADS = 2.0, 2
CLIP = ClipInfo(width=224, height=224, duration_sec=150.0, times_sec=tuple(2.0 * frame + 1 for frame in range(FRAMES)))
PARTS = ("text_projection", "frame_projection", "dummies", "cross", "saliency", "encoder", "decoder", "sentence", "moment")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def test_training_step_at_paper_size(measure, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    head = CGDETRHead(WORDS, CGDETRSettings(vision_dim=VISION)).train()
    visual = Visual(
        times_sec=torch.tensor(CLIP.times_sec).repeat(SLOTS, 1),
        frame_valid=torch.ones(SLOTS, FRAMES, dtype=torch.bool),
        duration_sec=torch.full((SLOTS,), CLIP.duration_sec),
        size_wh=torch.full((SLOTS, 2), 224.0),
        answer=torch.arange(SLOTS),
        frame_features=torch.randn(SLOTS, FRAMES, 1, VISION),
        query_features=torch.randn(SLOTS, TOKENS, WORDS),
        query_valid=torch.ones(SLOTS, TOKENS, dtype=torch.bool),
    )
    starts = (100 * torch.rand(SLOTS)).tolist()
    items = [head.encode_target({"windows_sec": [[start, start + 30.0]]}, CLIP) for start in starts]
    target, embedding, weights = head.collate_targets(items, [1] * SLOTS, "cpu"), torch.randn(SLOTS, WORDS), head.weights()
    spent: dict[str, float] = {}

    def step() -> None:
        spent.clear()
        marks = [time.perf_counter()]
        prediction = head(embedding, visual)
        marks.append(time.perf_counter())
        values = head.losses(prediction, target)
        loss = sum((weights[term] * reduce_mean(each) for term, each in values.items()), torch.zeros(()))
        marks.append(time.perf_counter())
        head.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        spent.update({name: marks[place + 1] - marks[place] for place, name in enumerate(("predict", "losses", "backward"))})

    seconds = measure(step, rounds=5)
    phases = dict(spent)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in phases.items()))
        print(", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in forward_times(head, step).items()))
    assert seconds <= TARGET_SEC, phases


def forward_times(head: CGDETRHead, step) -> dict[str, float]:
    """Seconds that each part of the network takes in the forward pass of one step, all its calls together."""
    times, started, hooks = dict.fromkeys(PARTS, 0.0), {}, []
    for name in PARTS:
        module = getattr(head.network, name)

        def enter(_module, _inputs, name=name):
            started[name] = time.perf_counter()

        def leave(_module, _inputs, _output, name=name):
            times[name] += time.perf_counter() - started[name]

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    step()
    for hook in hooks:
        hook.remove()
    return times
