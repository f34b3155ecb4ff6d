"""Reads the file of `--data-config`: the datasets of a run with their weights, for all splits or for each.

    datasets:                                # divided by `split`
      - {path: web_text_document, weight: 0.7}
      - {path: books_text_document, weight: 0.3}
    split: 98,2,0

Or lists `train`, `valid` and `test` in place of `datasets`, which are taken whole. Without weights, which all datasets
of a list have or none, each is drawn in proportion to its size. Paths are relative to the file. What it says becomes
the words of `--data-path` and its kin, whose checks follow: `resolve.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contextlm.config.blend import is_number
from contextlm.config.repeated_keys import repeated_keys
from contextlm.config.suggestions import nearest_name
from contextlm.config.values import in_yaml
from contextlm.errors import UserError

LISTS = {"datasets": "data_path", "train": "train_data_path", "valid": "valid_data_path", "test": "test_data_path"}
_KEYS = (*LISTS, "split")
_FORM = "write {path: PREFIX, weight: NUMBER}"


def read_data_config(path: str) -> dict[str, str | tuple[str, ...]]:
    """Field name -> what would be typed after its flag. Raises UserError with every problem of the file."""
    tree, problems = _read(path)
    problems += _keys(tree)
    words: dict[str, str | tuple[str, ...]] = {}
    for key, field in LISTS.items():
        if key in tree:
            words[field] = tuple(_words(key, tree[key], os.path.dirname(path), problems))
    if "split" in tree:
        words["split"] = _split(tree["split"], problems)
    if problems:
        raise UserError(*(f"--data-config {path}: {problem}" for problem in problems))
    return words


def _read(path: str) -> tuple[dict[str, Any], list[str]]:
    """What is in the file, and what is wrong about it without stopping anyone from reading on."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        problems = repeated_keys(text)
        tree = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"--data-config {path}: {error.strerror}; give an existing YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"--data-config {path}: is no UTF-8 text; give a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        cause = getattr(error, "problem", None) or " ".join(str(error).split())
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            f"--data-config {path}: not valid YAML: {cause}; mend {'it' if mark is None else f'line {mark.line + 1}'}"
        ) from None
    if not isinstance(tree, dict):
        raise UserError(f"--data-config {path}: holds no datasets; write `datasets:` and a list of them below it")
    return {str(key): node for key, node in tree.items()}, problems


def _keys(tree: Mapping[str, Any]) -> list[str]:
    """Keys that are unknown, missing or against each other."""
    problems = []
    for key in tree:
        if key not in _KEYS:
            near = nearest_name(key, _KEYS)
            problems.append(f"{key}: unknown key; " + (f"did you mean {near}?" if near else f"use {', '.join(_KEYS)}"))
    own = [key for key in ("train", "valid", "test") if key in tree]
    if "datasets" in tree and own:
        problems.append(f"datasets and {own[0]}: datasets are divided by `split`, {own[0]} is taken whole; keep one")
    if "datasets" not in tree and "split" in tree:
        problems.append("split: divides `datasets`, which are not there; drop it")
    if "datasets" not in tree and not own and not problems:
        problems.append("holds no datasets; write `datasets:` and a list of them below it")
    return problems


def _words(key: str, node: Any, folder: str, problems: list[str]) -> Iterator[str]:
    """The words of one list."""
    if not isinstance(node, list) or not node:
        problems.append(f"{key}: {in_yaml(node)} is no list of datasets; {_FORM} after a dash for each")
        return
    entries = [{"path": entry} if isinstance(entry, str) else entry for entry in node]
    weighted = [isinstance(entry, dict) and "weight" in entry for entry in entries]
    for number, entry in enumerate(entries):
        where = f"{key}, entry {number + 1}"
        if not isinstance(entry, dict):
            problems.append(f"{where}: {in_yaml(entry)} is no dataset; {_FORM}")
            continue
        for name in entry:
            if name not in ("path", "weight"):
                problems.append(f"{where}: {name}: unknown key; {_FORM}")
        if weighted[number]:
            yield _weight(entry["weight"], where, problems)
        elif any(weighted):
            problems.append(f"{where}: has no weight, but others have; give every dataset one, or none")
        yield _prefix(entry.get("path"), folder, where, problems)


def _weight(raw: Any, where: str, problems: list[str]) -> str:
    """A weight as a word; PyYAML reads 1e-1 as text."""
    is_one = isinstance(raw, (int, float, str)) and not isinstance(raw, bool) and is_number(str(raw))
    if not is_one or not 0 < float(raw) < math.inf:
        problems.append(
            f"{where}: weight {in_yaml(raw)} is not a positive number; leave out a dataset that is not wanted"
        )
    return str(raw)


def _prefix(raw: Any, folder: str, where: str, problems: list[str]) -> str:
    if not isinstance(raw, str) or not raw.strip():
        problems.append(
            f"{where}: " + ("path: is missing" if raw is None else f"path: {in_yaml(raw)} is no text") + f"; {_FORM}"
        )
        return ""
    prefix = os.path.join(folder, raw)
    return os.path.join(".", prefix) if is_number(prefix) else prefix


def _split(raw: Any, problems: list[str]) -> str:
    """Three numbers, as text or as a list."""
    if isinstance(raw, list):
        raw = ",".join(map(str, raw))
    if not isinstance(raw, str):
        problems.append(f"split: {in_yaml(raw)} is not three numbers; write split: 969,30,1")
        return ""
    return raw
