"""Which tokenizer: from the configuration, or back from the folder a tokenizer was saved in.

The interface is in `tokenizer_interface.py`, each kind in a file of its own. Nothing here uses the network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextlm.config.schema import DataConfig
from contextlm.config.sections.data import KINDS
from contextlm.config.tokenizer_checks import tokenizer_problems
from contextlm.data.tokenizer_interface import DESCRIPTION_FILE, Tokenizer
from contextlm.errors import UserError


def build_tokenizer(data: DataConfig, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer that `--tokenizer-type` and its other options name.

    Args:
        vocab_size: of `--vocab-size`, which two kinds read: the NullTokenizer has no file that tells it, and the
            TikTokenizer may take a part of its file.

    Raises:
        UserError: an unknown kind, a missing or broken file, no such end-of-document token.
    """
    kind = data.tokenizer_type
    if kind not in KINDS:
        given = "is missing" if kind is None else f"{kind}: no such kind"
        raise UserError(f"--tokenizer-type {given}; choose one of {', '.join(KINDS)}")
    if problems := tokenizer_problems(data, vocab_size):
        raise UserError(*problems)
    # Each library is imported only when its kind is asked for.
    if kind == "ByteTokenizer":
        from contextlm.data.byte_tokenizer import ByteTokenizer

        return ByteTokenizer()
    if kind == "NullTokenizer":
        from contextlm.data.null_tokenizer import NullTokenizer

        assert vocab_size is not None  # here and below: `tokenizer_problems` has asked for it
        return NullTokenizer(vocab_size)
    if kind == "GPT2BPETokenizer":
        from contextlm.data.gpt2_tokenizer import GPT2BPETokenizer

        assert data.vocab_file is not None and data.merge_file is not None
        return GPT2BPETokenizer(Path(data.vocab_file), Path(data.merge_file), data.eod_token)
    assert data.tokenizer_model is not None
    model = Path(data.tokenizer_model)
    if kind == "SentencePieceTokenizer":
        from contextlm.data.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(model, data.eod_token)
    if kind == "TikTokenizer":
        from contextlm.data.tiktoken_tokenizer import TikTokenizer

        return TikTokenizer(model, data.eod_token, data.tiktoken_pattern, data.tiktoken_num_special_tokens, vocab_size)
    from contextlm.data.huggingface_tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(model, data.eod_token)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote into `folder`.

    Raises:
        UserError: there is none, or its files are not those it was saved with.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        data, vocab_size = _described(description, path.parent)
        expected = description["fingerprint"]
    except OSError:
        raise UserError(f"{path}: no such file; the folder holds no saved tokenizer") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the description of a tokenizer ({error!r})") from None
    tokenizer = build_tokenizer(data, vocab_size)
    if tokenizer.fingerprint != expected:
        file = data.tokenizer_model or data.vocab_file or path
        raise UserError(
            f"{file}: this is not the tokenizer that was saved here (fingerprint {tokenizer.fingerprint[:12]}, "
            f"saved {expected[:12]}); restore the file"
        )
    return tokenizer


def _described(description: dict[str, Any], folder: Path) -> tuple[DataConfig, int | None]:
    files = {name: description.get(name) for name in ("tokenizer_model", "vocab_file", "merge_file")}
    values: dict[str, Any] = {name: str(folder / Path(file).name) for name, file in files.items() if file is not None}
    for name in ("tiktoken_pattern", "tiktoken_num_special_tokens"):
        if name in description:
            values[name] = description[name]
    data = DataConfig(tokenizer_type=description["tokenizer_type"], eod_token=description["eod_token"], **values)
    return data, description.get("given_vocab_size")
