"""Which tokenizer: from the configuration, or back from the folder a tokenizer was saved in.

The interface is in `tokenizer_interface.py`, each kind in a file of its own. Nothing here uses the network.
"""

from __future__ import annotations

import json
from pathlib import Path

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import DESCRIPTION_FILE, Tokenizer
from contextlm.errors import UserError

KINDS = ("ByteTokenizer", "SentencePieceTokenizer", "HuggingFaceTokenizer")


def build_tokenizer(data: DataConfig) -> Tokenizer:
    """The tokenizer that `--tokenizer-type`, `--tokenizer-model` and `--eod-token` name.

    Raises:
        UserError: an unknown kind, a missing or broken file, no such end-of-document token.
    """
    return _build(data.tokenizer_type, data.tokenizer_model, data.eod_token)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        UserError: there is none, or its files are not those it was saved with.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        kind, model = description["tokenizer_type"], description["tokenizer_model"]
        eod_token, expected = description["eod_token"], description["fingerprint"]
    except OSError:
        raise UserError(f"{path}: no such file; the folder holds no saved tokenizer") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the description of a tokenizer ({error!r})") from None
    tokenizer = _build(kind, None if model is None else str(path.parent / Path(model).name), eod_token)
    if tokenizer.fingerprint != expected:
        raise UserError(
            f"{path.parent / str(model)}: this is not the tokenizer that was saved here (fingerprint "
            f"{tokenizer.fingerprint[:12]}, saved {expected[:12]}); restore the file"
        )
    return tokenizer


def _build(kind: str | None, model: str | None, eod_token: str | None) -> Tokenizer:
    if kind not in KINDS:
        given = "is missing" if kind is None else f"{kind}: no such kind"
        raise UserError(f"--tokenizer-type {given}; choose one of {', '.join(KINDS)}")
    if kind == "ByteTokenizer":
        from contextlm.data.byte_tokenizer import ByteTokenizer

        unused = {"--tokenizer-model": model, "--eod-token": eod_token}
        problems = [
            f"{flag} {value}: the ByteTokenizer has no use for it; leave it out"
            for flag, value in unused.items()
            if value is not None
        ]
        if problems:
            raise UserError(*problems)
        return ByteTokenizer()
    if model is None:
        raise UserError(f"--tokenizer-model is missing: the {kind} needs its file")
    # Each library is imported only when its kind is asked for.
    if kind == "SentencePieceTokenizer":
        from contextlm.data.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(Path(model), eod_token)
    from contextlm.data.huggingface_tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(Path(model), eod_token)
