"""Writes the quickstart's text: the documentation of Python's standard library, which every machine has.

    python examples/quickstart/corpus.py --output runs/quickstart/corpus.jsonl

One document per module (its docstrings, each under the name and signature it explains) and one per topic
of the language reference that `help()` shows, a few MB in all, as JSON lines {"text", "source"}. Sources
are parsed, never imported. Read next: `plan.py`, what happens to the text.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

# Tests and vendored packages: fixtures in odd encodings and with broken syntax, no documentation.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_vendor"}
SHORTEST_TEXT = 200  # characters; less than that is a licence line or a stub


def module_text(source: str, module_name: str) -> str:
    """The docstrings of one module in reading order, each after the line that it explains."""
    parts = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                parts.append(f"{_heading(node, name)}\n\n{docstring.strip()}\n")
        for child in ast.iter_child_nodes(node):
            visit(child, f"{name}.{child.name}" if hasattr(child, "name") else name)

    visit(ast.parse(source), module_name)
    return "\n".join(parts)


def _heading(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.Module):
        return f"module {name}"
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    return f"{name}({ast.unparse(node.args)})"


def documents(library: Path) -> Iterator[dict[str, str]]:
    """The documents of the library in folder `library`, sorted by path; unreadable modules are left out."""
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if SKIPPED_FOLDERS & set(relative.parts[:-1]):
            continue
        try:
            with tokenize.open(path) as file:  # honours the coding line of the module
                source = file.read()
            if relative.parts[0] == "pydoc_data":
                yield from _topics(source, relative)
                continue
            text = module_text(source, ".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
        except (SyntaxError, UnicodeDecodeError, OSError, RecursionError):
            continue
        if len(text) >= SHORTEST_TEXT:
            yield {"text": text, "source": relative.as_posix()}


def _topics(source: str, relative: Path) -> Iterator[dict[str, str]]:
    """The language reference as `help()` shows it: a module that holds one literal, a dict of texts."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield {"text": text, "source": f"{relative.as_posix()}#{name}"}


def write_corpus(library: Path, output: Path) -> tuple[int, int]:
    """Writes all documents of `library` to `output`, in an order that depends on the documents only.

    The order is shuffled: validation takes the last documents, and they should be of every kind.

    Returns:
        the number of documents and of bytes of text.

    Raises:
        ValueError: this Python comes without readable sources.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some modules hold escapes that newer compilers warn about
        found = list(documents(library))
    size = sum(len(document["text"].encode()) for document in found)
    if size < 100_000:
        raise ValueError(
            f"{library} has only {size} bytes of documentation: this Python comes without its sources; "
            f"make the environment with another one (PYTHON=/path/to/python3 make environment)"
        )
    random.Random(0).shuffle(found)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(output.name + ".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        for document in found:
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    os.replace(unfinished, output)
    return len(found), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True, help="the .jsonl file to write")
    arguments = parser.parse_args()
    number, size = write_corpus(Path(sysconfig.get_paths()["stdlib"]), arguments.output)
    print(f"{arguments.output}: {number} documents, {size / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
