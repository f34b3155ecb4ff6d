"""The class and the conversions with the last transformers 4, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.programs import ROOT, environment, run

VERSION = "4.57"
TESTS = (
    "tests/unit/interop",
    "tests/unit/model/test_twin.py",
    "tests/unit/model/test_parity.py",
    "tests/cli/test_convert_checkpoint.py",
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with that transformers and what it needs, to be found before this environment's own."""
    folder = str(tmp_path_factory.mktemp("packages"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, f"transformers=={VERSION}.*"]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if installed.returncode != 0:
        pytest.skip(f"transformers {VERSION} cannot be installed here: {installed.stderr.strip()[-200:]}")
    return folder


@pytest.mark.full
@pytest.mark.parametrize("tests", TESTS, ids=lambda path: Path(path).stem)
def test_works_with_transformers_4(packages: str, tests: str) -> None:
    first = {"PYTHONPATH": f"{packages}:{ROOT}"}
    shown = run("-c", "import transformers; print(transformers.__version__)", **first)
    assert shown.stdout.startswith(f"{VERSION}."), shown.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not full", tests]
    done = subprocess.run(command, cwd=ROOT, env=environment(**first), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:]
