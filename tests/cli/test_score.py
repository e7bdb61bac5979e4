"""`tpo-lab score`: the document, the exit status, and nothing heavy loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "gt.jsonl").write_text("".join(json.dumps({"qid": n, "relevant_windows": [[0, 8]]}) + "\n" for n in range(3)))
    (tmp_path / "pred.json").write_text(json.dumps({str(n): {"timestamp": [[0, 4 + 2 * n]]} for n in range(3)}))
    return ["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt.jsonl")]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from tpo_lab.cli import run; status = run(sys.argv[1:]); "
        "print('heavy:', sorted({'torch', 'transformers'} & sys.modules.keys()), file=sys.stderr); sys.exit(status)"
    )
    return subprocess.run([sys.executable, "-c", code, "score", *words], capture_output=True, text=True, cwd=ROOT)


def test_document_holds_the_agreed_keys_and_nothing_heavy_is_loaded(files):
    done = run("charades-sta", *files, "--bootstrap", "50", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["benchmark", "variant", "options", "counts", "metrics", "detail"]
    assert document["counts"] == {"predictions": 3, "ground_truth": 3, "missing": 0, "extra": 0, "unparsable": 0}
    assert document["metrics"] == pytest.approx({"R1@0.3": 100, "R1@0.5": 100, "R1@0.7": 200 / 3, "mIoU": 75})
    assert document["detail"]["intervals"]["R1@0.5"] == [100, 100]
    assert "heavy: []" in done.stderr


def test_wrong_calls_end_with_status_2_and_one_sentence(call, files):
    done = call("score", "charades", *files)
    assert done.status == 2 and "benchmark: expected one of" in done.err and "got 'charades'" in done.err
    assert len(done.err.strip().splitlines()) == 1
    done = call("score", "charades-sta", "--pred", files[1])
    assert done.status == 2 and "--gt" in done.err


def test_person_sees_a_table(call, files):
    done = call("score", "charades-sta", *files)
    assert done.status == 0 and "mIoU" in done.out and "75.00" in done.out and "ground truth 3" in done.out


def test_help_has_an_example(call):
    assert "tpo-lab score qvhighlights" in call("score", "--help").out
