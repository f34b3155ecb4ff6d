"""Options about the ends of documents need ends: a token for them, and data that has it."""

from __future__ import annotations

from collections.abc import Iterable

from contextlm.config.schema import DataConfig
from contextlm.data.indexed import IndexedDataset
from contextlm.data.tokenizer_interface import Tokenizer

LOOKED_AT = 100  # documents of each dataset: all, or none, of them end with the token, by how the dataset was made


def boundary_problems(data: DataConfig, tokenizer: Tokenizer | None, datasets: Iterable[IndexedDataset]) -> list[str]:
    """What would leave an option without effect, in silence; without a tokenizer nothing is known."""
    options = {
        "--reset-position-ids": data.reset_position_ids,
        "--reset-attention-mask": data.reset_attention_mask,
        "--eod-mask-loss": data.eod_mask_loss,
    }
    flag = next((flag for flag, given in options.items() if given), None)
    if flag is None or tokenizer is None:
        return []
    if tokenizer.eod is None:
        return [f"{flag}: the {tokenizer.kind} has no end-of-document token; name one with --eod-token, or drop {flag}"]
    return [
        f"{flag}: no document of {dataset.prefix} ends with the end-of-document token {tokenizer.eod}; make it again "
        f"with --append-eod, or drop {flag}"
        for dataset in datasets
        if not _any_ends_with(dataset, tokenizer.eod)
    ]


def _any_ends_with(dataset: IndexedDataset, eod: int) -> bool:
    return any(dataset.tokens(int(end) - 1, 1)[0] == eod for end in dataset.document_bounds[1 : LOOKED_AT + 1])
