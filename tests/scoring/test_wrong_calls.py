"""Files that are missing, empty, broken, cut or of another benchmark: one readable sentence and exit status 2, whatever the benchmark."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scoring.samples import NUMBERS, SAMPLES
from tpo_lab import cli
from tpo_lab.errors import UsageError
from tpo_lab.scoring import Report, Request, score

CONTENTS = {
    "nothing": b"",
    "blank": b" \n\n",
    "null": b"null",
    "a number": b"3\n",
    "a text": b'"x"\n',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "a list of lists": b"[[1, 2]]",
    "another object": b'{"a": 1}\n',
    "another list": b'[{"a": 1}]',
    "an object in objects": b'{"a": {"b": {"c": null}}}',
    "lists in an object": b'{"a": [{"question": 3}]}',
    "not UTF-8": b"\xff\xfe\x00caf\xe9",
    "a zero byte": b"\x00",
    "words": b"Lorem ipsum, dolor\nsit amet",
    "deep": b"[" * 3000,
}
MOMENTS = {"qvhighlights", "charades-sta", "activitynet", "tacos", "hirest", "nlq"}
CHOICES = {"mvbench", "video-mme", "mlvu", "mmiu", "seed-bench-2"}
FAMILIES = (MOMENTS, CHOICES, {"davis", "sav", "ref-youtube-vos"}, {"mevis", "ref-youtube-vos"}, {"lasot", "got10k"})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each benchmark with a ground truth and perfect predictions."""
    roots = {}
    for benchmark, sample in SAMPLES.items():
        roots[benchmark] = tmp_path_factory.mktemp(benchmark)
        sample.truth(roots[benchmark]), sample.predict(roots[benchmark], NUMBERS)
    return roots


@pytest.fixture
def root(samples: dict[str, Path], tmp_path: Path, benchmark: str) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(samples[benchmark], tmp_path / "copy"))


def options(benchmark: str, root: Path) -> dict[str, Path]:
    sample = SAMPLES[benchmark]
    return {"pred": root / sample.pred, "gt": root / sample.gt, **{name: root / file for name, file in sample.others}}


def refused(benchmark: str, paths: dict[str, Path]) -> str:
    with pytest.raises(UsageError) as error:
        score(benchmark, Request(**paths))
    message = str(error.value)
    assert "\n" not in message and len(message) < 1500
    return message


def tried(benchmark: str, paths: dict[str, Path]) -> Report | None:
    """A report, or None for a `UsageError`; any other exception fails the test."""
    try:
        return score(benchmark, Request(**paths))
    except UsageError as error:
        assert "\n" not in str(error)
        return None


def files(benchmark: str, root: Path) -> Iterator[Path]:
    """The files that the score reads; of folders every eleventh, and of images only the second frame, since the others may not count."""
    for path in options(benchmark, root).values():
        inside = [each for each in sorted(path.rglob("*")) if each.is_file() and (each.suffix != ".png" or each.stem == "00001")]
        yield from [path] if path.is_file() else inside[::11]


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_a_missing_file_ends_with_status_2_and_one_sentence(samples, benchmark: str):
    for name, path in options(benchmark, samples[benchmark]).items():
        paths = {**options(benchmark, samples[benchmark]), name: path.with_name("none.json")}
        words = [word for option, each in paths.items() for word in (f"--{option.replace('_', '-')}", str(each))]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.run(["score", benchmark, *words])
        assert status == 2 and "none.json" in err.getvalue() and "Traceback" not in err.getvalue() and not out.getvalue()
        assert len(err.getvalue().strip().splitlines()) == 1


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_an_empty_file_or_folder_is_refused_and_named(samples, tmp_path: Path, benchmark: str):
    for name, path in options(benchmark, samples[benchmark]).items():
        empty = tmp_path / path.name
        empty.mkdir() if path.is_dir() else empty.write_text("")
        assert str(empty) in refused(benchmark, {**options(benchmark, samples[benchmark]), name: empty})


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_a_file_for_a_folder_and_a_folder_for_a_file_are_refused(samples, tmp_path: Path, benchmark: str):
    for name, path in options(benchmark, samples[benchmark]).items():
        other = tmp_path / path.name
        other.write_text("x") if path.is_dir() else other.mkdir()
        refused(benchmark, {**options(benchmark, samples[benchmark]), name: other})


@pytest.mark.parametrize("benchmark", SAMPLES)
@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_file_of_the_kind_is_refused(root: Path, benchmark: str, content: str):
    for path in files(benchmark, root):
        whole = path.read_bytes()
        path.write_bytes(CONTENTS[content])
        assert tried(benchmark, options(benchmark, root)) is None, f"{path.name} with {content} was scored"
        path.write_bytes(whole)


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_a_file_that_ends_too_soon_is_refused(root: Path, benchmark: str):
    for path in files(benchmark, root):
        whole = path.read_bytes()
        for share in (0.2, 0.5, 0.8):
            path.write_bytes(whole[: int(len(whole) * share)])
            # by then an ini file may have said what is asked, and a small image have told all its pixels
            tells_all = path.suffix == ".ini" or (path.suffix == ".png" and share > 0.5)
            assert tried(benchmark, options(benchmark, root)) is None or tells_all
        path.write_bytes(whole)


@pytest.mark.parametrize("benchmark", SAMPLES)
def test_a_file_of_another_benchmark_is_refused(samples, benchmark: str):
    kin = {benchmark}.union(*(family for family in FAMILIES if benchmark in family))
    for other in SAMPLES:
        for name in ("pred", "gt"):
            paths = {**options(benchmark, samples[benchmark]), name: options(other, samples[other])[name]}
            report = tried(benchmark, paths)
            assert report is None or other in kin, f"{benchmark} was scored with --{name} of {other}"
