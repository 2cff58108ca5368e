"""The project as something to install: lock, wheel, set-up script, make targets, conda environments."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIN = re.compile(r"^(?P<pin>[\w.\-]+==.+?) \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **env}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_lock_meets_every_requirement(repository: Path, project: dict[str, Any]) -> None:
    pins = [Requirement(pin) for pin in PIN.findall((repository / "requirements.lock").read_text())]
    locked = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate()
    }
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line


def test_lock_has_hashes_and_no_addresses(repository: Path) -> None:
    lock = (repository / "requirements.lock").read_text()
    assert (
        len(re.findall(r"==.+ \\\n    --hash=sha256:[0-9a-f]{64}", lock)) == len(re.findall("==.+ \\\\\n", lock)) > 50
    )
    assert "://" not in lock


def test_wheel_holds_every_module_and_every_config(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    package = source / "diffusion_policy"
    shutil.copytree(repository / "diffusion_policy", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    build = "import setuptools.build_meta as b; b.build_wheel('..')"
    result = run(sys.executable, "-c", build, cwd=source)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {str(path.relative_to(source)) for path in package.rglob("*") if path.is_file()}
    assert files - packed == set()


def test_configs_are_at_hand_at_the_top(repository: Path) -> None:
    assert (repository / "config").readlink() == Path("diffusion_policy/config")


def test_make_explains_every_target(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets is not None
    explained = re.findall(r"^  make (\w+) +\S", run("make", cwd=repository).stdout, re.MULTILINE)
    assert explained == targets[1].split()


@pytest.fixture
def setup_script(repository: Path, tmp_path: Path) -> Path:
    """The set-up script in a folder of its own."""
    return Path(shutil.copy(repository / "setup.sh", tmp_path))


def test_setup_names_the_python_that_does_not_fit(setup_script: Path, tmp_path: Path) -> None:
    old_python = tmp_path / "old_python"
    old_python.write_text("#!/bin/sh\necho 3.9\n")
    old_python.chmod(0o755)
    result = run(setup_script, cwd=tmp_path, PYTHON=str(old_python))
    assert result.returncode == 1
    assert "Python 3.11, 3.12 or 3.13 is needed" in result.stderr
    assert f"{old_python} is Python 3.9" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_names_the_python_that_is_none(setup_script: Path, tmp_path: Path) -> None:
    result = run(setup_script, cwd=tmp_path, PYTHON="/nowhere/python")
    assert result.returncode == 1
    assert "/nowhere/python is none" in result.stderr


def test_setup_refuses_unknown_commands(setup_script: Path, tmp_path: Path) -> None:
    result = run(setup_script, "unlock", cwd=tmp_path)
    assert result.returncode == 1
    assert "unknown command 'unlock'" in result.stderr


@pytest.mark.parametrize("name", ["conda_environment.yaml", "conda_environment_real.yaml"])
def test_conda_environment_installs_extras_that_exist(repository: Path, project: dict[str, Any], name: str) -> None:
    environment = OmegaConf.load(repository / name)
    assert environment.name == "robodiff"
    *packages, pip = environment.dependencies
    assert "python=3.11" in packages
    (editable,) = pip["pip"]
    extras = re.fullmatch(r"-e \.\[(.+)\]", editable)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
