"""The files a newcomer meets first: environment, make targets, packaging, image. Installs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python does not

CHECKOUT = Path(__file__).resolve().parents[2]
# A Python that creates empty environments and imports a torch, without a second's work.
FAKE_PYTHON = """#!/bin/bash
echo "$@" >>"{calls}"
case "$*" in
    --version) echo "Python 3.11.9" ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "$PWD/.venv" >.venv/bin/activate ;;
    *"import torch"*"print(torch"*) echo "2.7.0+cu126" ;;
    *importlib.metadata*) echo "2.7.0" ;;
    *"pip install"*) {install} ;;
esac
exit 0
"""


def bootstrap(checkout: Path, python: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "environment/bootstrap.sh"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHON": str(python), **variables},
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that the environment is made from, in another place."""
    folder = tmp_path / "a checkout"  # with a space: people have such folders
    folder.mkdir()
    shutil.copytree(CHECKOUT / "environment", folder / "environment")
    shutil.copy(CHECKOUT / "pyproject.toml", folder)
    return folder


def fake_python(folder: Path, install: str = "true") -> Path:
    python = folder / "fake-python"
    python.write_text(FAKE_PYTHON.format(calls=folder / "calls", install=install))
    python.chmod(0o755)
    return python


def calls(folder: Path) -> str:
    return (folder / "calls").read_text()


def test_environment_reuses_torch_and_is_made_once(checkout: Path, tmp_path: Path) -> None:
    python = fake_python(tmp_path)
    first = bootstrap(checkout, python)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "-m venv --system-site-packages .venv" in calls(tmp_path)
    assert "install -c .venv/torch.txt -e .[dev,hf]" in calls(tmp_path)
    assert (checkout / ".venv/torch.txt").read_text() == "torch==2.7.0\n"  # held, and not installed again
    assert "install torch" not in calls(tmp_path)
    assert os.access(checkout / ".venv/bin/torchrun", os.X_OK)
    (tmp_path / "calls").write_text("")
    second = bootstrap(checkout, python)
    assert (second.returncode, second.stdout) == (0, "")
    assert "install" not in calls(tmp_path)


def test_changed_requirements_are_installed_into_the_same_environment(checkout: Path, tmp_path: Path) -> None:
    python = fake_python(tmp_path)
    bootstrap(checkout, python)
    (checkout / ".venv/kept").touch()
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("\n# changed\n")
    (tmp_path / "calls").write_text("")
    assert bootstrap(checkout, python).returncode == 0
    assert "install -c .venv/torch.txt -e .[dev,hf]" in calls(tmp_path)
    assert (checkout / ".venv/kept").exists()


def test_killed_installation_is_started_anew(checkout: Path, tmp_path: Path) -> None:
    killed = bootstrap(checkout, fake_python(tmp_path, install='kill -9 "$PPID"'))
    assert killed.returncode != 0 and (checkout / ".venv").exists()
    (checkout / ".venv/half-installed").touch()
    again = bootstrap(checkout, fake_python(tmp_path))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "not finished" in again.stdout
    assert not (checkout / ".venv/half-installed").exists()


def test_failed_installation_shows_the_log_and_is_tried_again(checkout: Path, tmp_path: Path) -> None:
    failed = bootstrap(checkout, fake_python(tmp_path, install='{ echo "No space left on device"; exit 1; }'))
    assert failed.returncode == 1
    assert "No space left on device" in failed.stderr and "error: this failed" in failed.stderr
    assert bootstrap(checkout, fake_python(tmp_path)).returncode == 0


def test_an_extra_that_cannot_be_installed_is_done_without(checkout: Path, tmp_path: Path) -> None:
    python = fake_python(tmp_path, install='[[ "$*" != *ray* ]] || exit 1')
    made = bootstrap(checkout, python)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "note: the extra 'ray' cannot be installed here" in made.stdout and made.stdout.count("note: the extra") == 1
    assert all(f"-e .[{extra}]" in calls(tmp_path) for extra in ("data", "hub", "ray", "eval"))
    assert bootstrap(checkout, python).stdout == ""  # and not tried again


def test_moved_checkout_gets_an_environment_of_its_own(checkout: Path, tmp_path: Path) -> None:
    python = fake_python(tmp_path)
    bootstrap(checkout, python)
    moved = checkout.rename(tmp_path / "moved")
    done = bootstrap(moved, python)
    assert done.returncode == 0 and "moved" in done.stdout
    assert str(moved) in (moved / ".venv/bin/torchrun").read_text()


def test_old_python_is_named_with_a_remedy(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text('#!/bin/bash\nif [ "$1" = --version ]; then echo "Python 3.8.10"; else exit 1; fi\n')
    old.chmod(0o755)
    only = tmp_path / "bin"  # no other Python on PATH
    only.mkdir()
    for program in ("bash", "cat", "cksum", "dirname", "tail"):
        (only / program).symlink_to(shutil.which(program) or "")
    result = bootstrap(checkout, old, PATH=str(only))
    assert result.returncode == 1
    assert "Python 3.10 or newer; " in result.stderr and "3.8.10" in result.stderr
    assert "PYTHON=" in result.stderr
    assert not (checkout / ".venv").exists()


def test_requirements_leave_torch_free_and_the_heavy_ones_out() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    required = project["dependencies"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    everything = [name.split(";")[0] for name in required + extras]
    assert "torch>=2.6" in required
    assert not [name for name in everything if "==" in name]
    names = {re.split(r"[<>=!~\[ ]", name)[0].lower() for name in everything}
    assert not names & {"apex", "transformer-engine", "transformer_engine", "flash-attn", "deepspeed"}


@pytest.mark.parametrize("target", ["quickstart", "test", "test-full", "check"])
def test_every_target_makes_the_environment_first(target: str) -> None:
    dry = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout.splitlines()
    assert dry[0] == "bash environment/bootstrap.sh"
    assert dry[1].startswith(".venv/bin/python ")
    assert ('-m "not full"' in dry[1]) == (target == "test")


def test_ci_runs_make_test_only() -> None:
    script = (CHECKOUT / ".ci/run").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith("#")]
    assert commands[-1] == "exec make test"
    assert all(re.match(r"set -|cd |exec make test", line) for line in commands)
