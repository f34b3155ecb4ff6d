"""`tokenizer.json` files of the Hugging Face `tokenizers` library, without transformers or the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from contextlm.data.batch_encoding import EncodeArray, QuickLibrary
from contextlm.data.tokenizer_interface import Tokenizer, fingerprint
from contextlm.errors import UserError

USUAL_EOD_TOKENS = ("<|endoftext|>", "</s>", "<|end_of_text|>")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, or a folder that holds one.

    EOD is `eod_token`, else `eos_token` of a `tokenizer_config.json` beside it, else the one special token
    among `USUAL_EOD_TOKENS`.

    Raises:
        UserError: the file is missing or no tokenizer, or the end-of-document token cannot be told.
    """

    kind = "HuggingFaceTokenizer"

    def __init__(self, model: Path, eod_token: str | None = None) -> None:
        import tokenizers

        path = model / "tokenizer.json" if model.is_dir() else model
        if not path.is_file():
            raise UserError(f"--tokenizer-model {model}: no such file; give a tokenizer.json or a folder with one")
        self._json = path.read_bytes()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(self._json.decode())
        except Exception as error:  # The library raises bare Exception.
            raise UserError(f"--tokenizer-model {path}: not a tokenizer.json of `tokenizers` ({error})") from None
        self.fingerprint = fingerprint(self.kind, [self._json])
        self._set_up(eod_token or configured_eos(path.parent), f"--tokenizer-model {path}")

    def _set_up(self, eod_token: str | None, where: str) -> None:
        """Find EOD, and have special text in documents be ordinary text."""
        import tokenizers

        if self._tokenizer.truncation or self._tokenizer.padding:
            # Settings of somebody's batches: they would cut or pad documents.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._json_to_encode = self._tokenizer.to_str().encode()
        else:
            self._json_to_encode = self._json
        self.eod_token = eod_token or self._usual_eod(where)
        self.eod = self._tokenizer.token_to_id(self.eod_token)
        if self.eod is None:
            raise UserError(f"{where}: end-of-document token {self.eod_token!r} is not in it; set --eod-token")
        self._tokenizer.add_special_tokens([tokenizers.AddedToken(self.eod_token, special=True, normalized=False)])
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        self._control = self._special_tokens()
        self._control.setdefault(self.eod, self.eod_token)

    def _special_tokens(self) -> dict[int, str]:
        added = self._tokenizer.get_added_tokens_decoder()
        # The unknown token is an honest answer to a character outside the vocabulary, not a forgery.
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return {token: entry.content for token, entry in added.items() if entry.special and entry.content != unknown}

    def _usual_eod(self, where: str) -> str:
        special = set(self._special_tokens().values())
        found = [token for token in USUAL_EOD_TOKENS if token in special]
        if len(found) != 1:
            raise UserError(
                f"{where}: the end-of-document token cannot be told (special tokens among "
                f"{', '.join(USUAL_EOD_TOKENS)}: {', '.join(found) or 'none'}); set --eod-token"
            )
        return found[0]

    @property
    def control_texts(self) -> Mapping[int, str]:
        """Every special token except the unknown one."""
        return self._control

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _quick_libraries(self) -> Iterable[QuickLibrary]:
        return [QuickLibrary("gigatoken", self._gigatoken)]

    def _gigatoken(self) -> EncodeArray:
        import gigatoken

        return gigatoken.Tokenizer.from_json(self._json_to_encode).encode

    def _special_texts(self) -> Iterable[str]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return [entry.content for entry in added if entry.special]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens have none."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)

    def token_byte_lengths(self) -> np.ndarray | None:
        """int32 `[vocab_size]` for byte-level and byte-fallback vocabularies, else None.

        Lengths are those of the text after the tokenizer's own normalisation (NFC, an added first space).
        """
        decoder = json.dumps(json.loads(self._json).get("decoder"))
        if '"ByteLevel"' in decoder:
            length: Callable[[str], int] = len  # Each character of a piece stands for one byte.
        elif '"Metaspace"' in decoder or '"ByteFallback"' in decoder:
            length = _sentencepiece_length
        else:
            return None
        added = self._tokenizer.get_added_tokens_decoder()
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        for piece, token in self._tokenizer.get_vocab(with_added_tokens=True).items():
            if token in added:
                lengths[token] = 0 if added[token].special else len(added[token].content.encode())
            else:
                lengths[token] = length(piece)
        return lengths

    def _model_files(self) -> Mapping[str, bytes]:
        return {"tokenizer.json": self._json}


def _sentencepiece_length(piece: str) -> int:
    return 1 if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else len(piece.replace("\u2581", " ").encode())


def configured_eos(folder: Path) -> str | None:
    """`eos_token` of the folder's tokenizer_config.json: a string, or a mapping with `content`."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a JSON object ({error}); mend or remove it, or set --eod-token") from None
    return entry.get("content") if isinstance(entry, dict) else entry
