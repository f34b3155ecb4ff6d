"""The study file: YAML -> arms, each a checked configuration, or one error with every problem in it.

    data: {text: corpus.jsonl}            or {prefix: data/my_text_document}; --text replaces either
    tokenizer: {vocab_size: 2048}         trained on the text, or {tokenizer_type: ..., tokenizer_model: ...}
    flags: {model: gpt2-tiny, ...}        options of pretrain_contextlm.py that all arms share
    arms:
      plain: {}                           options of one arm, over the shared ones
      gated: {context_chunk_size: 4}
      deeper: {match: params, of: gated, by: depth}
    seeds: [1, 2, 3]                      each arm is trained once with each
    baselines: [plain, deeper]            the other arms are compared to these, seed by seed

Read next: `arms.py`, which turns options into configurations, and `runs.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contextlm.analysis.matching import BUDGETS, SIZES
from contextlm.comparison.arms import MATCH_KEYS, Arm, build_arms
from contextlm.config.repeated_keys import repeated_keys
from contextlm.config.suggestions import nearest_name
from contextlm.errors import UserError

LEAST_SEEDS = 3  # with two, Student's t is 12.7 and no interval says anything
_KEYS = ("data", "tokenizer", "flags", "arms", "seeds", "baselines")
_DATA_KEYS = ("text", "prefix")
_TOKENIZER_KEYS = ("vocab_size", "tokenizer_type", "tokenizer_model", "eod_token")
_ARM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]*")  # it names folders, which --retrain-changed removes


@dataclass(frozen=True)
class Source:
    """Where the tokens come from.

    Attributes:
        text: file, pattern, folder or Hub dataset that is to be tokenized; None where `prefix` is given.
        prefix: dataset prefix; None where `text` is given. Both are None in a file that leaves it to --text.
        vocab_size: of a SentencePiece tokenizer that is trained on the text; None where one is given.
        tokenizer_type, tokenizer_model, eod_token: as the flags of training.
    """

    text: str | None = None
    prefix: str | None = None
    vocab_size: int | None = None
    tokenizer_type: str | None = None
    tokenizer_model: str | None = None
    eod_token: str | None = None


@dataclass(frozen=True)
class Study:
    """What is to be trained and compared.

    Attributes:
        name: the file's, without its suffix.
        arms: by name, in the order of the file.
        baselines: names of the arms that the others are compared to.
    """

    name: str
    source: Source
    arms: dict[str, Arm]
    seeds: tuple[int, ...]
    baselines: tuple[str, ...]
    vocab_size: int


def read_study(path: Path, text: str | None = None) -> Study:
    """The study in a file.

    Args:
        text: replaces what the file says about `data`.

    Raises:
        UserError: every mistake in the file; unknown keys with the nearest known one.
    """
    tree, problems = _load(path)
    problems += _unknown(tree, _KEYS, "")
    source = _source(tree, text, problems)
    options = _options(tree, problems)
    seeds = _seeds(tree.get("seeds"), problems)
    baselines = _names(tree.get("baselines"), options, problems)
    shared = _mapping(tree, "flags", problems)
    vocab_size = _vocab_size(source, problems)
    arms = build_arms(shared, options, vocab_size, problems)
    if problems:
        raise UserError(*(f"{path}: {problem}" for problem in problems))
    return Study(path.stem, source, arms, seeds, baselines, vocab_size)


def _load(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The file's content, and the keys that are given twice, of which PyYAML would silently take the last."""
    try:
        text = path.read_text(encoding="utf-8")
        tree, problems = yaml.safe_load(text), repeated_keys(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a study file, such as those in examples/studies") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that no calendar has is a ValueError
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no keys; write {', '.join(_KEYS)}")
    return tree, problems


def _unknown(tree: Mapping[str, Any], known: tuple[str, ...], where: str) -> list[str]:
    problems = []
    for key in tree:
        if key not in known:
            near = nearest_name(str(key), known)
            hint = f"did you mean {near}?" if near else f"use {', '.join(known)}"
            problems.append(f"{where}{key}: unknown key; {hint}")
    return problems


def _mapping(tree: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    """The mapping under a key, its own keys with underscores; empty where there is none."""
    node = tree.get(key)
    if node is None:
        return {}
    if not isinstance(node, dict):
        problems.append(f"{key}: {node!r} is not a mapping; write its entries indented below")
        return {}
    names = [str(name).replace("-", "_") for name in node]
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"{key}.{name}: is given twice, with a dash and without; keep one" for name in twice]
    return dict(zip(names, node.values(), strict=True))


def _source(tree: Mapping[str, Any], text: str | None, problems: list[str]) -> Source:
    data, tokenizer = _mapping(tree, "data", problems), _mapping(tree, "tokenizer", problems)
    problems += _unknown(data, _DATA_KEYS, "data.") + _unknown(tokenizer, _TOKENIZER_KEYS, "tokenizer.")
    named = _texts(tokenizer, _TOKENIZER_KEYS[1:], "tokenizer.", problems)
    places = {"text": text} if text is not None else _texts(data, _DATA_KEYS, "data.", problems)
    if len(places) > 1:
        problems.append("data: text and prefix are both given; keep one")
    size = tokenizer.get("vocab_size")
    if (size is None) == ("tokenizer_type" not in named):
        problems.append(
            "tokenizer: give vocab_size, of one to be trained on the text, or tokenizer_type and tokenizer_model"
        )
    elif size is not None and "prefix" in places:
        problems.append("tokenizer.vocab_size: data.prefix is tokenized; give its tokenizer_type and tokenizer_model")
    if size is not None and (type(size) is not int or size < 1):
        problems.append(f"tokenizer.vocab_size: {size!r} is no size; give a whole number >= 1")
        size = None
    return Source(**places, **named, vocab_size=size)


def _texts(tree: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[str]) -> dict[str, str]:
    """The entries of known keys that are text; anything else there is a problem."""
    given = {key: tree[key] for key in known if tree.get(key) is not None}
    problems += [
        f"{where}{key}: {value!r} is no text; put it in quotes"
        for key, value in given.items()
        if not isinstance(value, str)
    ]
    return {key: value for key, value in given.items() if isinstance(value, str)}


def _options(tree: Mapping[str, Any], problems: list[str]) -> dict[str, dict[str, Any]]:
    """The options of each arm; what `match`, `of` and `by` say is checked here."""
    arms = _mapping({"arms": tree.get("arms") or {}}, "arms", problems)
    if len(arms) < 2:
        problems.append("arms: give at least two, e.g. plain: {} and gated: {context_chunk_size: 4}")
    options = {name: _mapping({f"arms.{name}": node}, f"arms.{name}", problems) for name, node in arms.items()}
    problems += [
        f"arms.{name}: is no name of a folder; use letters, digits, _ and ."
        for name in options
        if not _ARM_NAME.fullmatch(name)
    ]
    for name, own in options.items():
        given = [key for key in MATCH_KEYS if key in own]
        if not given:
            continue
        where = f"arms.{name}"
        if len(given) < len(MATCH_KEYS):
            problems.append(f"{where}: match, of and by go together, e.g. match: params, of: gated, by: depth")
            continue
        for key, known in (("match", tuple(BUDGETS)), ("by", tuple(SIZES)), ("of", tuple(options))):
            if own[key] not in known:
                near = nearest_name(str(own[key]), known)
                hint = f"did you mean {near}?" if near else f"use one of {', '.join(known)}"
                problems.append(f"{where}.{key}: {own[key]!r} is not known; {hint}")
        if "match" in options.get(str(own["of"]), {}):
            problems.append(f"{where}.of: {own['of']} is itself matched to another arm; name that one")
    return options


def _seeds(node: Any, problems: list[str]) -> tuple[int, ...]:
    seeds = node if isinstance(node, list) else []
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        problems.append(f"seeds: {node!r}: give whole numbers >= 0, e.g. [1, 2, 3]")
    elif len(set(seeds)) < len(seeds) or len(seeds) < LEAST_SEEDS:
        problems.append(f"seeds: {node!r}: an interval needs at least {LEAST_SEEDS} different ones, e.g. [1, 2, 3]")
    return tuple(seeds)


def _names(node: Any, arms: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    names = tuple(map(str, node)) if isinstance(node, list) else ()
    if not names:
        problems.append("baselines: give the arms that the others are compared to, e.g. [plain]")
    for name in names:
        if name not in arms:
            near = nearest_name(name, arms)
            hint = f"did you mean {near}?" if near else f"use one of {', '.join(arms)}"
            problems.append(f"baselines: {name}: no such arm; {hint}")
    return names


def _vocab_size(source: Source, problems: list[str]) -> int:
    """The tokenizer's, which need not have been trained yet; 0 after a noted problem."""
    if source.vocab_size is not None:
        return source.vocab_size
    from contextlm.config.schema import DataConfig
    from contextlm.data.tokenizers import build_tokenizer

    try:
        names = ("tokenizer_type", "tokenizer_model", "eod_token")
        given = {name: getattr(source, name) for name in names}
        return build_tokenizer(DataConfig(**given)).vocab_size if source.tokenizer_type else 0
    except UserError as error:
        problems += [f"tokenizer: {problem}" for problem in error.problems]
        return 0
