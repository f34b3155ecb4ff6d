"""Reads a whole dataset and finds all that is wrong with it, so that training does not.

Opening (`indexed.py`) checks sizes and tables; here every id is read: does it belong to the vocabulary, does EOD end
each document and stand nowhere else, does the sidecar tell the truth? The program is `tools/validate_dataset.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contextlm.data.indexed import IndexedDataset, file_sha256
from contextlm.data.sidecar import Sidecar, read_sidecar, sampled_sha256
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError

CHUNK_TOKENS = 1 << 22


@dataclass
class Findings:
    """What was found.

    Attributes:
        problems: a sentence for each thing that is wrong.
        notes: a sentence for each thing that may be meant so.
        dataset: None if it cannot be opened.
        sidecar: None if there is none, or none that can be read.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dataset: IndexedDataset | None = None
    sidecar: Sidecar | None = None


@dataclass
class _Scan:
    """Counts over all tokens."""

    max_id: int = -1
    outside: int = 0  # ids that are not in the vocabulary
    first_outside: int = 0  # position of the first of them
    eod_at_end: int = 0  # documents that end with EOD
    eod_inside: int = 0  # EODs before the end of a document
    first_inside: int = 0  # position of the first of them


def validate_dataset(prefix: str, tokenizer: Tokenizer | None = None) -> Findings:
    """Check one dataset, with what its sidecar and `tokenizer` tell about it."""
    found = Findings()
    try:
        found.dataset = IndexedDataset(prefix)
    except UserError as error:
        found.problems += error.problems
    try:
        found.sidecar = read_sidecar(prefix)
    except UserError as error:
        found.problems += error.problems
    else:
        if found.sidecar is None:
            found.notes.append(f"{prefix}.json is not there: tokenizer and hash of the index cannot be compared")
    if found.sidecar is not None:
        found.problems += _sidecar_problems(prefix, found.sidecar, found.dataset, tokenizer)
    if found.dataset is not None:
        _check_tokens(found, prefix, tokenizer)
    return found


def _sidecar_problems(
    prefix: str, sidecar: Sidecar, dataset: IndexedDataset | None, tokenizer: Tokenizer | None
) -> list[str]:
    problems = []
    if Path(f"{prefix}.idx").is_file() and file_sha256(f"{prefix}.idx") != sidecar.idx_sha256:
        problems.append(f"{prefix}.idx is not the one that {prefix}.json describes: its hash is another")
    if dataset is not None and sidecar.bin_sampled_sha256 not in (None, sampled_sha256(f"{prefix}.bin")):
        problems.append(f"{prefix}.bin is not the one that {prefix}.json describes: the hash of its pieces is another")
    if dataset is not None:
        facts = {
            "tokens": (sidecar.tokens, dataset.num_tokens),
            "bytes in .bin": (sidecar.bin_bytes, dataset.bin_bytes),
            "documents": (sidecar.documents, len(dataset.document_starts) - 1),
        }
        problems += [
            f"{prefix}.json says {said} {name}, the dataset has {counted}"
            for name, (said, counted) in facts.items()
            if said != counted
        ]
    if tokenizer is not None and tokenizer.fingerprint != sidecar.tokenizer_fingerprint:
        problems.append(
            f"{prefix} was made with a {sidecar.tokenizer_type} (fingerprint {sidecar.tokenizer_fingerprint[:12]}), "
            f"not with the given {tokenizer.kind} (fingerprint {tokenizer.fingerprint[:12]})"
        )
    return problems


def _check_tokens(found: Findings, prefix: str, tokenizer: Tokenizer | None) -> None:
    dataset, sidecar = found.dataset, found.sidecar
    assert dataset is not None
    known = sidecar or tokenizer
    vocab_size = known.vocab_size if known else np.iinfo(dataset.dtype).max + 1
    eod = known.eod if known else None
    bounds = dataset.document_bounds
    scan = _scan(dataset, bounds, vocab_size, eod)
    if scan.outside:
        found.problems.append(
            f"{prefix}: {scan.outside} ids are outside the vocabulary of {vocab_size}, the first in "
            f"{_place(bounds, scan.first_outside)}; it was made with another tokenizer, or is damaged"
        )
    if sidecar is not None and sidecar.max_token_id != scan.max_id:
        found.problems.append(f"{prefix}.json says the largest id is {sidecar.max_token_id}, it is {scan.max_id}")
    if eod is None:
        found.notes.append(f"{prefix}: the EOD id is not known, so the ends of documents are not checked")
        return
    documents = len(bounds) - 1
    without = documents - scan.eod_at_end
    if without and (scan.eod_at_end or (sidecar is not None and sidecar.append_eod)):
        found.problems.append(f"{prefix}: {without} of {documents} documents do not end with EOD (id {eod})")
    elif without:
        found.notes.append(f"{prefix}: no document ends with EOD (id {eod}), as without --append-eod")
    if scan.eod_inside:
        found.problems.append(
            f"{prefix}: EOD (id {eod}) stands {scan.eod_inside} times inside documents, first in "
            f"{_place(bounds, scan.first_inside)}: text has forged the end of a document"
        )


def _place(bounds: np.ndarray, position: int) -> str:
    return f"document {int(np.searchsorted(bounds, position, side='right'))} of those that are not empty"


def _scan(dataset: IndexedDataset, bounds: np.ndarray, vocab_size: int, eod: int | None) -> _Scan:
    scan = _Scan()
    for start in range(0, dataset.num_tokens, CHUNK_TOKENS):
        ids = dataset.tokens(start, CHUNK_TOKENS)
        low, high = int(ids.min()), int(ids.max())
        scan.max_id = max(scan.max_id, high)
        if low < 0 or high >= vocab_size:
            outside = np.flatnonzero((ids < 0) | (ids >= vocab_size))
            scan.first_outside = scan.first_outside if scan.outside else start + int(outside[0])
            scan.outside += len(outside)
        if eod is None:
            continue
        first, last = np.searchsorted(bounds, (start + 1, start + len(ids) + 1))
        ends = bounds[first:last] - 1 - start  # of the documents that end in this chunk
        found = np.flatnonzero(ids == eod)
        at_end = int(np.count_nonzero(ids[ends] == eod))
        scan.eod_at_end += at_end
        if len(found) > at_end:
            inside = np.setdiff1d(found, ends, assume_unique=True)
            scan.first_inside = scan.first_inside if scan.eod_inside else start + int(inside[0])
            scan.eod_inside += len(inside)
    return scan


def samples(dataset: IndexedDataset, count: int, tokenizer: Tokenizer | None, num_tokens: int = 60) -> list[str]:
    """Beginnings of `count` documents, evenly spread: as text, or as ids where there is no tokenizer."""
    bounds = dataset.document_bounds
    last = len(bounds) - 2
    chosen = np.unique(np.linspace(0, last, count).astype(np.int64)).tolist() if last >= 0 else []
    lines = []
    for document in chosen:
        begin, end = int(bounds[document]), int(bounds[document + 1])
        ids = dataset.tokens(begin, min(num_tokens, end - begin)).tolist()
        text = repr(tokenizer.decode(ids)) if tokenizer else " ".join(map(str, ids))
        lines.append(
            f"document {document + 1}, {end - begin} tokens: {text}{'' if end - begin <= num_tokens else ' ...'}"
        )
    return lines
