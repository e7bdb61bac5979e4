"""What is installed on this machine and what each missing part costs.

Nothing is imported before `examine` is called, and no missing or broken part makes it raise: it becomes a line of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tpo_lab._version import __version__

if TYPE_CHECKING:
    from rich.console import RenderableType

State = Literal["present", "missing", "broken"]

REQUIRED: dict[str, str] = {
    "torch": "2.9",
    "numpy": "",
    "transformers": "5.0",
    "peft": "",
    "accelerate": "",
    "safetensors": "",
    "tokenizers": "",
    "typer": "",
    "rich": "",
    "pydantic": "2",
    "pillow": "",
    "av": "",
    "scipy": "",
    "pandas": "",
    "ijson": "",
    "pyyaml": "",
}
"""The distributions the library cannot do without, each with the oldest version that works ("" = any)."""

_PACKAGE = Path(__file__).parent
# What an import of a damaged compiled package has been seen to raise.
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
_GIB = 2**30


@dataclass(frozen=True)
class Package:
    """One required distribution: its version (None = not installed) and whether it is new enough."""

    name: str
    version: str | None
    minimum: str
    ok: bool


@dataclass(frozen=True)
class Device:
    """One processor that torch can compute on.

    Attributes:
        kind: "cpu", "cuda" or "mps".
        name: what the machine calls it.
        memory_gib: its whole memory in GiB (None = not known).
        bf16: whether it computes in bfloat16 itself; False = the format works, at float32 speed or slower.
    """

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_gib: float | None
    bf16: bool


@dataclass(frozen=True)
class Part:
    """One optional part: its state, what its absence costs in one sentence, and how to get it."""

    name: str
    state: State
    version: str | None
    cost: str
    install: str
    detail: str = ""


@dataclass(frozen=True)
class Codec:
    """One codec of the FFmpeg libraries inside PyAV, by FFmpeg's name, and what it is needed for."""

    name: str
    direction: Literal["read", "write"]
    present: bool
    purpose: str


@dataclass(frozen=True)
class Report:
    """Everything `examine` found; `problems` holds one sentence per thing that stops TPO Lab from working as it should."""

    tpo_lab: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    parts: tuple[Part, ...]
    codecs: tuple[Codec, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True where nothing is in the way; missing optional parts are not in the way."""
        return not self.problems

    def as_dict(self) -> dict[str, object]:
        """The report as plain lists, dictionaries, strings, numbers and None, ready for JSON."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class _Optional:
    """A row of the table of optional parts; `probe` = its import is tried, in a process of its own."""

    module: str
    cost: str
    install: str
    probe: bool = False


def _extra(name: str) -> str:
    return f"pip install 'tpo-lab[{name}]'"


_OPTIONAL = (
    _Optional("papermill", "`tpo-lab demo` and `tpo-lab rerun` cannot execute notebooks.", _extra("demo")),
    _Optional("ipykernel", "No notebook can be executed, by a command or by hand.", _extra("demo")),
    _Optional("plotly", "The curves of the notebooks and of report.html are not drawn.", _extra("demo")),
    _Optional("jupyterlab", "The notebooks can be executed but not opened in a browser.", _extra("notebooks")),
    _Optional("ipywidgets", "The sliders of the notebooks do not appear.", _extra("widgets")),
    _Optional("anywidget", "The views (HeadView, GradientView and the others) do not appear.", _extra("widgets")),
    _Optional("mcp", "`tpo-lab mcp` cannot serve its tools to agents; the commands with --json can do the same.", _extra("mcp")),
    _Optional("decord", "The video reader 'decord' cannot be chosen; PyAV, the default, reads all that it reads.", _extra("decord"), True),
    _Optional(
        "torchcodec",
        "The video reader 'torchcodec' cannot be chosen; PyAV, the default, reads all that it reads.",
        _extra("torchcodec"),
        True,
    ),
    _Optional(
        "sam2",
        "The mask head cannot be compared with the official SAM2 code; it needs nothing of it to run.",
        _extra("sam2") + " && SAM2_BUILD_CUDA=0 pip install --no-deps --no-build-isolation sam2",
        True,
    ),
)

_SHIPPED = (
    ("nano weights", "_data/nano", "data/nano", "*.safetensors", "`tpo-lab demo` has no model to start from."),
    ("nano-sam2 weights", "_data/nano-sam2", "data/nano-sam2", "*.safetensors", "the mask head and `tpo-lab track` need another SAM2."),
    ("nano-tpo weights", "_data/nano-tpo", "data/nano-tpo", "*.safetensors", "tpo.load('nano-tpo') has nothing to load."),
    ("stage notebooks", "_notebooks", "notebooks", "*.ipynb", "`tpo-lab demo` has no stage notebooks to run."),
)

_CODECS: tuple[tuple[str, Literal["read", "write"], str], ...] = (
    ("libx264", "write", "overlay videos that every browser plays"),
    ("mpeg4", "write", "overlay videos where libx264 is missing"),
    ("h264", "read", "most video files"),
    ("hevc", "read", "phone recordings"),
    ("vp9", "read", "WebM files"),
    ("av1", "read", "newer web video"),
)


def examine() -> Report:
    """Looks at the packages, processors, optional parts, codecs and shipped files; changes nothing, downloads nothing.

    Returns:
        The report. Optional parts that are compiled are imported in a process of their own, so a crash there is only a line here.
    """
    packages = tuple(_package(name, minimum) for name, minimum in REQUIRED.items())
    parts = (*(_optional(row) for row in _OPTIONAL), *(_shipped(*row) for row in _SHIPPED))
    devices, device_problem = _devices()
    codecs, codec_problem = _codecs()
    problems = (*(_package_problem(p) for p in packages), device_problem, codec_problem, _torchvision_problem())
    return Report(
        tpo_lab=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
        devices=devices,
        parts=parts,
        codecs=codecs,
        problems=tuple(problem for problem in problems if problem),
    )


def render(report: Report) -> RenderableType:
    """The report as rich tables, the problems last, where the eye rests."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", title_style="bold", header_style="")
        for column in columns:
            made.add_column(column, overflow="fold")
        return made

    packages = table(f"TPO Lab {report.tpo_lab} · Python {report.python} · {report.platform}", "package", "version", "needs")
    for package in report.packages:
        mark = "" if package.ok else "[red]"
        packages.add_row(package.name, mark + (package.version or "missing"), f"{package.minimum} or newer" if package.minimum else "any")
    devices = table("Devices", "kind", "name", "memory", "bfloat16")
    for device in report.devices:
        memory = "not known" if device.memory_gib is None else f"{device.memory_gib:.1f} GiB"
        devices.add_row(device.kind, escape(device.name), memory, "yes" if device.bf16 else "not in hardware")
    parts = table("Optional and shipped parts", "part", "state", "without it")
    colour: dict[State, str] = {"present": "green", "missing": "yellow", "broken": "red"}
    for part in report.parts:
        state = f"[{colour[part.state]}]{part.version if part.state == 'present' and part.version else part.state}"
        absent = "" if part.state == "present" else escape("\n".join(filter(None, (part.cost, part.detail, part.install))))
        parts.add_row(part.name, state, absent)
    codecs = table("Video codecs (in PyAV)", "codec", "for", "state")
    for codec in report.codecs:
        codecs.add_row(codec.name, f"{codec.direction}: {codec.purpose}", "[green]present" if codec.present else "[yellow]missing")
    verdict = Text("\n".join(f"Problem: {problem}" for problem in report.problems) or "No problems found.", "green" if report.ok else "red")
    return Group(packages, devices, parts, codecs, verdict)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cpu" -> (2, 13, 0), "5.0rc1" -> (5, 0)."""
    numbers: list[int] = []
    for field in version.split("+")[0].split("."):
        digits = field[: len(field) - len(field.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def _package(name: str, minimum: str) -> Package:
    version = _version(name)
    return Package(name, version, minimum, ok=version is not None and _release(version) >= _release(minimum))


def _package_problem(package: Package) -> str:
    if package.version is None:
        return f"{package.name} is not installed and TPO Lab needs it: pip install tpo-lab."
    if not package.ok:
        return f"{package.name} {package.version} is too old, TPO Lab needs {package.minimum} or newer: pip install -U {package.name}."
    return ""


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a half-imported module has no spec
        return False


def _import_error(module: str) -> str:
    """The last line of what `import module` raises in a fresh process, or "" where it imports."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next(reversed(done.stderr.split("\n")[:-1]), "") or f"the process ended with status {done.returncode}"


def _optional(row: _Optional) -> Part:
    if not _found(row.module):
        return Part(row.module, "missing", None, row.cost, row.install)
    error = _import_error(row.module) if row.probe else ""
    return Part(row.module, "broken" if error else "present", _version(row.module), row.cost, row.install, error)


def _shipped(name: str, in_wheel: str, in_checkout: str, pattern: str, cost: str) -> Part:
    """A folder that travels inside the package in a wheel and stands at the top of the tree in a checkout."""
    folders = (_PACKAGE / in_wheel, _PACKAGE.parent / in_checkout)
    present = any(next(folder.rglob(pattern), None) for folder in folders)
    return Part(name, "present" if present else "missing", None, cost, "pip install --force-reinstall --no-deps tpo-lab, or a fresh clone")


def _torchvision_problem() -> str:
    """Present but broken is worse than absent, so this part is reported only where it does harm."""
    error = _import_error("torchvision") if _found("torchvision") else ""
    if not error:
        return ""
    return (
        f"torchvision {_version('torchvision')} is installed but cannot be imported ({error}). Every transformers model import then "
        "fails with \"Could not import module '...'. Are this object's requirements defined correctly?\", which names the wrong "
        "culprit. TPO Lab does not use torchvision: pip uninstall torchvision, or install the build that matches torch."
    )


def _devices() -> tuple[tuple[Device, ...], str]:
    cpu = Device("cpu", _cpu_name(), _memory_gib(), bf16=False)
    try:
        import torch

        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = any(present is True and name.endswith("bf16") for name, present in capabilities.items())
        found = [Device("cpu", cpu.name, cpu.memory_gib, bf16=native)]
        if torch.cuda.is_available():
            found += [_cuda(index) for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append(Device("mps", platform.machine(), cpu.memory_gib, bf16=_release(platform.mac_ver()[0]) >= (14,)))
    except _BROKEN as error:
        return (cpu,), f"torch cannot be used ({error}); nothing can be trained or predicted."
    return tuple(found), ""


def _cuda(index: int) -> Device:
    import torch

    properties = torch.cuda.get_device_properties(index)
    # bfloat16 arithmetic came with compute capability 8.0; torch's own question also counts emulation.
    return Device("cuda", properties.name, properties.total_memory / _GIB, bf16=properties.major >= 8 or torch.version.hip is not None)


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def _codecs() -> tuple[tuple[Codec, ...], str]:
    try:
        codec_module = importlib.import_module("av.codec")
    except _BROKEN as error:
        return (), f"PyAV cannot be used ({error}); no video can be read."
    found = []
    for name, direction, purpose in _CODECS:
        try:
            codec_module.Codec(name, direction[0])
        except ValueError:
            found.append(Codec(name, direction, False, purpose))
        else:
            found.append(Codec(name, direction, True, purpose))
    return tuple(found), ""
