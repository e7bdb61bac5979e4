"""What a user installs: declarations that agree with each other, and a wheel that holds all it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
BY_REQUEST = ("mcp", "decord", "torchcodec", "sam2", "mlflow", "wandb")
"""Extras that no other one contains and that `make` does not install."""


def name_of(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {name_of(line): str(Requirement(line).specifier) for line in lines if line}


def environment_pip() -> list[str]:
    """The pip lines of environment.yml, without pip's options."""
    document = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in document["dependencies"] if isinstance(entry, dict)]
    return [line for line in pip if not line.startswith("-")]


def marked(mark: str) -> list[str]:
    """What stands after `# mark:` in environment.yml."""
    return re.findall(rf"^ *# {mark}: (.+)$", (ROOT / "environment.yml").read_text(), flags=re.MULTILINE)


# declarations


def test_environment_equals_pyproject():
    expected = {*CORE, *EXTRAS["notebooks"], *EXTRAS["demo"], *EXTRAS["widgets"], *EXTRAS["test"]}
    listed = environment_pip()
    assert set(listed) == expected
    assert len(listed) == len(set(listed))


def test_environment_offers_each_extra_by_request():
    assert sorted(marked("optional")) == sorted(line for extra in BY_REQUEST for line in EXTRAS[extra])


def test_environment_names_what_users_look_for():
    named = {name_of(line) for line in (*environment_pip(), *marked("optional"))} | {line.split()[-1] for line in marked("by hand")}
    assert named >= {"jupyterlab", "torch", "transformers", "peft", "sam2", "ipywidgets", "plotly", "pandas", "decord", "papermill"}


def test_environment_asks_for_the_same_python():
    document = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert f"python{PROJECT['project']['requires-python']}" in document["dependencies"]


def test_sam2_is_installed_without_its_dependencies_everywhere_it_is_named():
    commands = marked("by hand") + re.findall(r"^# +(SAM2_\S+ pip .+)$", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    assert set(commands) == {"SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2"}


@pytest.mark.parametrize("requirement", sorted({*CORE, *(line for lines in EXTRAS.values() for line in lines)}))
def test_no_requirement_brings_torchvision_or_sam2(requirement: str):
    assert name_of(requirement) not in {"torchvision", "sam2"}


def test_demo_extra_is_part_of_the_notebooks_extra():
    assert set(EXTRAS["demo"]) <= set(EXTRAS["notebooks"])
    assert set(EXTRAS["widgets"]) <= set(EXTRAS["notebooks"])


def test_every_direct_dependency_is_pinned_inside_its_own_range():
    pinned = pins()
    for requirement in {*CORE, *(line for lines in EXTRAS.values() for line in lines)} - {"tpo-lab[test]", "torchcodec"}:
        specifier = pinned[name_of(requirement)]
        assert specifier.startswith("=="), requirement
        assert Requirement(requirement).specifier.contains(specifier[2:]), f"{requirement} is pinned to {specifier}"


def test_constraints_are_exact_and_carry_no_address_and_no_local_build():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r'[a-z0-9.-]+==[a-z0-9.]+(; python_version >= "3\.11")?', line), line


def test_torch_is_pinned_for_every_python():
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("file", ["pyproject.toml", "environment.yml", "constraints.txt", "Makefile", ".ci/run"])
def test_no_build_file_names_a_download_address(file: str):
    assert "://" not in (ROOT / file).read_text()


def test_every_dependency_has_a_reason_in_contributing():
    rows = re.findall(r"^\| ([a-z0-9-]+) \| ([a-z0-9, ]*) ?\| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    reasons = {package: {extra.strip() for extra in extras.split(",") if extra.strip()} for package, extras, _ in rows}
    declared: dict[str, set[str]] = {name_of(line): set() for line in CORE}
    for extra, lines in EXTRAS.items():
        for line in lines:
            if name_of(line) != "tpo-lab":
                declared.setdefault(name_of(line), set()).add(extra)
    assert {name: reasons.get(name) for name in declared} == declared


def test_readme_opens_with_the_full_name_and_tells_the_other_two_apart():
    readme = (ROOT / "README.md").read_text()
    assert "Task Preference Optimization" in readme.splitlines()[0]
    screen = "\n".join(readme.splitlines()[:40])
    for phrase in ("Temporal Preference Optimization", "Triple Preference Optimization", "make demo", "make test", "tpo.load("):
        assert phrase in screen, phrase


def test_readme_links_lead_somewhere():
    for document in ("README.md", "CONTRIBUTING.md", "notebooks/README.md", "widgets/README.md", "data/README.md"):
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
            assert "://" in target or (folder / target).exists(), f"{document} -> {target}"


def test_ignore_rules_for_folders_are_anchored():
    """A bare `data/` would drop any package called data from the wheel."""
    generated_anywhere = {"__pycache__/", ".ipynb_checkpoints/", "*.egg-info/"}
    rules = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")]
    assert [rule for rule in rules if rule.endswith("/") and not rule.startswith("/") and rule not in generated_anywhere] == []


# the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree as it is now."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: str, target: str) -> set[str]:
    """The files below a folder of the checkout, named as they should be inside the wheel."""
    generated = {"__pycache__", ".ipynb_checkpoints"}
    below = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {f"{target}/{path.as_posix()}" for path in below if generated.isdisjoint(path.parts) and path.suffix != ".pyc"}


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("tpo_lab", "tpo_lab"),
        ("widgets/tpo_widgets", "tpo_widgets"),
        ("notebooks", "tpo_lab/_notebooks"),
        ("data/nano", "tpo_lab/_data/nano"),
        ("data/nano-sam2", "tpo_lab/_data/nano-sam2"),
        ("data/nano-tpo", "tpo_lab/_data/nano-tpo"),
    ],
)
def test_wheel_holds_every_file_of(folder: str, target: str, contents: set[str]):
    expected = files_of(folder, target)
    assert expected, folder
    assert expected - contents == set()


def test_wheel_holds_nothing_else(contents: set[str]):
    expected = files_of("tpo_lab", "tpo_lab") | files_of("widgets/tpo_widgets", "tpo_widgets")
    expected |= files_of("notebooks", "tpo_lab/_notebooks")
    for weights in ("nano", "nano-sam2", "nano-tpo"):
        expected |= files_of(f"data/{weights}", f"tpo_lab/_data/{weights}")
    assert {name for name in contents - expected if ".dist-info/" not in name} == set()


def test_both_packages_are_typed(contents: set[str]):
    assert {"tpo_lab/py.typed", "tpo_widgets/py.typed"} <= contents


def test_wheel_metadata_has_the_version_the_licence_and_the_command(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
    assert "\nVersion: 0.1.0\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "tpo-lab = tpo_lab.cli:main" in entry_points


def test_unpacked_wheel_imports_away_from_the_checkout(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import tpo_lab, tpo_widgets; print(tpo_lab.__version__, tpo_lab.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.1.0", str(site / "tpo_lab" / "__init__.py")]


# make


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_alone_explains_every_target():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make (\w+) +\S", done.stdout, flags=re.MULTILINE) == [
        "help",
        "demo",
        "test",
        "lab",
        "notebooks",
        "lint",
        "bench",
        "clean",
    ]


@needs_make
def test_make_refuses_an_old_python_in_one_line_and_makes_nothing(tmp_path: Path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(["make", "-s", "test", f"PYTHON={old}", f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"TPO Lab needs Python 3.10 or newer, and '{old}' is not that" in done.stderr.splitlines()[0]
    assert not (tmp_path / "venv").exists()


@needs_make
def test_make_installs_again_only_when_a_declaration_is_newer(tmp_path: Path):
    venv = tmp_path / "venv"
    venv.mkdir()
    stamp = venv / ".installed"
    stamp.touch()

    def plan(*newer: str) -> str:
        arguments = [f"--assume-new={file}" for file in newer]
        done = subprocess.run(["make", "-n", *arguments, "test", f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    assert "pip install" not in plan()
    assert "pytest" in plan()
    for file in ("pyproject.toml", "constraints.txt"):
        assert "--editable" in plan(file), file
    assert "--editable" not in plan("README.md")
