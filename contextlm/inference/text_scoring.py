"""Score texts: documents one by one, in windows, and the last words of passages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contextlm.analysis.errors_of_means import loss_measures, ratio_and_error, share_and_error
from contextlm.errors import UserError
from contextlm.inference.subject import Subject
from contextlm.inference.windows import Window, scored, sliding_windows

Progress = Callable[[int, int], None]


class Document(NamedTuple):
    """Token ids, and the UTF-8 bytes they stand for; None if not known."""

    tokens: Sequence[int]
    num_bytes: int | None


def read_texts(paths: Iterable[str]) -> Iterator[str]:
    """The texts of files: each line of a .jsonl is an object with a `text`, any other file is one text.

    Raises:
        UserError: a file cannot be read, or a line is not that.
    """
    for path in map(Path, paths):
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); give UTF-8 text or .jsonl") from None
        if path.suffix != ".jsonl":
            yield content
            continue
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
                text.encode()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{path}:{number}: not a JSON object with a `text`") from None
            yield text


def documents_of_texts(examined: Subject, paths: Iterable[str]) -> list[Document]:
    """The texts of files under the model's tokenizer."""
    return [Document(examined.tokenizer.encode(text), len(text.encode())) for text in read_texts(paths)]


def score_documents(
    examined: Subject,
    documents: Sequence[Document],
    *,
    length: int,
    stride: int,
    batch_size: int,
    progress: Progress = lambda done, total: None,
) -> dict[str, float | int | None]:
    """Loss, perplexity and bits per byte of documents, each read by itself behind an end of document.

    Args:
        examined: the model.
        documents: at least one with a token to predict.
        length: tokens of a window.
        stride: how far a window is from the one before.
        batch_size: windows per forward pass.
        progress: told how many windows of how many are done.
    """
    prefix = examined.tokenizer.eod if examined.begins_after_an_end else None
    cut = [list(sliding_windows(document.tokens, prefix, length, stride)) for document in documents]
    results = iter(scored(examined, [window for windows in cut for window in windows], batch_size, progress))
    losses, counts, sizes = [], [], []
    for document, windows in zip(documents, cut, strict=True):
        values = [value for _ in windows for value in next(results).log_probabilities]
        if values:
            losses.append(-math.fsum(values))
            counts.append(len(values))
            sizes.append(document.num_bytes)
    if not counts:
        raise UserError("the texts hold no token to predict; give longer ones")
    known = [size for size in sizes if size is not None]
    return loss_measures(losses, counts, known if len(known) == len(sizes) else None)


def score_last_words(
    examined: Subject, texts: Sequence[str], *, batch_size: int, progress: Progress = lambda done, total: None
) -> dict[str, float | int | None]:
    """As LAMBADA asks: is each token of a passage's last word the likeliest, given the rest of the passage?

    Args:
        examined: the model.
        texts: passages of two words or more; the last word begins behind the last space.
        batch_size: passages per forward pass.
        progress: told how many passages of how many are done.

    Returns:
        `accuracy`, `perplexity` of the last words (exp of the mean loss of a word), their `_stderr`, and `texts`.
    """
    windows = []
    for number, text in enumerate(texts, 1):
        passage, space, word = text.rpartition(" ")
        if not (passage and word):
            raise UserError(f"--last-word: passage {number} has no last word behind a space: {text[:40]!r}")
        before, whole = examined.tokenizer.encode(passage), examined.tokenizer.encode(text)
        targets = whole[len(before) :]
        if not targets:
            raise UserError(f"--last-word: the tokens of passage {number} do not show where its last word begins")
        windows.append(Window(whole[:-1][-examined.num_positions :], targets))
    results = scored(examined, windows, batch_size, progress)
    accuracy, accuracy_error = share_and_error([all(result.is_likeliest) for result in results])
    loss, loss_error = ratio_and_error([-math.fsum(r.log_probabilities) for r in results], [1] * len(results))
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {
        "accuracy": accuracy,
        "accuracy_stderr": accuracy_error,
        "perplexity": perplexity,
        "perplexity_stderr": None if loss_error is None else perplexity * loss_error,
        "texts": len(results),
    }
