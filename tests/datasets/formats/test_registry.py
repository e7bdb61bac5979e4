"""The formats together: what the pages say of them, and that every tiny folder in data/formats is read whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tpo_lab.datasets.formats import FORMATS
from tpo_lab.sample import validate, write

ROOT = Path(__file__).parents[3]

# By hand from the paper: Tables 1 and 17, and the benchmarks of Tables 2 to 9 and 12.
TRAINED_ON = (
    "didemo queryd hirest activitynet tacos nlq qvhighlights refcoco visual-genome as-v2 mevis sav youcook2"
    " videochat2-it sharegpt-4o sharegpt4v llava-hound"
)
TESTED_ON = "mvbench video-mme nextgqa mlvu mmiu seed-bench-2 charades-sta qvhighlights refcoco mevis ref-youtube-vos davis lasot got10k"

# Where each tiny folder's annotations are, and what must be chosen to read them.
SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "activitynet": ("val.json", {}),
    "as-v2": ("as_v2.json", {}),
    "charades-sta": ("charades_sta_test.txt", {}),
    "davis": ("", {"split": "val"}),
    "didemo": ("val_data.json", {}),
    "got10k": ("", {"split": "val"}),
    "hirest": ("all_data_val.json", {}),
    "lasot": ("", {}),
    "llava-hound": ("sft_dpo_made.jsonl", {}),
    "mevis": ("", {}),
    "mlvu": ("", {}),
    "mmiu": ("", {}),
    "mvbench": ("", {}),
    "nextgqa": ("test.csv", {}),
    "nlq": ("nlq_val.json", {}),
    "queryd": ("train_list.txt", {}),
    "qvhighlights": ("highlight_train_release.jsonl", {}),
    "ref-youtube-vos": ("", {"split": "train"}),
    "refcoco": ("", {}),
    "refcoco-mdetr": ("finetune_refcoco_val.json", {}),
    "sav": ("", {}),
    "seed-bench-2": ("SEED-Bench_made.json", {}),
    "sharegpt-4o": ("gpt-4o.jsonl", {}),
    "sharegpt4v": ("sharegpt4v_made.json", {}),
    "tacos": ("val.json", {}),
    "timeit": ("instruct_tvg.json", {}),
    "video-mme": ("template.json", {}),
    "videochat2-it": ("", {}),
    "visual-genome": ("", {}),
    "youcook2": ("youcookii_annotations_trainval.json", {}),
}


def page_module():
    spec = importlib.util.spec_from_file_location("formats_table", ROOT / "tools" / "formats_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_data_set_of_the_paper_has_a_format():
    assert {*TRAINED_ON.split(), *TESTED_ON.split(), "timeit"} <= set(FORMATS)


def test_the_page_lists_the_formats_as_they_are():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert page == page_module().page(page), "run python tools/formats_table.py"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_a_person_needs_and_has_a_tiny_folder(name: str):
    form = FORMATS[name]
    assert form.name == name and all((form.title, form.home, form.licence, form.layout, form.tasks))
    assert "://" not in form.home + form.layout and set(form.tasks) <= {"temporal", "region", "mask", "conversation"}
    assert any(file.is_file() for file in (ROOT / "data" / "formats" / name).rglob("*"))


def test_every_format_has_a_source_here():
    assert set(SOURCES) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_tiny_files_are_read_validated_and_written(take, same_from_file, name: str, tmp_path: Path):
    file, chosen = SOURCES[name]
    samples, _, _ = take(name, ROOT / "data" / "formats" / name / file, **chosen)
    assert samples
    same_from_file(samples)
    write(tmp_path / "samples.jsonl", samples)
    assert validate(tmp_path / "samples.jsonl") == []
