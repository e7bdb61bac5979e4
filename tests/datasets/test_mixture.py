"""Mixtures: how much of each data set an epoch has, which files are missing, and settings that are wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from tpo_lab.datasets.formats import FORMATS
from tpo_lab.datasets.mixture import is_mixture, mixture
from tpo_lab.errors import UsageError
from tpo_lab.recipes import recipe
from tpo_lab.sample import Sample, write

TURNS = [{"role": "user", "text": "Well?"}, {"role": "assistant", "text": "Yes."}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 40 and 100 samples."""
    for name, count in (("a", 40), ("b", 100)):
        samples = [Sample.model_validate({"id": f"{name}{n}", "media": {"path": "x.mp4"}, "conversation": TURNS}) for n in range(count)]
        write(tmp_path / name / "train.jsonl", samples)
    return tmp_path


def put(folder: Path, groups: object, **datasets: dict) -> Path:
    named = datasets or {"a": {"path": "a/train.jsonl"}, "b": {"path": "b/train.jsonl"}}
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "datasets": named, "stages": {"1": groups}}))
    return path


def counts(folder: Path, groups: object, seed: int = 0) -> Counter[str]:
    return Counter(sample.id[0] for sample in mixture(put(folder, groups)).samples("1", seed=seed))


def test_a_list_takes_everything_once(folder: Path):
    assert counts(folder, [{"of": ["a", "b"]}]) == {"a": 40, "b": 100}


def test_weights_are_visits_in_an_epoch(folder: Path):
    found = mixture(put(folder, [{"of": {"a": 2, "b": 0.5}}])).samples("1")
    ids = Counter(sample.id for sample in found)
    assert max(ids.values()) == 1 and {f"a{n}" for n in range(40)} | {f"a{n}#2" for n in range(40)} < set(ids)
    # half of 100 by the hash of the id: 50, give or take four standard deviations
    assert abs(sum(name.startswith("b") for name in ids) - 50) <= 20
    assert all(sample.media_path == folder / sample.id[0] / "x.mp4" for sample in found)


def test_samples_limits_all_of_a_group_and_depends_on_the_seed_alone(folder: Path):
    groups = [{"of": ["a", "b"], "samples": 70}]
    chosen = [sample.id for sample in mixture(put(folder, groups)).samples("1", seed=3)]
    assert len(chosen) == len(set(chosen)) == 70
    # a share of each by its size, give or take four standard deviations
    assert abs(sum(name.startswith("a") for name in chosen) - 20) <= 14
    again = put(folder, [{"of": ["b", "a"], "samples": 70}])
    assert sorted(sample.id for sample in mixture(again).samples("1", seed=3)) == sorted(chosen)
    assert sorted(sample.id for sample in mixture(again).samples("1", seed=4)) != sorted(chosen)


def test_groups_stand_beside_each_other(folder: Path):
    assert counts(folder, [{"of": ["a"], "samples": 5}, {"of": {"b": 1}, "samples": 1000}]) == {"a": 5, "b": 100}


def test_official_files_are_read_by_their_format(folder: Path):
    tiny = Path(__file__).parents[2] / "data" / "formats"
    path = put(folder, [{"of": ["q"]}], q={"format": "qvhighlights", "path": "qvhighlights/highlight_train_release.jsonl", "media": "."})
    found = mixture(path, root=tiny).samples("1")
    assert len(found) == 3 and found[0].media_path == tiny / "abc_0.0_20.0.mp4" and found[0].targets.temporal


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"name": "x", "datasets": {"a": {"path": "p", "format": "qvh"}}, "stages": {}}, r"datasets\.a: expected one of .*qvhighlights"),
        ({"name": "x", "datasets": {"a": {"path": "p", "fromat": "y"}}, "stages": {}}, r"datasets\.a\.fromat"),
        ({"name": "x", "datasets": {}, "stages": {"1": [{"of": ["b"]}]}}, r"stages\.1\[0\]\.of: one of , not b"),
        ({"name": "x", "datasets": {"b": {"path": "p"}}, "stages": {"1": [{"of": {"b": 0}}]}}, r"greater than 0"),
        ({"name": "x", "datasets": {"b": {"path": "p"}}, "stages": {"1": [{"of": ["b"], "samples": 0}]}}, r"greater than 0"),
        ({"datasets": {}, "stages": {}}, r"name: expected this field"),
        (["a"], r"a mapping with name, datasets and stages"),
        ("a: [", r"expected YAML in UTF-8"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, document: object, message: str):
    path = tmp_path / "m.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    with pytest.raises(UsageError, match=message):
        mixture(path)


def test_unknown_names_are_refused(folder: Path):
    with pytest.raises(UsageError, match=r"Did you mean 'paper'\?"):
        mixture("papr")
    with pytest.raises(UsageError, match="an existing YAML file"):
        mixture(folder / "none.yaml")
    with pytest.raises(UsageError, match="expected one of 1, got '2'"):
        mixture(put(folder, [{"of": ["a"]}])).samples("2")


def test_the_papers_mixture_is_table_17(tmp_path: Path):
    paper = mixture("paper", root=tmp_path)
    assert is_mixture("paper") and not is_mixture("train.jsonl")
    assert set(paper.stages) == {stage.name for stage in recipe("paper").stages}
    rows = {
        stage: [(None if group.samples is None else group.samples / 1000, sorted(group.of)) for group in groups]
        for stage, groups in paper.stages.items()
    }
    spatial = ["as-v2", "refcoco", "refcoco+", "refcocog", "visual-genome"]
    tasks = [(7.5, ["qvhighlights"]), (400, spatial), (116.5, ["mevis", "sav"])]
    conversation = ["llava-hound", "sharegpt-4o", "sharegpt4v", "videochat2-it"]
    assert rows == {
        "1": [(50, ["didemo", "queryd"]), (50, ["refcoco", "refcoco+", "refcocog"]), (50, ["mevis", "sav"])],
        "2.temporal": [(116.5, ["activitynet", "didemo", "hirest", "nlq", "queryd", "tacos"])],
        "2.region": [(540, spatial)],
        "2.mask": [(114.6, ["mevis", "sav"]), (None, ["as-v2-expanded"])],
        "3a": tasks,
        "3b": [*tasks, (40, ["activitynet", "youcook2"]), (3000, conversation)],
    }
    assert {each.format for each in paper.datasets.values()} <= set(FORMATS)


def test_missing_files_are_all_named_with_where_they_belong(tmp_path: Path):
    paper = mixture("paper", root=tmp_path)
    (tmp_path / "didemo" / "videos").mkdir(parents=True)
    missing = [(each.dataset, each.what, each.path) for each in paper.missing("1") if each.dataset == "didemo"]
    assert missing == [("didemo", "path", tmp_path / "didemo" / "train_data.json")]
    with pytest.raises(UsageError) as caught:
        paper.require("1")
    assert str(tmp_path / "refer" / "refcocog") in str(caught.value) and "tpo-lab data formats" in str(caught.value)
