"""Rules for the tree as a whole: packages, links, layers, sizes, and what no file may say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("deploy", "export", "hardware_configs")
SOURCES = ("stformer", *MAPPED)

# The only files that may import a package, as paths from the root.
OWNERS: dict[str, tuple[str, ...]] = {
    "dask": ("deploy/cluster.py",),
    "dask_jobqueue": ("deploy/cluster.py",),
    "distributed": ("deploy/cluster.py",),
    "h5py": ("stformer/storage.py", "stformer/hdf5*.py"),
    "lava": ("deploy/lava*", "deploy/netx*"),
    "matplotlib": ("stformer/plot*", "stformer/plot/*"),
    "nir": ("export/nir*.py", "deploy/norse*.py"),
    "nirtorch": ("deploy/norse*.py",),
    "norse": ("deploy/norse*.py",),
    "onnx": ("export/onnx*.py",),
    "onnxruntime": ("export/onnx*.py", "deploy/onnx*.py"),
    "psutil": ("deploy/lava*",),
    "sklearn": ("stformer/datasets/digits.py",),
    "tensorboard": (),
    "tests": (),
    "torch": (
        "deploy/norse*.py",
        "deploy/torch.py",
        "stformer/augment.py",
        "stformer/compile.py",
        "stformer/counts.py",
        "stformer/lower.py",
        "stformer/model.py",
        "stformer/nn/*",
        "stformer/sane.py",
        "stformer/train*.py",
        "stformer/training/*",
    ),
    "torchvision": ("stformer/augment.py", "stformer/datasets/cifar.py"),
}
# Imported with the packages above blocked, as on a machine that lacks them. Core needs h5py.
OPTIONAL = sorted(set(OWNERS) - {"h5py", "tests"})

LONGEST = 400  # lines of one Python file
LONGER: dict[str, int] = {
    "stformer/network.py": 800,  # the one structure that everyone reads: whole, in one place
}
MEDIAN = 250
BUDGET = 36000  # lines of the package: formats, Lava, proofs, hardware; reasons before raises

FORBIDDEN = {
    "the path of a machine": r"(?<![\w.])/(?:home|root|Users|work|opt|tmp|mnt)/[\w.]",
    "a registry's address": r"https?://[^\s\"'<>)]*(?:pypi|pythonhosted|npmjs|/simple\b|/index/)",
    "a registry's option": r"--(?:extra-)?index-u[r]l|--find-l[i]nks|index-u[r]l\s*=",
    "a file's address": r"file:/{2}[/\w]",
}


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def tree() -> tuple[str, ...]:
    """Paths of all files that git has or would take; links left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = {path for path in listed.stdout.split("\0") if path}
    return tuple(sorted(p for p in paths if (ROOT / p).is_file() and not (ROOT / p).is_symlink()))


def sources() -> list[str]:
    """Our Python files, under the folder they really are in."""
    return [p for p in tree() if p.endswith(".py") and p.split("/")[0] in SOURCES]


def module(path: str) -> str:
    """deploy/lava/__init__.py -> stformer.deploy.lava"""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] == "stformer" else f"stformer.{name}"


def imports(path: str) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run it in a new interpreter that sees the checkout first."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def is_owner(path: str, package: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in OWNERS[package])


def test_packages_are_the_folders_with_code() -> None:
    found = {module(path) for path in sources() if path.endswith("__init__.py")}
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == found


def test_every_python_file_is_in_a_package() -> None:
    packages = set(pyproject()["tool"]["setuptools"]["packages"])
    lost = [p for p in sources() if module(str(Path(p).parent)) not in packages]
    assert not lost, "not installed: the folder lacks __init__.py or is not in `packages`"


def test_data_files_of_the_package_are_installed() -> None:
    patterns = {
        f"{package.removeprefix('stformer.')}/{pattern}"
        for package, listed in pyproject()["tool"]["setuptools"]["package-data"].items()
        for pattern in listed
    }
    data = [p for p in tree() if p.split("/")[0] in SOURCES and not p.endswith((".py", ".md"))]
    lost = [p for p in data if not any(fnmatch(p, pattern) for pattern in patterns)]
    assert not lost, "no pattern of package-data takes these"
    assert "stformer/py.typed" in data


@pytest.mark.parametrize("name", MAPPED)
def test_links_are_relative_and_match_the_mapping(name: str) -> None:
    link = ROOT / "stformer" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert pyproject()["tool"]["setuptools"]["package-dir"][f"stformer.{name}"] == name


@pytest.mark.parametrize("name", MAPPED)
def test_a_mapped_folder_has_one_name_only(name: str) -> None:
    refused = python(f"import {name}")
    assert refused.returncode == 1
    assert f"ImportError: import 'stformer.{name}', not '{name}'" in refused.stderr


def test_guards_hold_without_assertions() -> None:
    """`python -O` removes asserts; the guard is none."""
    for name in MAPPED:
        assert "raise ImportError" in (ROOT / name / "__init__.py").read_text()


def test_optional_packages_are_imported_by_their_owners_only() -> None:
    strays = [
        f"{path} imports {name}"
        for path in sources()
        for name in imports(path)
        if (package := name.split(".")[0]) in OWNERS and not is_owner(path, package)
    ]
    assert not strays


# Backends that run files have them written by the front of `export` (docs/decisions/0009).
RUNS_FILES = ("deploy/netx*", "deploy/norse*", "deploy/onnx*")


def test_export_and_deploy_meet_in_one_place() -> None:
    apart = {"export/*": "stformer.deploy", "deploy/*": "stformer.export"}
    strays = [
        f"{path} imports {name}"
        for path in sources()
        for pattern, banned in apart.items()
        for name in imports(path)
        if fnmatch(path, pattern) and f"{name}.".startswith(f"{banned}.")
        if not (name.count(".") == 1 and any(fnmatch(path, p) for p in RUNS_FILES))
    ]
    assert not strays


def test_lint_bans_what_this_file_bans() -> None:
    banned = pyproject()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) >= {"torch", "lava", "nir", "onnx", "norse", "h5py", "tests"}
    assert set(banned) <= set(OWNERS)


def light() -> list[str]:
    """Every module but the owners of optional packages: what a machine without these imports."""
    torch_drivers = {"stformer.demo"}  # says how to train; the command line imports it on use
    free = [p for p in sources() if not any(is_owner(p, name) for name in OPTIONAL)]
    ours = [name for name in map(module, free) if name not in torch_drivers]
    assert {"stformer", "stformer.cli", "stformer.deploy", "stformer.interpret"} <= set(ours)
    return [name for name in ours if name not in ("stformer.__main__", "stformer.testing")]


def test_the_core_imports_where_no_optional_package_exists() -> None:
    """A module may still offer what needs them, by importing it on use."""
    result = python(
        "import importlib, sys\n"
        f"for name in {OPTIONAL}: sys.modules[name] = None\n"
        f"for name in {light()}: importlib.import_module(name)\n"
    )
    assert result.returncode == 0, result.stderr


def test_the_core_loads_nothing_heavy_where_it_exists() -> None:
    result = python(
        "import importlib, sys\n"
        f"for name in {light()}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = set({OPTIONAL}) & set(sys.modules)\n"
        "    if heavy: sys.exit(f'import {name} loads {heavy}')\n"
    )
    assert result.returncode == 0, result.stderr


def test_no_file_imports_lavas_tests_for_ours() -> None:
    ours = [p for p in tree() if p.startswith("tests/") and p.endswith(".py")]
    assert not [p for p in ours for name in imports(p) if name.split(".")[0] == "tests"]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tree():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # HDF5 and the like
        for what, pattern in FORBIDDEN.items():
            found += [f"{path}: {what}: {match.group()}" for match in re.finditer(pattern, text)]
    assert not found


def test_lock_files_and_environments_stay_out() -> None:
    tree()  # skips where there is no git
    names = ["uv.lock", "pylock.toml", ".venv/x", ".tools/x", ".ci-work/x", "build/x", "demo/x"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *names], cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout.split() == names


def test_constraints_are_pins_and_nothing_else() -> None:
    files = sorted((ROOT / "constraints").iterdir())
    assert [file.name for file in files] == ["py310.txt", "py311.txt"]
    for file in files:
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", line), f"{file.name}: {line}"


def test_files_stay_small() -> None:
    lines = {p: len((ROOT / p).read_text().splitlines()) for p in tree() if p.endswith(".py")}
    long = {p: n for p, n in lines.items() if n > LONGER.get(p, LONGEST)}
    assert not long, "split them"
    assert set(LONGER) <= set(lines), "an exception for a file that is gone"
    package = [lines[p] for p in sources()]
    assert median(package) <= MEDIAN
    assert sum(package) <= BUDGET
