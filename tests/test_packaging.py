"""What is installed is what is in the tree: wheel, sdist and editable, used from another folder.

Built and installed with the packages of the running environment, so that no network is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("build", reason="the packaging tests need the dev group")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("deploy", "export", "hardware_configs")
LARGEST = 1 << 20  # bytes of the wheel, the packaged model included

LOOK = """
import importlib.util, pathlib, sys
import stformer, stformer.cli, stformer.deploy, stformer.export, stformer.hardware_configs
for name in ("deploy", "export", "hardware_configs", "tests_of_stformer"):
    assert importlib.util.find_spec(name) is None, f"{name} leaked to the top level"
home = pathlib.Path(stformer.__file__).parent
assert home.is_relative_to(sys.argv[1]), f"another stformer: {home}"
assert stformer.deploy.load("reference").missing() is None
assert (home / "py.typed").is_file()
assert list(home.glob("packaged/*.stf")), "no packaged model"
assert list(home.glob("recipes/*.toml")), "no recipes"
print(stformer.__version__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run it in another folder, without this environment's paths; give what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as git would hand it out; builds leave files behind, so not in the checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("tree")
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def build(source: Path, out: Path, *formats: str) -> Path:
    """Build in place; give the one file that came of it."""
    run(sys.executable, "-m", "build", "-n", *formats, "-o", out, source, cwd=out.parent)
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="module")
def sdist(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copy, tmp_path_factory.mktemp("sdist"), "--sdist")


def environment(folder: Path, elsewhere: Path, *install: str | Path) -> Path:
    """An environment that sees the packages of this one; gives its folder of programs.

    The path file shows it our folder of packages, but not the editable installs in there:
    path files are not read through path files.
    """
    run(sys.executable, "-m", "venv", folder, cwd=elsewhere)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", scheme="posix_prefix", vars=scheme))
    (packages / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (folder / "bin" / "python", "-m", "pip")
    run(*pip, "uninstall", "--yes", "setuptools", cwd=elsewhere)  # 3.10 brings one of 2023
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "install", *offline, *install, cwd=elsewhere)
    return folder / "bin"


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_everything_once(copy: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name, count in Counter(names).items() if count > 1]
    installed = {name for name in names if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(copy) if top == "stformer" else "stformer" / path.relative_to(copy))
        for top in ("stformer", *MAPPED)
        for path in files(copy / top)
    }
    assert installed == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < LARGEST


def files(folder: Path) -> list[Path]:
    """Files below, not through links, without what a build or an interpreter leaves."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix in {".json", ".npz", ".py", ".sh", ".stf", ".toml", ".typed"}
        and not any(parent.is_symlink() for parent in path.parents)
    ]


def test_the_wheel_of_the_sdist_is_the_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        links = [member.name for member in archive.getmembers() if not member.isreg()]
        assert [name for name in links if not archive.getmember(name).isdir()] == []
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = build(unpacked, tmp_path / "out", "--wheel")
    theirs, ours = contents(again), contents(wheel)
    assert sorted(theirs) == sorted(ours)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_wheel_works_from_another_folder(wheel: Path, tmp_path: Path, elsewhere: Path) -> None:
    bin_ = environment(tmp_path / "venv", elsewhere, wheel)
    run(bin_ / "python", "-c", LOOK, tmp_path / "venv", cwd=elsewhere)
    by_module = run(bin_ / "python", "-m", "stformer", "--help", cwd=elsewhere)
    by_script = run(bin_ / "stformer", "--help", cwd=elsewhere)
    assert by_module == by_script
    assert "usage: stformer" in by_script


def test_the_wheel_works_inside_a_checkout(
    wheel: Path, copy: Path, tmp_path: Path, elsewhere: Path
) -> None:
    """The checkout shadows the wheel there; through the links it is whole."""
    bin_ = environment(tmp_path / "venv", elsewhere, wheel)
    run(bin_ / "python", "-c", "import stformer.deploy, stformer.export", cwd=copy)
    run(bin_ / "stformer", "--help", cwd=copy)


def test_an_editable_install_is_the_checkout(copy: Path, tmp_path: Path, elsewhere: Path) -> None:
    bin_ = environment(tmp_path / "venv", elsewhere, "--editable", copy)
    run(bin_ / "python", "-c", LOOK, copy, cwd=elsewhere)
    assert "usage: stformer" in run(bin_ / "stformer", "--help", cwd=elsewhere)
    new = copy / "deploy" / "made_later.py"
    new.write_text("VALUE = 1\n")
    try:
        run(bin_ / "python", "-c", "import stformer.deploy.made_later", cwd=elsewhere)
    finally:
        new.unlink()
