"""tools/doctor.py where torch does not import and apex is another package: it says so, and exits with 1."""

from __future__ import annotations

from pathlib import Path

from tests.cli.programs import ROOT, run


def test_a_broken_machine(tmp_path: Path) -> None:
    for name, code in {"torch": "raise ImportError('libcudart.so.13')", "apex": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    done = run("tools/doctor.py", "--dir", str(tmp_path), PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    (apex,) = (index for index, line in enumerate(lines) if line.startswith("X apex"))
    assert "is not NVIDIA's" in lines[apex] and "problem: remove it: pip uninstall apex" in lines[apex + 1]
    assert any(line.startswith("X torch") and "does not import: libcudart.so.13" in line for line in lines)
    assert any(line.startswith("  disk") for line in lines) and lines[-1].startswith("2 problem(s)")
