"""GPT-2's byte-level BPE from its two files, `vocab.json` and `merges.txt`, as Megatron-LM's GPT2BPETokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextlm.data.huggingface_tokenizer import USUAL_EOD_TOKENS, HuggingFaceTokenizer, configured_eos
from contextlm.data.tokenizer_interface import fingerprint
from contextlm.errors import UserError


class GPT2BPETokenizer(HuggingFaceTokenizer):
    """The same ids as the `tokenizer.json` of that vocabulary.

    EOD as for a `tokenizer.json`; entries of the vocabulary among `USUAL_EOD_TOKENS` are special tokens.

    Raises:
        UserError: a file is missing or not of that kind, or the end-of-document token cannot be told.
    """

    kind = "GPT2BPETokenizer"

    def __init__(self, vocab_file: Path, merge_file: Path, eod_token: str | None = None) -> None:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        self._files = {"vocab.json": _read(vocab_file, "--vocab-file"), "merges.txt": _read(merge_file, "--merge-file")}
        vocabulary = _vocabulary(self._files["vocab.json"], vocab_file)
        merges = _merges(self._files["merges.txt"], merge_file)
        try:
            self._tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
        except Exception as error:  # The library raises bare Exception.
            raise UserError(
                f"--merge-file {merge_file}: does not belong to --vocab-file {vocab_file} ({error})"
            ) from None
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()
        usual = [token for token in USUAL_EOD_TOKENS if token in vocabulary]
        self._tokenizer.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in usual])
        self._json = self._tokenizer.to_str().encode()
        self.fingerprint = fingerprint(self.kind, list(self._files.values()))
        self._set_up(eod_token or configured_eos(vocab_file.parent), f"--vocab-file {vocab_file}")

    def _model_files(self) -> Mapping[str, bytes]:
        return self._files

    def _settings(self) -> Mapping[str, Any]:
        return {"tokenizer_model": None, "vocab_file": "vocab.json", "merge_file": "merges.txt"}


def _read(path: Path, flag: str) -> bytes:
    if not path.is_file():
        raise UserError(f"{flag} {path}: no such file; give the file of a GPT-2 vocabulary")
    return path.read_bytes()


def _vocabulary(content: bytes, path: Path) -> dict[str, int]:
    try:
        vocabulary = json.loads(content)
        if not (isinstance(vocabulary, dict) and all(type(token) is int for token in vocabulary.values())):
            raise ValueError("an object of texts and their ids is expected")
    except ValueError as error:
        raise UserError(f"--vocab-file {path}: not a vocab.json ({error})") from None
    return vocabulary


def _merges(content: bytes, path: Path) -> list[tuple[str, str]]:
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"--merge-file {path}: not a merges.txt ({error})") from None
    # Only the first line may be a comment: `# #` is a merge like any other.
    rows = [line.rstrip("\r").split(" ") for line in lines[lines[0].startswith("#version") :] if line.strip()]
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise UserError(f"--merge-file {path}: not a merges.txt; {' '.join(wrong)[:40]!r} is no pair of two words")
    return [(left, right) for left, right in rows]
