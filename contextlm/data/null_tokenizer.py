"""The tokenizer for data that are numbers already, as Megatron-LM's NullTokenizer: `12 7 803` is three tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from contextlm.data.tokenizer_interface import Tokenizer, fingerprint
from contextlm.errors import UserError


class NullTokenizer(Tokenizer):
    """Ids 0 to `vocab_size` - 1 are written as numbers, with blanks between them; `vocab_size` itself is EOD.

    Args:
        vocab_size: of `--vocab-size`, which does not count EOD; the attribute does.
    """

    kind = "NullTokenizer"

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size + 1
        self.eod = self._num_numbers = vocab_size
        self.eod_token = None
        self.fingerprint = fingerprint(self.kind, [str(vocab_size).encode()])

    def _encode(self, text: str) -> list[int]:
        ids = []
        for word in text.split():
            try:
                token = int(word)
            except ValueError:
                token = -1
            if not 0 <= token < self._num_numbers:
                last = self._num_numbers - 1
                raise UserError(f"{word[:40]!r} is no id; the NullTokenizer reads numbers from 0 to {last}")
            ids.append(token)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The numbers; EOD has no text."""
        return " ".join(str(int(token)) for token in ids if int(token) != self.eod)

    def token_byte_lengths(self) -> None:
        """Unknown: the numbers stand for no text."""
        return None

    def _settings(self) -> Mapping[str, Any]:
        return {"given_vocab_size": self.eod}
