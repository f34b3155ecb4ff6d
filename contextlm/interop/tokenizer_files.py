"""Tokenizers of Hugging Face folders: read as ours, and ours written as files that transformers' AutoTokenizer reads.

A `tokenizer.json` is copied. For bytes and SentencePiece one is built, and kept only if it gives the same ids on
texts that are hard to get right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contextlm import atomic_files
from contextlm.config.schema import DataConfig
from contextlm.data.sentencepiece_tokenizer import SPACE, SentencePieceTokenizer
from contextlm.data.tokenizer_interface import DESCRIPTION_FILE, Tokenizer
from contextlm.data.tokenizers import build_tokenizer, load_tokenizer
from contextlm.errors import UserError

TOKENIZER = "tokenizer.json"
_BYTE_EOD = "<|endoftext|>"
_HARD_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces,  a tab\t, \n\nlines\r\n and an end  ",
    "don't we'll 1234567 3.14 ($%&) A_b-C",
    "Gr\u00fc\u00dfe, \u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac, \u65e5\u672c\u8a9e, \u0639\u0631\u0628\u0649",
    "\U0001f600",
    "\ufb01ne \uff21\uff22 e\u0301 \u00e9 \u00a0 \u2028",  # what a normalisation would change
    "",
)


def folder_tokenizer(folder: Path, eod_token: str | None, remedy: str) -> Tokenizer:
    """The tokenizer of a Hugging Face folder: ours if it was exported with it, else its tokenizer.json.

    Args:
        folder: the folder.
        eod_token: EOD of a tokenizer.json that does not say.
        remedy: what to do where the folder has none.

    Raises:
        UserError: it has none, or a broken one.
    """
    if (folder / DESCRIPTION_FILE).is_file():
        return load_tokenizer(folder)
    if (folder / TOKENIZER).is_file():
        data = DataConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(folder), eod_token=eod_token)
        return build_tokenizer(data)
    raise UserError(f"{folder}: holds no {TOKENIZER}; {remedy}")


def write_tokenizer(tokenizer: Tokenizer, folder: Path, model_max_length: int) -> str | None:
    """Write a tokenizer for transformers beside our own description of it; returns what could not be done.

    Args:
        tokenizer: of the model.
        folder: to write into.
        model_max_length: tokens that the model takes.
    """
    tokenizer.save(folder)
    eod = tokenizer.eod_token
    if not (folder / TOKENIZER).exists():
        if tokenizer.kind not in ("ByteTokenizer", "SentencePieceTokenizer"):
            return f"tokenizer: no tokenizer.json is made of a {tokenizer.kind}; its own files are in the folder"
        built = _byte_level() if tokenizer.kind == "ByteTokenizer" else _sentencepiece(tokenizer)
        eod = _BYTE_EOD if tokenizer.kind == "ByteTokenizer" else eod
        wrong = [text for text in _HARD_TEXTS if built.encode(text).ids != tokenizer.encode(text)]
        if wrong:
            return (
                f"tokenizer: transformers cannot split text as this {tokenizer.kind} does ({wrong[0]!r}); its own "
                "files are in the folder, tokenizer.json is not"
            )
        atomic_files.write_bytes(folder / TOKENIZER, built.to_str(pretty=True).encode())
    description: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
    }
    if eod is not None:
        description |= {"bos_token": eod, "eos_token": eod}
    atomic_files.write_json(folder / "tokenizer_config.json", description)
    return None


def _byte_level() -> Any:
    """ids 0..255 are bytes, 256 ends a document."""
    import tokenizers

    # `tokenizers` writes a byte as a printable character: itself where it is one, else one from 256 on.
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    vocabulary = {chr(byte if byte in printable else next(others)): byte for byte in range(256)}
    built = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    built.add_special_tokens([_BYTE_EOD])
    return built


def _sentencepiece(tokenizer: Tokenizer) -> Any:
    """A SentencePiece model without a normalisation, which is how ours are trained."""
    import sentencepiece
    import tokenizers

    assert isinstance(tokenizer, SentencePieceTokenizer), tokenizer.kind
    model = sentencepiece.SentencePieceProcessor(model_proto=next(iter(tokenizer._model_files().values())))
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.vocab_size())]
    unknown = model.unk_id()
    has_bytes = any(model.is_byte(i) for i in range(len(pieces)))
    ordinary = [
        score
        for i, (_, score) in enumerate(pieces)
        if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))
    ]
    if all(score == round(score) for score in ordinary):  # BPE's scores are minus the order of its merges
        kind: Any = tokenizers.models.BPE(
            vocab={piece: i for i, (piece, _) in enumerate(pieces)},
            merges=_merges(pieces),
            unk_token=pieces[unknown][0],
            fuse_unk=True,
            byte_fallback=has_bytes,
        )
    else:
        kind = tokenizers.models.Unigram(vocab=pieces, unk_id=unknown, byte_fallback=has_bytes)
    built = tokenizers.Tokenizer(kind)
    prefixed = model.encode("a", out_type=str)[0].startswith(SPACE)  # a space is added in front of a text
    steps = [tokenizers.normalizers.Prepend(SPACE)] if prefixed else []
    built.normalizer = tokenizers.normalizers.Sequence([*steps, tokenizers.normalizers.Replace(" ", SPACE)])
    decoders = [
        tokenizers.decoders.Replace(SPACE, " "),
        tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse(),
    ]
    built.decoder = tokenizers.decoders.Sequence(
        decoders + ([tokenizers.decoders.Strip(content=" ", left=1)] if prefixed else [])
    )
    control = [piece for i, (piece, _) in enumerate(pieces) if model.is_control(i) or i == tokenizer.eod]
    built.add_special_tokens(control)
    built.encode_special_tokens = True
    return built


def _merges(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """The pairs that BPE joins, best first: every split of a piece into two pieces, in the order of the pieces."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    found = []
    for piece, score in pieces:
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        pairs = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        found += [(-score, ids[left], ids[right], (left, right)) for left, right in pairs]
    return [pair for *_, pair in sorted(found)]
