"""Strict parsers of `--data-path` and its kin for one split each, of a file that holds its words, and of `--split`.

Megatron reads `0.7 A B C` as four datasets, one named "0.7", and `--split 0,0,0` as NaN; here the bad word is
named. Used by the checks of `named_files.py` and by `data/datasets.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from contextlm.errors import UserError


def parse_blend(tokens: Sequence[str], flag: str = "--data-path") -> list[tuple[float | None, str]]:
    """Pairs of weight and dataset prefix.

    `[P]` is one dataset, `[w, P, w, P, ...]` a weighted blend (weights are scaled to sum 1). Several prefixes
    without weights have the weight None: each is drawn in proportion to its size, as in Megatron. `flag` is where
    the words come from.

    Raises:
        UserError: naming every word that is out of place.
    """
    if not tokens:
        raise UserError(f"{flag} is missing: give a dataset prefix, or weight prefix weight prefix ...")
    if not any(is_number(token) for token in tokens):
        problems = _duplicates(tokens, flag)
        weights: list[float | None] = [1.0 if len(tokens) == 1 else None] * len(tokens)
        prefixes = list(tokens)
    else:
        problems = [
            problem for place, token in enumerate(tokens) if (problem := _misplaced(place, token, tokens, flag))
        ]
        prefixes = list(tokens[1::2])
        if len(tokens) % 2:
            problems = problems or [
                f"{flag}: the last weight, {tokens[-1]}, has no prefix after it; add it or drop the weight"
            ]
        problems = problems or _duplicates(prefixes, flag)
        given = [] if problems else [float(token) for token in tokens[::2]]
        total = sum(given)
        if math.isinf(total):
            problems.append(f"{flag}: the weights add up to infinity; give smaller ones")
        weights = [weight / total for weight in given]
        if 0.0 in weights and not problems:
            problems.append(f"{flag}: a weight vanishes beside the others; leave that dataset out")
    if problems:
        raise UserError(*problems)
    return list(zip(weights, prefixes, strict=True))


def read_blend(path: str) -> tuple[str, ...]:
    """The words of a file (`--data-args-path`) that stand for those of `--data-path`. Raises UserError."""
    try:
        words = tuple(Path(path).read_text(encoding="utf-8").split())
    except OSError as error:
        raise UserError(f"--data-args-path {path}: {error.strerror}; give an existing text file") from None
    except UnicodeDecodeError:
        raise UserError(f"--data-args-path {path}: is no text; give a file with the words of --data-path") from None
    if not words:
        raise UserError(f"--data-args-path {path}: holds no words; write those of --data-path into it")
    return words


def parse_split(text: str) -> tuple[float, float, float]:
    """Shares of training, validation and test documents, scaled to sum 1.

    Raises:
        UserError: `text` is not three non-negative finite numbers with a positive sum.
    """
    remedy = "give three non-negative numbers with a positive sum, as in 969,30,1"
    words = text.split(",")
    bad = [word for word in words if not is_number(word) or not math.isfinite(float(word)) or float(word) < 0]
    if bad:
        raise UserError(f"--split {text}: {bad[0]!r} is not a non-negative number; {remedy}")
    if len(words) != 3:
        raise UserError(f"--split {text}: {len(words)} {'number' if len(words) == 1 else 'numbers'}; {remedy}")
    shares = [float(word) for word in words]
    total = sum(shares)
    if not 0 < total < math.inf:
        raise UserError(f"--split {text}: the sum is {total:g}; {remedy}")
    return shares[0] / total, shares[1] / total, shares[2] / total


def is_number(token: str) -> bool:
    """Whether a word of a blend is a weight rather than a prefix."""
    try:
        float(token)
    except ValueError:
        return False
    return True


def _misplaced(place: int, token: str, tokens: Sequence[str], flag: str) -> str | None:
    """What is wrong with one word of a weighted blend, if anything."""
    if place % 2:
        if is_number(token):
            return f"{flag}: {token} stands where a prefix is expected, after weight {tokens[place - 1]}" + (
                f"; write ./{token} if a dataset has that name"
            )
        return None
    if not is_number(token):
        return f"{flag}: {token} stands where a weight is expected; give every prefix a weight, or none"
    if not (math.isfinite(float(token)) and float(token) > 0):
        return f"{flag}: weight {token} is not a positive number; leave out a dataset that is not wanted"
    return None


def _duplicates(prefixes: Sequence[str], flag: str) -> list[str]:
    twice = sorted({prefix for prefix in prefixes if list(prefixes).count(prefix) > 1})
    return [f"{flag}: {prefix} is given more than once; give it once, with the sum of its weights" for prefix in twice]
