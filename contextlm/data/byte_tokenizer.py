"""The tokenizer that needs no file: one id per UTF-8 byte, plus EOD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from contextlm.data.tokenizer_interface import Tokenizer, fingerprint


class ByteTokenizer(Tokenizer):
    """Ids 0..255 are bytes, 256 is EOD."""

    kind = "ByteTokenizer"

    def __init__(self) -> None:
        self.vocab_size = 257
        self.eod = 256
        self.eod_token = None
        self.fingerprint = fingerprint(self.kind, [])

    def _encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As in every tokenizer, here without a library."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.frombuffer(b"".join(encoded), np.uint8), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the bytes among `ids`; EOD has no text."""
        return bytes(int(token) for token in ids if int(token) != self.eod).decode(errors="replace")

    def token_byte_lengths(self) -> np.ndarray:
        """int32 `[257]`: 1 for each byte, 0 for EOD."""
        lengths = np.ones(self.vocab_size, dtype=np.int32)
        lengths[self.eod] = 0
        return lengths
