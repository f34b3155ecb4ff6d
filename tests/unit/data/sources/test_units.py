"""Which files inputs name, in which order, and what is said when they name none."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from contextlm.data.sources import streams, units
from contextlm.data.sources.batches import read_batches
from contextlm.data.sources.unit import Unit
from contextlm.data.sources.units import find_units
from contextlm.errors import UserError
from tests.unit.data.sources.reading import read

ROOT = Path(__file__).parents[4]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: files of all kinds, and what is no text."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *(
            "data/b.jsonl",
            "data/a.jsonl",
            "data/C.JSONL.GZ",
            "data/deep/er/d.txt",
            "data/e.txt.zst",
            "data/f.jsonl/1.json",
        ),
        *("data/.hidden.jsonl", "data/.git/config.json", "data/README.md", "data/part-0", "data/x.tar.gz", "data/y.gz"),
        *("data/z.parquet.gz", "data/my_text_document.json", "data/my_rejects.jsonl", "other/a.jsonl", "empty/no.csv"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "x"}\n')
    return tmp_path


def names(*inputs: str) -> list[str]:
    return [unit.path for unit in find_units(inputs)]


def problems(*inputs: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        find_units(inputs)
    return list(raised.value.problems)


def test_order(folder: Path) -> None:
    everything = [
        f"data/{name}" for name in ("C.JSONL.GZ", "a.jsonl", "b.jsonl", "deep/er/d.txt", "e.txt.zst", "f.jsonl/1.json")
    ]
    assert names("data") == names("data/**") == names("data/*") == everything
    assert names("data/") == everything
    assert names("data/*.jsonl") == ["data/a.jsonl", "data/b.jsonl", "data/f.jsonl/1.json"]
    assert names("data/**/*.txt") == ["data/deep/er/d.txt"]
    assert names("other", "data/b.jsonl", "data/a*", "-") == ["other/a.jsonl", "data/b.jsonl", "data/a.jsonl", "-"]
    assert names(f"{folder}/data/[ab].jsonl") == [f"{folder}/data/a.jsonl", f"{folder}/data/b.jsonl"]


def test_a_file_that_is_named_is_read(folder: Path) -> None:
    """Whatever a folder would pass over; a name with the signs of a pattern is a name if there is such a file."""
    os.rename("data/b.jsonl", "data/[ab].jsonl")
    given = ("data/.hidden.jsonl", "data/part-0", "data/y.gz", "data/my_rejects.jsonl", "data/[ab].jsonl")
    assert names(*given) == list(given)


def test_links_are_followed_but_not_round(folder: Path) -> None:
    os.symlink(folder / "other", "data/deep/link")
    os.symlink(folder / "data", "data/deep/round")
    os.symlink(folder / "data" / "f.jsonl", "data/a_second_name")
    found = names("data")
    assert len(found) == 7 and {"data/deep/link/a.jsonl", "data/a_second_name/1.json"} <= set(found)
    os.symlink("nowhere", "data/broken.jsonl")
    assert problems("data") == ["--input data/broken.jsonl: No such file or directory"]


def test_formats(folder: Path) -> None:
    (packed,) = find_units(["data/C.JSONL.GZ"])
    assert packed == Unit("data/C.JSONL.GZ", "json", 14, ".gz")
    assert find_units(["data/a.jsonl"]) == [Unit("data/a.jsonl", "json", 14, stop=14)]
    for how, form in (("file", "text"), ("blank-line", "blocks")):
        (unit,) = find_units(["data/deep"], how)
        assert (unit.format, unit.compression) == (form, "")


def test_every_problem_at_once(folder: Path) -> None:
    os.symlink("nowhere", "broken.jsonl")
    found = problems(
        *("none.jsonl", "no*.jsonl", "empty", "data/README.md", "data/x.tar.gz", "data/z.parquet.gz", "broken.jsonl"),
        *("data/a.jsonl", "data/a*.jsonl", "./data/a.jsonl", "other", "-", "-"),
    )
    expected = [
        "--input none.jsonl: no such file or folder",
        "--input no*.jsonl: there is no file that can be read; kinds: .jsonl,",
        "--input empty: there is no file that can be read",
        "--input data/README.md: not of a kind that is read",
        "--input data/x.tar.gz: not of a kind that is read",
        "--input data/z.parquet.gz: not of a kind that is read",
        "--input broken.jsonl: No such file or directory",
        "--input data/a.jsonl: given twice",
        "--input ./data/a.jsonl: given twice",
        "--input -: given twice",
    ]
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)
    assert "--input - < data/README.md" in found[3]


def test_files_that_the_system_does_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an error whatever --on-error says: a failing disk must not look like a bad line."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: not path.endswith("a.jsonl"))
        assert problems("data") == ["--input data/a.jsonl: no permission to read it"]

    def failing(path: str, *args: object, **kwargs: object) -> object:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(streams, "open", failing, raising=False)
    with pytest.raises(UserError, match="data/a.jsonl: cannot be read: Input/output error"):
        read("data/a.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission(folder: Path) -> None:
    os.chmod("data/deep", 0)
    try:
        assert problems("data") == ["--input data: data/deep: Permission denied"]
    finally:
        os.chmod("data/deep", 0o755)


def test_a_file_that_grows_ends_where_it_ended(folder: Path) -> None:
    found = find_units(["data/a.jsonl"])
    with open("data/a.jsonl", "a") as file:
        file.write('{"text": "more')
    (batch,) = read_batches(found, ["text"])
    assert [item.texts for item in batch.documents()] == [[["x"]]]


@pytest.mark.parametrize(
    ("library", "name"),
    [("zstandard", "data/e.txt.zst"), ("pyarrow", "z.parquet"), ("datasets", "hf://some/where")],
)
def test_a_library_that_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str) -> None:
    """It is named with its remedy, and only when it is needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    Path("z.parquet").touch()
    names("data/a.jsonl", "data/C.JSONL.GZ")
    assert problems(name) == [
        f"--input {name}: it is read with {library}, which is not installed: pip install {library}"
    ]


def test_nothing_is_imported_before_it_is_needed(folder: Path) -> None:
    heavy = ("torch", "megatron", "numpy", "pyarrow", "zstandard", "datasets", "orjson")
    program = (
        "import sys\n"
        "from contextlm.data.sources import batches, sharing, units\n"
        "found = units.find_units(['data/a.jsonl', 'data/C.JSONL.GZ'])\n"
        "assert sharing.share(found, 2, 0)\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["orjson", "zstandard", "pyarrow", "datasets"])
def test_lines_are_read_without_any_library(folder: Path, missing: str) -> None:
    Path("data/C.JSONL.GZ").write_bytes(gzip.compress(b'{"text": "y"}\n'))
    program = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from contextlm.data.sources import batches, units\n"
        "found = units.find_units(['data/a.jsonl', 'data/C.JSONL.GZ'])\n"
        "print([item.texts for batch in batches.read_batches(found, ['text']) for item in batch.documents()])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert shown.stdout.strip() == "[[['x']], [['y']]]"


def test_stdin_and_named_pipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b'{"text": "%d"}\n' % n for n in range(20_000))
    expected = [str(n) for n in range(20_000)]
    Path("lines").write_bytes(content)
    with open("lines", "rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": stream}))
        assert read("-") == (expected, [])
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(content))
    writer.start()
    assert read("pipe") == (expected, [])
    writer.join()


def test_readable_kinds_are_named() -> None:
    assert units.READABLE == ".jsonl, .json, .ndjson, .parquet, .txt; all but parquet also with .gz, .zst, .xz, .bz2"
