"""python tools/inspect_checkpoint.py runs/my

Tells what a checkpoint holds: its parts, each tensor with --tensors, its run and options; --verify reads all files and
compares them with manifest.json. `--diff A B` compares two, values too. No model is built, nothing in the files is run.
Exit status 1 if something is damaged or, with --diff, differs.
The work is in `contextlm/checkpoints/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contextlm.checkpoints import checkpoint_folder, manifest
from contextlm.errors import UserError, told_to_the_user


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Tell what a checkpoint holds.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("checkpoint", nargs="+", metavar="FOLDER", help="what --save made, or an iter_ folder of it")
    parser.add_argument("--tensors", action="store_true", help="list each tensor")
    parser.add_argument("--verify", action="store_true", help="read all files and compare them with manifest.json")
    parser.add_argument("--diff", action="store_true", help="compare two checkpoints")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Inspect or compare; the exit status is the verdict."""
    given = parser().parse_intermixed_args(arguments)
    if len(given.checkpoint) != (2 if given.diff else 1):
        raise UserError("give one FOLDER, or two with --diff")
    folders = [_folder(path) for path in given.checkpoint]
    problems = [problem for folder in folders for problem in _damage(folder, given.verify)]
    if problems and not given.diff:
        _tell(problems)  # what can still be read is shown all the same
    elif problems:
        raise UserError(*problems)
    is_fine = _show_difference(folders[0], folders[1], given.json) if given.diff else _show(folders[0], given, problems)
    raise SystemExit(0 if is_fine else 1)


def _folder(path: str) -> Path:
    found = checkpoint_folder.candidates(path)
    if found.problem is not None:
        print(f"warning: {found.problem}: the newest checkpoint is meant", file=sys.stderr)
    if found.first is None:
        raise UserError(f"{path}: holds no checkpoint; give a folder that --save made")
    return found.first


def _damage(folder: Path, verify: bool) -> list[str]:
    found = manifest.damage(folder) if verify else manifest.incomplete(folder)
    return [f"checkpoint {folder}: {problem}" for problem in found]


def _tell(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def _show(folder: Path, given: argparse.Namespace, problems: list[str]) -> bool:
    """Print what a checkpoint holds; whether all of it is as it should be."""
    from contextlm.checkpoints import contents  # torch takes seconds, mistakes do not

    found = contents.tensors(folder)
    run, parts = checkpoint_folder.read_run(folder), contents.totals(found)
    verdict = _verdict(folder, given.verify, problems)
    if given.json:
        listed = {"tensors": [asdict(tensor) for tensor in found]} if given.tensors else {}
        content = {"checkpoint": str(folder), "verification": verdict, "problems": problems, "parts": parts, "run": run}
        print(json.dumps(content | {"options": contents.options(folder)} | listed, indent=2))
        return not problems
    print(f"{folder}: {verdict}")
    rows = [(part, *(f"{number:,}" for number in total.values())) for part, total in parts.items()]
    sums = (f"{sum(total[column] for total in parts.values()):,}" for column in ("tensors", "values", "bytes"))
    _print_table("parts", ("part", "tensors", "values", "bytes"), [*rows, ("all", *sums)])
    if given.tensors:
        lines = [(x.name, str(list(x.shape)), x.dtype, f"{x.bytes:,}", " ".join(x.files)) for x in found]
        _print_table("tensors", ("tensor", "shape", "type", "bytes", "files"), lines)
    _print_table("run.json", ("fact", "value"), [(name, str(value)) for name, value in run.items()])
    values = contents.options(folder).items()
    _print_table("options", ("option", "value"), [(name, str(value)) for name, value in values if value is not None])
    return not problems


def _verdict(folder: Path, verify: bool, problems: list[str]) -> str:
    if problems:
        return f"damaged: {len(problems)} problem(s)"
    try:
        listed = manifest.read(folder)
    except (OSError, ValueError) as error:
        return f"{manifest.MANIFEST} cannot be read: {error}"
    if listed is None:
        return f"there is no {manifest.MANIFEST} to verify it with"
    size = sum(int(digest["bytes"]) for digest in listed.values())
    return f"{len(listed)} files, {size:,} bytes, {'as they were written' if verify else 'not verified (--verify)'}"


def _show_difference(first: Path, second: Path, as_json: bool) -> bool:
    """Print how two checkpoints differ; whether they do not."""
    from contextlm.checkpoints.contrast import contrast

    found = contrast(first, second)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
        return found.is_empty
    title = (str(first), str(second))
    _print_table("options", ("option", *title), [(name, str(a), str(b)) for name, (a, b) in found.options.items()])
    lone = [(name, "there", "") for name in found.only_first] + [(name, "", "there") for name in found.only_second]
    _print_table("tensors", ("tensor", *title), lone + [(name, a, b) for name, (a, b) in found.forms.items()])
    rows = [(name, f"{value:.3g}") for name, value in found.values.items()]
    _print_table("values", ("tensor", "greatest difference"), rows)
    print(f"{found.num_equal} tensors are equal, {len(rows)} hold other values")
    return found.is_empty


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for heading in headings:
        is_number = heading in ("tensors", "values", "bytes", "greatest difference")
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)


if __name__ == "__main__":
    main()
