"""Does a dataset belong to the run's tokenizer? Asked before training, not by a CUDA assertion inside it.

With a sidecar (`sidecar.py`) its facts are compared; without one the ids themselves are scanned.
"""

from __future__ import annotations

from contextlm.data.indexed import IndexedDataset
from contextlm.data.sidecar import Sidecar, read_sidecar
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.errors import UserError

SCAN_LIMIT_BYTES = 2 << 30
SCAN_PIECES = 64
SCAN_CHUNK_TOKENS = 1 << 24


def check_dataset(dataset: IndexedDataset, tokenizer: Tokenizer) -> None:
    """Compare a dataset with the tokenizer of the run.

    Raises:
        UserError: another tokenizer made it, its ids leave the vocabulary, or its sidecar describes
            another dataset.
    """
    sidecar = read_sidecar(dataset.prefix)
    if sidecar is None:
        low, high = _scan(dataset)
    else:
        _check_sidecar(dataset, tokenizer, sidecar)
        low, high = 0, sidecar.max_token_id
    if low < 0 or high >= tokenizer.vocab_size:
        raise UserError(
            f"--data-path {dataset.prefix}: token id {low if low < 0 else high} is outside the vocabulary of "
            f"{tokenizer.vocab_size} ({tokenizer.kind}); give the tokenizer the data was made with"
        )


def _check_sidecar(dataset: IndexedDataset, tokenizer: Tokenizer, sidecar: Sidecar) -> None:
    if not sidecar.describes(dataset):
        raise UserError(
            f"{dataset.prefix}.json describes other .bin/.idx files than those beside it; restore the files "
            "that belong together, or make the dataset again"
        )
    if sidecar.tokenizer_fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"--data-path {dataset.prefix} was made with a {sidecar.tokenizer_type} (fingerprint "
            f"{sidecar.tokenizer_fingerprint[:12]}), the run has a {tokenizer.kind} (fingerprint "
            f"{tokenizer.fingerprint[:12]}): give that tokenizer with --tokenizer-type and "
            "--tokenizer-model, or make the dataset again with tools/preprocess_data.py"
        )


def _scan(dataset: IndexedDataset) -> tuple[int, int]:
    """Smallest and largest id; of a dataset above `SCAN_LIMIT_BYTES` in pieces of it, both ends among them.

    What lies between is looked at when it is read (`samples.py`).
    """
    limit = SCAN_LIMIT_BYTES // dataset.dtype.itemsize
    spans = [(0, dataset.num_tokens)]
    if dataset.num_tokens > limit:
        size = limit // SCAN_PIECES
        begins = [place * (dataset.num_tokens - size) // (SCAN_PIECES - 1) for place in range(SCAN_PIECES)]
        spans = [(begin, begin + size) for begin in begins]
    low, high = 0, -1
    for begin, end in spans:
        for start in range(begin, end, SCAN_CHUNK_TOKENS):
            chunk = dataset.tokens(start, min(SCAN_CHUNK_TOKENS, end - start))
            low, high = min(low, int(chunk.min())), max(high, int(chunk.max()))
    return low, high
