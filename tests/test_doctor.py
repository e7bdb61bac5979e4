"""The doctor's report: true about what is here, a sentence about what is not, and never an exception."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console

from tpo_lab import doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def install(folder: Path, name: str, number: str, source: str) -> None:
    """Puts a package of one file, with its metadata, where `folder` is on the path."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-{number}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def part(report: doctor.Report, name: str) -> doctor.Part:
    return next(part for part in report.parts if part.name == name)


def text_of(report: doctor.Report) -> str:
    """The rendered report as one line, so that a sentence is found however the table wraps it."""
    console = Console(width=400, no_color=True)
    with console.capture() as capture:
        console.print(doctor.render(report))
    return " ".join(capture.get().split())


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def test_examine_gives_the_versions_that_are_installed(report: doctor.Report):
    found = {package.name: package.version for package in report.packages}
    assert found == {name: version(name) for name in doctor.REQUIRED}
    assert report.python == ".".join(map(str, sys.version_info[:3]))


def test_required_packages_equal_the_dependencies_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [f"{name}>={minimum}" if minimum else name for name, minimum in doctor.REQUIRED.items()] == declared


def test_install_hints_name_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {row.install.split("[")[1].split("]")[0] for row in doctor._OPTIONAL}
    assert named <= set(extras)
    assert named >= {"demo", "notebooks", "widgets", "decord", "sam2"}


def test_cpu_is_the_first_device_and_has_a_name_and_memory(report: doctor.Report):
    cpu = report.devices[0]
    assert cpu.kind == "cpu"
    assert cpu.name
    assert cpu.memory_gib is None or 0.1 < cpu.memory_gib < 100_000


def test_report_survives_a_json_round_trip(report: doctor.Report):
    document = report.as_dict()
    assert json.loads(json.dumps(document)) == json.loads(json.dumps({"ok": report.ok, **dataclasses.asdict(report)}))
    assert set(document) == {"ok", "tpo_lab", "python", "platform", "packages", "devices", "parts", "codecs", "problems"}


def test_report_is_frozen(report: doctor.Report):
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.python = "2.7"


def test_codecs_are_those_that_pyav_can_open(report: doctor.Report):
    import av

    for codec in report.codecs:
        if codec.present:
            opened = av.codec.Codec(codec.name, codec.direction[0])
            assert opened.is_encoder if codec.direction == "write" else opened.is_decoder, codec.name
        else:
            with pytest.raises(ValueError, match=codec.name):
                av.codec.Codec(codec.name, codec.direction[0])


def test_unknown_codec_is_reported_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_CODECS", (("h264", "read", "files"), ("nonesuch", "write", "nothing")))
    codecs, problem = doctor._codecs()
    assert [(codec.name, codec.present) for codec in codecs] == [("h264", True), ("nonesuch", False)]
    assert problem == ""


def test_missing_optional_part_says_its_cost_and_the_extra_and_is_no_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    report = doctor.examine()
    papermill = part(report, "papermill")
    assert (papermill.state, papermill.version) == ("missing", None)
    assert "`tpo-lab demo`" in papermill.cost
    assert papermill.install == "pip install 'tpo-lab[demo]'"
    assert not any("papermill" in problem for problem in report.problems)
    assert "pip install 'tpo-lab[demo]'" in text_of(report)


def test_every_cost_is_one_sentence():
    for row in doctor._OPTIONAL:
        assert row.cost.endswith("."), row.module
        assert ". " not in row.cost, row.module


def test_present_optional_part_shows_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "decord", "7.8.9", "")
    monkeypatch.syspath_prepend(tmp_path)
    decord = doctor._optional(next(row for row in doctor._OPTIONAL if row.module == "decord"))
    assert (decord.state, decord.version, decord.detail) == ("present", "7.8.9", "")


def test_installed_part_that_cannot_be_imported_is_broken_not_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "decord", "7.8.9", "raise OSError('libavcodec.so.58: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    decord = doctor._optional(next(row for row in doctor._OPTIONAL if row.module == "decord"))
    assert decord.state == "broken"
    assert decord.detail == "OSError: libavcodec.so.58: cannot open shared object file"
    assert "decord" not in sys.modules


def test_import_that_kills_the_process_is_reported_with_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "decord", "7.8.9", "import os; os._exit(87)")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor._import_error("decord") == "the process ended with status 87"


def test_broken_torchvision_is_a_problem_that_explains_the_misleading_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "torchvision", "0.28.0", "raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    problem = doctor._torchvision_problem()
    assert "torchvision 0.28.0" in problem
    assert "operator torchvision::nms does not exist" in problem
    assert "Are this object's requirements defined correctly?" in problem
    assert "pip uninstall torchvision" in problem


def test_working_torchvision_and_no_torchvision_are_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "torchvision", "0.28.0", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor._torchvision_problem() == ""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert doctor._torchvision_problem() == ""


@pytest.mark.parametrize(
    ("text", "release"),
    [("2.13.0+cpu", (2, 13, 0)), ("5.0rc1", (5, 0)), ("2", (2,)), ("1.2.dev3", (1, 2)), ("", ())],
)
def test_release_reads_the_leading_numbers(text: str, release: tuple[int, ...]):
    assert doctor._release(text) == release


@pytest.mark.parametrize(("installed", "ok"), [("2.8.1", False), ("2.9", True), ("2.9.0+cpu", True), ("2.13.0", True), ("10.0", True)])
def test_versions_are_compared_as_numbers(installed: str, ok: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_version", lambda name: installed)
    assert doctor._package("torch", "2.9").ok is ok


def test_package_that_is_too_old_or_absent_is_a_problem_with_both_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_version", {"torch": "2.8.1"}.get)
    assert doctor._package_problem(doctor._package("torch", "2.9")).startswith("torch 2.8.1 is too old, TPO Lab needs 2.9 or newer")
    assert doctor._package_problem(doctor._package("peft", "")).startswith("peft is not installed")


def test_shipped_files_are_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PACKAGE", tmp_path / "tpo_lab")
    weights = doctor._SHIPPED[0]
    assert doctor._shipped(*weights).state == "missing"
    for folder in ("tpo_lab/_data/nano", "data/nano"):
        file = tmp_path / folder / "base" / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
        assert doctor._shipped(*weights).state == "present", folder
        file.unlink()
    assert doctor._shipped(*weights).state == "missing"


def test_without_torch_and_pyav_examine_still_reports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "av.codec", None)
    report = doctor.examine()
    assert not report.ok
    assert [device.kind for device in report.devices] == ["cpu"]
    assert report.codecs == ()
    assert any("torch cannot be used" in problem for problem in report.problems)
    assert any("no video can be read" in problem for problem in report.problems)
    assert "Problem: torch cannot be used" in text_of(report)


def test_with_nothing_installed_examine_names_every_required_package():
    """A process without any third-party package: the plainest machine there is."""
    code = "import json, sys; sys.path.insert(0, sys.argv[1])\nfrom tpo_lab.doctor import examine\nprint(json.dumps(examine().as_dict()))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["ok"] is False
    for name in doctor.REQUIRED:
        assert any(problem.startswith(f"{name} is not installed") for problem in document["problems"]), name
    assert {entry["state"] for entry in document["parts"] if entry["name"] in {"papermill", "sam2", "plotly"}} == {"missing"}


def test_render_shows_each_package_device_part_and_codec(report: doctor.Report):
    shown = text_of(report)
    for name in (*doctor.REQUIRED, *(p.name for p in report.parts), *(c.name for c in report.codecs), report.devices[0].name):
        assert name in shown
    assert ("No problems found." in shown) is report.ok


def test_render_prints_brackets_of_names_as_they_are(report: doctor.Report):
    odd = dataclasses.replace(report, devices=(doctor.Device("cuda", "GPU [rev 2]", 139.8, True),), problems=("peft [x] is missing",))
    shown = text_of(odd)
    assert "GPU [rev 2]" in shown
    assert "139.8 GiB" in shown
    assert "Problem: peft [x] is missing" in shown
