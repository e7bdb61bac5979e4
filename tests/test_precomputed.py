"""Features from files: what is found and read, which second each row belongs to, and that training, evaluation and answers see the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tpo_lab as tpo
from tpo_lab import checkpoint
from tpo_lab.answer import Answerer
from tpo_lab.asking import ask
from tpo_lab.errors import UsageError
from tpo_lab.evaluation import evaluate
from tpo_lab.heads import CGDETRHead, CGDETRSettings, Visual, build_head
from tpo_lab.heads.sliding import Sliding
from tpo_lab.media import Frames
from tpo_lab.model import TPOModel
from tpo_lab.precomputed import FeatureFiles, FeatureFolder, read_features
from tpo_lab.recipes import Recipe
from tpo_lab.sample import Media, Sample, Turn, read
from tpo_lab.stages import Lora, Stage
from tpo_lab.training import fit

KINDS = ({"folder": "slow", "width": 6}, {"folder": "clip", "width": 5})
TINY = {"dim": 16, "heads": 2, "feedforward_dim": 20, "dummies": 6, "queries": 4, "prototypes": 3, "input_dropout": 0.0, "drop_path": 0.0}
SPEC = {"name": "temporal", "head": "cg-detr", "features": KINDS, "step_sec": 2.0, **TINY}
QUERIES = (
    {"qid": 1, "query": "a man walks", "duration": 30, "vid": "abc_0.0_30.0", "relevant_windows": [[4, 10]], "first": 2, "clips": 3},
    {
        "qid": 2,
        "query": "two dogs",
        "duration": 24,
        "vid": "x-_y_6.0_30.0",
        "relevant_windows": [[0, 2], [20, 24]],
        "first": 10,
        "clips": 2,
    },
)


def files(*folders: FeatureFolder, step_sec: float = 2.0) -> FeatureFiles:
    return FeatureFiles(folders=folders or (FeatureFolder(folder="clip", width=5),), step_sec=step_sec)


def sample(root: Path, **media: Any) -> Sample:
    shown = Media(**{"path": "videos/a.mp4", **media})
    return Sample(id="s", media=shown, conversation=(Turn(role="user", text="When?"),)).at(root)


def put(path: Path, values: Any) -> Tensor:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(values, path)
    elif path.suffix == ".npz":
        np.savez(path, **(values if isinstance(values, dict) else {"features": np.asarray(values)}))
    else:
        np.save(path, values)
    return values if isinstance(values, Tensor) else torch.as_tensor(np.zeros(0))


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.npy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_format_gives_back_the_rows(tmp_path: Path, name: str, dtype: torch.dtype):
    rows = put(tmp_path / name, torch.randn(3, 5).to(dtype))
    found = read_features(tmp_path / name, 5)
    assert found.dtype == torch.float32 and torch.equal(found, rows.float())


def test_a_file_of_several_arrays_is_read_by_name(tmp_path: Path):
    rows = torch.randn(3, 5)
    put(tmp_path / "a.npz", {"features": rows.numpy(), "times": np.arange(3)})
    put(tmp_path / "b.pt", {"vid": rows})
    assert torch.equal(read_features(tmp_path / "a.npz", 5), rows) and torch.equal(read_features(tmp_path / "b.pt", 5), rows)
    put(tmp_path / "c.npz", {"early": rows.numpy(), "late": rows.numpy()})
    with pytest.raises(UsageError, match=r"c\.npz: expected one array, or one called \"features\", got \['early', 'late'\]"):
        read_features(tmp_path / "c.npz", 5)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("a.pt", torch.zeros(5), r"a\.pt: expected at least one row, \[step, 5\], got \(5,\)"),
        ("a.npy", np.zeros((0, 5)), r"expected at least one row, \[step, 5\], got \(0, 5\)"),
        ("a.npz", np.zeros((3, 4)), r"expected at least one row, \[step, 5\], got \(3, 4\)\. The width is set beside the folder"),
        ("a.pt", torch.full((2, 5), torch.nan), "expected finite numbers, got 'NaN or infinity in 2 of 2 rows'"),
        ("a.npy", np.array([["1"] * 5]), r"expected a \.npy file with numbers, got .TypeError"),
        ("a.npy", np.full((2, 5), 1j), r"expected real numbers, got torch\.complex128"),
        ("a.pt", ["rows"], r"expected an array \[step, width\], got 'list'"),
        ("a.npy", np.array([[print] * 5]), r"expected a \.npy file with numbers, got .ValueError: Object arrays cannot be loaded"),
        ("a.pt", Path("code"), r"expected a \.pt file with numbers, got .UnpicklingError"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused_by_name(tmp_path: Path, name: str, values: Any, message: str):
    put(tmp_path / name, values)
    with pytest.raises(UsageError, match=message):
        read_features(tmp_path / name, 5)


@pytest.mark.parametrize("name", ["a.pt", "a.npz", "a.npy"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UsageError, match=rf"{name}: expected a \.\w+ file with numbers, got .* Write the file again"):
        read_features(tmp_path / name, 5)


def test_kinds_stand_side_by_side_and_the_shorter_rules(tmp_path: Path):
    slow, clip = put(tmp_path / "slow/a.pt", torch.randn(7, 6)), put(tmp_path / "clip/a.npz", torch.randn(5, 5))
    both = files(*(FeatureFolder(**kind) for kind in KINDS))
    found = both.load(sample(tmp_path), duration_sec=11.0)
    assert both.widths == (6, 5) and torch.equal(found.values, torch.cat([slow[:5], clip], dim=-1))
    assert found.times_sec == (1.0, 3.0, 5.0, 7.0, 9.0)
    put(tmp_path / "slow/a.pt", torch.randn(10, 6))
    with pytest.raises(UsageError, match=r"slow/a\.pt: expected 5 rows as in .*clip/a\.npz, or up to 4 more, got 10"):
        both.load(sample(tmp_path), duration_sec=11.0)


def test_rows_outside_the_sample_s_part_are_left_out(tmp_path: Path):
    rows = put(tmp_path / "clip/a.pt", torch.randn(10, 5))
    found = files().load(sample(tmp_path, start_sec=3.0, end_sec=10.5), duration_sec=7.5)
    assert found.times_sec == (0.0, 2.0, 4.0, 6.0) and torch.equal(found.values, rows[1:5])
    short = files().load(sample(tmp_path, start_sec=3.2, end_sec=3.6), duration_sec=0.4)
    assert short.times_sec == (0.0,) and torch.equal(short.values, rows[1:2])


@pytest.mark.parametrize(("rows", "accepted"), [(10, False), (11, True), (15, True), (19, True), (20, False)])
def test_a_file_of_another_rate_is_refused(tmp_path: Path, rows: int, accepted: bool):
    put(tmp_path / "clip/a.pt", torch.randn(rows, 5))
    if accepted:
        assert len(files().load(sample(tmp_path), duration_sec=30.0).times_sec) == min(rows, 15)
        return
    with pytest.raises(
        UsageError, match=rf"clip/a\.pt: expected about 15 rows, one for each 2 s up to second 30 .*, got {rows}\. Check step_sec"
    ):
        files().load(sample(tmp_path), duration_sec=30.0)


def test_the_longest_end_of_the_path_names_the_file(tmp_path: Path):
    near, far = put(tmp_path / "clip/videos/a.npy", torch.zeros(4, 5)), put(tmp_path / "clip/a.pt", torch.ones(4, 5))
    assert torch.equal(files().load(sample(tmp_path), 8.0).values, near)
    assert torch.equal(files().load(sample(tmp_path, path="/elsewhere/a.webm"), 8.0).values, far)
    assert torch.equal(files().load(sample(tmp_path, path="other/a/*.jpg"), 8.0).values, far)
    dotted = put(tmp_path / "clip/j7_360.0_510.0.npz", torch.full((4, 5), 2.0))
    assert torch.equal(files().load(sample(tmp_path, path="j7_360.0_510.0.mp4"), 8.0).values, dotted)


def test_missing_files_are_named_with_the_way_out(tmp_path: Path):
    with pytest.raises(
        UsageError, match=r"sample s: features: expected .*clip/a\.pt\|\.npz\|\.npy, got 'no such folder'\. Relative folders start"
    ):
        files().load(sample(tmp_path), 8.0)
    (tmp_path / "clip").mkdir()
    with pytest.raises(UsageError, match="got 'no such file'"):
        files().load(sample(tmp_path), 8.0)
    with pytest.raises(UsageError, match="expected media that are files, got 'world://x'"):
        files().load(sample(tmp_path, path="world://x"), 8.0)


def test_the_head_sees_each_kind_at_length_one_and_the_ends_of_each_row():
    head = CGDETRHead(24, CGDETRSettings(features=KINDS, **TINY))
    seen: list[Tensor] = []
    head.network.frame_projection.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    raw = torch.randn(2, 3, 11) * 7
    raw[1, 2] = 0
    visual = Visual(
        times_sec=torch.tensor([[1.0, 3.0, 5.0]]).repeat(2, 1),
        frame_valid=torch.ones(2, 3, dtype=torch.bool),
        duration_sec=torch.tensor([6.0, 7.5]),
        size_wh=torch.ones(2, 2),
        answer=torch.arange(2),
        frame_features=raw[:, :, None],
        query_features=torch.randn(2, 4, 24),
        query_valid=torch.ones(2, 4, dtype=torch.bool),
    )
    for training in (True, False):
        head.train(training).predict(torch.randn(2, 24), visual)
    ends = np.array([[[0, 2], [2, 4], [4, 6]], [[0, 2], [2, 4], [4, 7.5]]]) / np.array([6.0, 7.5])[:, None, None]
    kinds = [part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-5) for part in (raw[..., :6].numpy(), raw[..., 6:].numpy())]
    expected = np.concatenate([*kinds, ends], axis=-1)
    assert all(np.allclose(found.detach().numpy(), expected, atol=1e-6) for found in seen) and len(seen) == 2


def test_a_spec_keeps_the_folders_and_their_widths():
    head = build_head(SPEC, 24)
    again = build_head(json.loads(json.dumps(head.spec())), 24)
    assert again.settings == head.settings and again.features == files(*(FeatureFolder(**kind) for kind in KINDS))
    assert head.settings.vision_dim == 11 and again.network.frame_projection[0].normalized_shape == (13,)
    assert build_head({**SPEC, "features": [], "vision_dim": 4}, 24).features is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vision_dim": 12}, "vision_dim: expected 11, the sum of the widths of `features`, or nothing, got 12"),
        ({"step_sec": 0.0}, r"step_sec: expected above 0|features: step_sec: expected a number > 0"),
        ({"features": [{"folder": "clip"}]}, "features: expected the fields folder, width.*Missing: width"),
        ({"features": [{"folder": "clip", "width": 0}]}, "features: width: expected a number >= 1, got 0"),
        ({"features": ["clip"]}, "features: expected a table with the fields of FeatureFolder, got 'clip'"),
    ],
)
def test_settings_that_name_no_files_are_refused(changed: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        build_head({**SPEC, **changed}, 24)


def test_a_recipe_decides_what_cg_detr_sees_and_a_spec_wins():
    paper, nano = tpo.recipe("paper"), tpo.recipe("nano")
    plain = {"name": "temporal", "head": "cg-detr", **TINY}
    published = tpo.build(heads=(plain,), recipe=paper).head("temporal")
    assert published.features == files(FeatureFolder(folder="internvideo2-6b", width=768), step_sec=1.0)
    chosen = tpo.build(heads=(SPEC,), recipe=paper).head("temporal")
    assert chosen.features is not None and (chosen.features.widths, chosen.features.step_sec) == ((6, 5), 2.0)
    own = tpo.build(heads=(plain,), recipe=nano)
    assert own.head("temporal").features is None and own.head("temporal").settings.vision_dim == own.backbone.vision_size


def write_data(folder: Path, queries: Sequence[dict[str, Any]]) -> Path:
    """Annotations of QVHighlights as samples, a grey clip for each video, and random features of two kinds, one of them a row longer."""
    from tpo_lab.video import write_clip

    lines = []
    for query in queries:
        count, grades = int(query["duration"] / 2), {}
        if "saliency_scores" in query:
            grades = dict(zip(query["relevant_clip_ids"], [sum(each) / 3 for each in query["saliency_scores"]], strict=True))
        else:
            grades = {query["first"] + place: 4.0 - place for place in range(query["clips"])}
        target = {
            "windows_sec": query["relevant_windows"],
            "saliency": {"step_sec": 2.0, "scores": [float(grades.get(place, 0.0)) for place in range(count)]},
        }
        talk = [{"role": "user", "text": query["query"]}, {"role": "assistant", "text": "<temporal>"}]
        media = {"path": f"videos/{query['vid']}.mp4"}
        lines.append(json.dumps({"id": str(query["qid"]), "media": media, "conversation": talk, "targets": {"temporal": target}}))
        random = np.random.default_rng(query["qid"])
        write_clip(folder / media["path"], np.full((count, 32, 48, 3), query["qid"] % 256, dtype=np.uint8), fps=0.5)
        put(folder / f"slow/{query['vid']}.npz", random.normal(size=(count + 1, 6)).astype(np.float16))
        put(folder / f"clip/{query['vid']}.pt", torch.from_numpy(random.normal(size=(count, 5))).float())
    path = folder / "train.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def trained(model: TPOModel, samples: Sequence[Sample], out: Path) -> TPOModel:
    """Two epochs of the temporal head's stage, saved and loaded again."""
    stage = Stage(
        name="2.temporal",
        title="the temporal head",
        learning_rates={"llm.lora.*": 1e-3, "heads.temporal.*": 1e-3, "tokens.task.temporal": 1e-3},
        data={"temporal": 1.0},
        losses={"mlm": 1.0, "assign": 1.0, "temporal": 1.0},
        epochs=2,
        batch_size=2,
        precision="fp32",
    )
    lora = Lora(rank=2, dropout=0.0, targets=("q_proj",))
    run = fit(model, samples, Recipe(name="small", stages=(stage,), lora=lora, frames=4, resolution=64), out)
    lines = run.metrics()
    assert len(lines) == 2 * -(-len(samples) // 2)
    assert all(np.isfinite(line["loss"]) and line["gradient/temporal"] > 0 for line in lines)
    return checkpoint.load(out / "checkpoint")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Visual]:
    """What the temporal head was shown, call by call."""
    shown: list[Visual] = []
    predict = CGDETRHead.predict
    monkeypatch.setattr(CGDETRHead, "predict", lambda self, embedding, visual: shown.append(visual) or predict(self, embedding, visual))
    return shown


def check_answers(model: TPOModel, samples: Sequence[Sample], script: Callable[..., None], folder: Path) -> None:
    """A model that writes its routes gives windows and saliency, in seconds of the clip and on the rows of the files."""
    rows = [Frames(model.backbone, features=model.feature_files).row([each]) for each in samples]
    script(model, rows[:1])
    answer, clip = ask(model, samples[0].media_path, samples[0].conversation[0].text, features=folder)
    assert answer.task == "temporal" and len(clip.times_sec) == model.backbone.num_frames
    found = answer.structured["temporal"]
    assert found["scores"] == sorted(found["scores"], reverse=True) and len(found["scores"]) == len(answer.windows_sec) > 0
    assert all(0 <= start <= end <= clip.duration_sec + 1e-3 for start, end in answer.windows_sec)
    assert [time for time, _ in answer.saliency] == [2.0 * place + 1 for place in range(int(clip.duration_sec / 2))]
    assert all(0 < score < 1 for _, score in answer.saliency)


def test_two_epochs_on_features_from_files_and_an_answer(
    tmp_path: Path, build_tiny: Callable[..., TPOModel], script: Callable[..., None], seen: list[Visual]
):
    data = tmp_path / "data"
    samples = read(write_data(data, QUERIES))
    model = trained(build_tiny([SPEC]), samples, tmp_path / "run")
    assert model.head("temporal").settings.widths == (6, 5)
    # behind the last step, the trained model is run once more for later audits
    learnt, forced = seen[-2], evaluate(model, samples).records
    assert [len(record.forced["temporal"]["saliency"]) for record in forced] == [15, 12]
    check_answers(model, samples, script, data)
    assert learnt.frame_features is not None and learnt.frame_valid.sum(-1).tolist() in ([15, 12], [12, 15])
    order = learnt.frame_valid.sum(-1).tolist().index(15)
    for visual in seen[-3:]:  # teacher-forced, for the script, and for the answer
        assert visual.frame_features is not None
        row = visual.frame_valid.sum(-1).tolist().index(15)
        assert torch.equal(visual.frame_features[row], learnt.frame_features[order])
        assert torch.equal(visual.times_sec[row], learnt.times_sec[order])


def test_two_epochs_on_annotations_of_qvhighlights(
    tmp_path: Path, real: Path, build_tiny: Callable[..., TPOModel], script: Callable[..., None]
):
    lines = (real / "qvhighlights/highlight_train_release.head200.jsonl").read_text(encoding="utf-8").splitlines()
    samples = read(write_data(tmp_path / "data", [json.loads(line) for line in lines[:3]]))
    model = trained(build_tiny([SPEC]), samples, tmp_path / "run")
    check_answers(model, samples, script, tmp_path / "data")


@pytest.fixture
def model(build_tiny: Callable[..., TPOModel]) -> TPOModel:
    return build_tiny([SPEC]).eval()


def test_features_are_read_once_and_for_those_who_ask(tmp_path: Path, model: TPOModel, monkeypatch: pytest.MonkeyPatch):
    (one, two) = read(write_data(tmp_path, QUERIES))
    loads: list[str] = []
    load = FeatureFiles.load
    monkeypatch.setattr(FeatureFiles, "load", lambda self, sample, end: loads.append(sample.id) or load(self, sample, end))
    frames = Frames(model.backbone, features=model.feature_files)
    assert torch.equal(frames.row([one]).features["temporal"].values, frames.row([one]).features["temporal"].values)
    assert loads == ["1"]
    talk = (Turn(role="user", text="What is it?"), Turn(role="assistant", text="Grey."))
    plain = two.model_copy(update={"conversation": talk, "targets": type(two.targets)()})
    assert frames.row([plain]).features == {} and loads == ["1"]
    asked = two.model_copy(update={"conversation": two.conversation[:1]})
    assert set(frames.row([asked]).features) == {"temporal"} and loads == ["1", "2"]


def test_annotated_saliency_is_read_at_the_rows_of_the_files(tmp_path: Path, model: TPOModel):
    samples = read(write_data(tmp_path, QUERIES))
    batch = model.collate([Frames(model.backbone, features=model.feature_files).row([each]) for each in samples])
    grades = model.targets(batch)["temporal"].grades
    for row, each in enumerate(samples):
        scores = each.targets.temporal.saliency.scores
        assert grades[row, : len(scores)].tolist() == list(scores)


def test_a_question_to_the_head_about_a_clip_without_features_says_which_are_missing(
    tmp_path: Path, model: TPOModel, script: Callable[..., None]
):
    (first, _) = read(write_data(tmp_path, QUERIES))
    row = Frames(model.backbone, features=model.feature_files).row([first])
    script(model, [row])
    (tmp_path / f"clip/{QUERIES[0]['vid']}.pt").unlink()
    with pytest.raises(
        UsageError, match=r"sample question: features: expected .*clip/abc_0\.0_30\.0\.pt\|\.npz\|\.npy, got 'no such file'"
    ):
        ask(model, first.media_path, first.conversation[0].text, features=tmp_path)
    with pytest.raises(UsageError, match=r"sample 1: features: expected .*got 'no such file'"):
        Frames(model.backbone, features=model.feature_files).row([first])
    question = dataclasses.replace(row, samples=(first.model_copy(update={"conversation": first.conversation[:1]}),), features={})
    (answer,) = Answerer(model).answer([question])
    assert answer.routes == ("temporal",) and answer.structured == {}, "a false route spoils no evaluation"


def test_rows_made_without_features_are_refused(tmp_path: Path, model: TPOModel):
    (first, _) = read(write_data(tmp_path, QUERIES))
    batch = model.collate([Frames(model.backbone).row([first])])
    with pytest.raises(
        UsageError, match=r"sample 1: features: expected those that the temporal head looks at.*features=model\.feature_files"
    ):
        model(batch)


def test_blind_evaluation_hides_the_features(tmp_path: Path, model: TPOModel, seen: list[Visual]):
    samples = read(write_data(tmp_path, QUERIES))
    evaluate(model, samples, blind=True)
    assert seen and all(visual.frame_features is not None and not visual.frame_features.any() for visual in seen)


def test_half_an_hour_of_features_is_read_in_windows(
    tmp_path: Path, build_tiny: Callable[..., TPOModel], script: Callable[..., None], seen: list[Visual]
):
    long = {**QUERIES[0], "duration": 1800, "relevant_windows": [[600.0, 640.0]], "first": 300, "clips": 20}
    samples = read(write_data(tmp_path, [long]))
    model = build_tiny([{**SPEC, "window_frames": 60, "window_overlap": 20}]).eval()
    record = evaluate(model, samples).records[0]
    windows = seen[1:]  # the whole once, as the batch has it; then windows of it
    assert {visual.frame_valid.shape[1] for visual in windows} == {60}
    assert sum(len(visual.times_sec) for visual in windows) == len(range(0, 900 - 60, 40)) + 1
    script(model, [Frames(model.backbone, features=model.feature_files).row(samples)])
    question = samples[0].conversation[0].text
    answer, clip = ask(model, samples[0].media_path, question, features=tmp_path)
    assert clip.duration_sec == pytest.approx(1800)
    assert [time for time, _ in answer.saliency] == [2.0 * place + 1 for place in range(900)]
    forced = record.forced["temporal"]
    np.testing.assert_allclose(answer.windows_sec, forced["windows_sec"], atol=1e-2)
    # asked for: other windows than the head's own, for this question
    calls = len(seen)
    other, _ = ask(model, samples[0].media_path, question, features=tmp_path, sliding=Sliding(frames=100, overlap=50))
    assert {visual.frame_valid.shape[1] for visual in seen[calls:]} == {100}
    assert len(other.saliency) == 900
