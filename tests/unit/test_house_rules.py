"""The brakes: what keeps this repository small, safe and easy to read, checked on its own files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contextlm.config.fields import all_fields
from contextlm.config.flags import PROGRAM_FLAGS

ROOT = Path(__file__).resolve().parents[2]
FLAGS = Path(__file__).with_name("flags.txt")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
ROOMS = ("contextlm", "tools", "examples", "tests", "benchmarks")


def python_files(*folders: str) -> list[Path]:
    """Python files under folders of the repository, and those at its top if none is named."""
    found = [path for folder in folders or ROOMS for path in sorted((ROOT / folder).rglob("*.py"))]
    return found if folders else sorted(ROOT.glob("*.py")) + found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def long_functions(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]


def unsafe_loads(source: str) -> list[str]:
    """Calls and imports that may execute what is in a file they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names]
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
            found += [f"import {module}" for module in modules if module.split(".")[0] in forbidden]
        if not isinstance(node, ast.Call):
            continue
        called, options = (
            ast.unparse(node.func),
            {word.arg: ast.unparse(word.value) for word in node.keywords},
        )
        if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            found.append(called)
        if called == "torch.load" and options.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if options.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
    return found


def test_files_are_short():
    long = {
        name(path): count for path in python_files() if (count := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert long == {}


def test_functions_are_short():
    long = {name(path): functions for path in python_files() if (functions := long_functions(path.read_text()))}
    assert long == {}


def test_no_drawers_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    paths = [path for path in python_files() if drawers & {path.stem, path.parent.name}]
    assert [name(path) for path in paths] == []


def test_the_model_knows_no_process_groups():
    forbidden = re.compile(r"torch\.distributed|parallel_state")
    assert [name(path) for path in python_files("contextlm/model") if forbidden.search(path.read_text())] == []


def test_nothing_that_is_loaded_may_execute_code():
    loads = {
        name(path): found
        for path in python_files("contextlm", "tools", "examples", "benchmarks")
        if (found := unsafe_loads(path.read_text()))
    }
    # The one file that reads a pickle knows the names that may stand in it.
    assert loads == {"contextlm/megatron/safe_loading.py": ["import pickle"]}


def test_every_module_says_what_it_owns():
    silent = [
        name(path)
        for path in python_files("contextlm", "tools")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_flags_are_frozen():
    """A flag may be added, knowingly, by adding its line to flags.txt; taking one away breaks scripts."""
    now = sorted([field.flag for field in all_fields().values()] + [f"--{flag}" for flag in PROGRAM_FLAGS])
    assert now == FLAGS.read_text().split()


def test_every_field_is_read_somewhere():
    """A value that is never read is a bug; the schema's own properties count as readers."""
    text = "\n".join(path.read_text() for path in [*python_files("contextlm"), *ROOT.glob("pretrain_contextlm.py")])
    unread = [field for field in all_fields() if not re.search(rf"\.{field}\b(?!\s*=[^=])", text)]
    assert unread == []


@pytest.mark.parametrize("module", ["contextlm", "contextlm.config", "contextlm.analysis.dry_run"])
def test_importing_the_configuration_imports_nothing_heavy(module):
    heavy = ("torch", "megatron", "transformers", "numpy")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_brakes_hold():
    """Each check above finds what it looks for."""
    assert long_functions("def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES) == ["f"]
    assert long_functions("def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)) == []
    for line in (
        "import pickle",
        "from pickle import load",
        "yaml.load(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "numpy.load(x, allow_pickle=True)",
        "np.load(x, allow_pickle=flag)",
    ):
        assert len(unsafe_loads(line)) == 1, line
    for line in ("yaml.safe_load(x)", "torch.load(x, weights_only=True)", "np.load(x, allow_pickle=False)"):
        assert unsafe_loads(line) == [], line
