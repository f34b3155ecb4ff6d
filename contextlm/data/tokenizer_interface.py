"""What a tokenizer is to the rest of the system, and the rule that no text forges a control token.

Each kind has a file, `*_tokenizer.py`; `tokenizers.py` picks one. Many texts at once: `batch_encoding.py`.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from contextlm import atomic_files
from contextlm.data.batch_encoding import BatchEncoder, QuickLibrary
from contextlm.errors import UserError

DESCRIPTION_FILE = "contextlm_tokenizer.json"


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        kind: the word of `--tokenizer-type`.
        vocab_size: ids are in `[0, vocab_size)`.
        eod: id that ends a document, or None where the vocabulary has none.
        eod_token: text of `eod`, or None where it has none.
        fingerprint: sha256 of the kind and the model file; equal for equal token ids.
    """

    kind: str
    vocab_size: int
    eod: int | None
    eod_token: str | None
    fingerprint: str

    @property
    def control_texts(self) -> Mapping[int, str]:
        """Ids that no document may produce, each with the text that would forge it."""
        return {}

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS or EOD.

        The text of a control token (`<|endoftext|>` in a web page) is encoded as ordinary text.

        Raises:
            UserError: the tokenizer insists on a control token for this text.
            ValueError: the text holds a lone surrogate and so is not valid Unicode.
        """
        text.encode()  # The libraries report a lone surrogate in ways of their own.
        ids = self._encode(text)
        control = self.control_texts
        if control.keys().isdisjoint(ids):
            return ids
        # Cut each literal after its first character: no piece then holds a whole control text.
        forgeries = "|".join(re.escape(forged) for forged in control.values() if forged)
        pieces = re.split(f"(?<=(?=(?:{forgeries})).)", text, flags=re.DOTALL)
        ids = [token for piece in pieces if piece for token in self._encode(piece)]
        if not control.keys().isdisjoint(ids):
            names = sorted(control[token] for token in set(ids) & control.keys())
            raise UserError(
                f"the {self.kind} turns ordinary text of a document into {', '.join(names)}: "
                "leave this document out, or use a tokenizer whose control tokens are marked special"
            )
        return ids

    def encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids that `encode` gives, of several texts, by a quicker library where one proves to agree with it.

        Returns:
            ids of all texts one after another, `[tokens]`, unsigned; ids of each text, int64 `[texts]`.

        Raises:
            UserError, ValueError: as `encode`, for any of the texts.
        """
        return self.batch_encoder.encode(texts)

    @cached_property
    def batch_encoder(self) -> BatchEncoder:
        """What `encode_batch` encodes with; it knows which library that is."""
        return BatchEncoder(self.encode, self._quick_libraries(), self._special_texts(), self.control_texts)

    def _quick_libraries(self) -> Iterable[QuickLibrary]:
        """Other libraries for the same vocabulary, the quickest first."""
        return ()

    def _special_texts(self) -> Iterable[str]:
        """Texts that such a library may take for a control token."""
        return self.control_texts.values()

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Token ids of `text`, as the library gives them."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, so any cut of a sequence decodes."""

    @abstractmethod
    def token_byte_lengths(self) -> np.ndarray | None:
        """UTF-8 bytes of text that each id stands for, int32 `[vocab_size]`; 0 for control tokens.

        None where the kind of vocabulary does not tell (WordPiece): bits per byte are then unknown.
        """

    def _model_files(self) -> Mapping[str, bytes]:
        """Files that rebuild this tokenizer, by name; those of `_settings`, else the first is `--tokenizer-model`."""
        return {}

    def _settings(self) -> Mapping[str, Any]:
        """Other options that rebuild it, by the names of their flags; files by their names in `_model_files`."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the tokenizer into `folder`, from which `tokenizers.load_tokenizer` rebuilds it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = self._model_files()
        for name, content in files.items():
            atomic_files.write_bytes(folder / name, content)
        description = {
            "tokenizer_type": self.kind,
            "tokenizer_model": next(iter(files), None),
            **self._settings(),
            "eod_token": self.eod_token,
            "vocab_size": self.vocab_size,
            "fingerprint": self.fingerprint,
        }
        atomic_files.write_json(folder / DESCRIPTION_FILE, description)


def fingerprint(kind: str, parts: Sequence[bytes]) -> str:
    """sha256 (hex) of a tokenizer's kind and the content of its model files."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
