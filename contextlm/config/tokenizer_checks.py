"""Which options a kind of tokenizer takes, against those that are given."""

from __future__ import annotations

from contextlm.config.schema import DataConfig

# Kind -> the options it cannot do without, each with an example.
_NEEDED = {
    "ByteTokenizer": {},
    "GPT2BPETokenizer": {"vocab_file": "vocab.json", "merge_file": "merges.txt"},
    "HuggingFaceTokenizer": {"tokenizer_model": "tokenizer.json"},
    "SentencePieceTokenizer": {"tokenizer_model": "tokenizer.model"},
    "TikTokenizer": {"tokenizer_model": "vocabulary.json or x.tiktoken"},
    "NullTokenizer": {},
}
_OWN = {
    "vocab_file": "GPT2BPETokenizer",
    "merge_file": "GPT2BPETokenizer",
    "tiktoken_pattern": "TikTokenizer",
    "tiktoken_num_special_tokens": "TikTokenizer",
}
_FIXED_EOD = ("ByteTokenizer", "NullTokenizer")
# Kinds for which --vocab-size says how many ids there are; a preset's, which is GPT-2's, says nothing about them.
SIZED_BY_FLAG = ("NullTokenizer", "TikTokenizer")


def tokenizer_problems(data: DataConfig, vocab_size: int | None) -> list[str]:
    """What is missing and what is too much for the kind that is given; `vocab_size` is --vocab-size."""
    kind, problems = data.tokenizer_type, []
    assert kind is not None  # `build_tokenizer` and the configuration ask for it first
    needed = _NEEDED[kind]
    for name, example in needed.items():
        if getattr(data, name) is None:
            problems.append(f"{_flag(name)}: missing; give the file of the {kind}, e.g. {example}")
    if data.tokenizer_model is not None and "tokenizer_model" not in needed:
        remedy = f"give {' and '.join(map(_flag, needed))}" if needed else "drop it"
        problems.append(f"--tokenizer-model {data.tokenizer_model}: not of the {kind}; {remedy}")
    for name, owner in _OWN.items():
        if kind != owner and getattr(data, name) != getattr(DataConfig, name):
            problems.append(f"{_flag(name)} {getattr(data, name)}: is for the {owner}, not the {kind}; drop it")
    if data.eod_token is not None and kind in _FIXED_EOD:
        problems.append(f"--eod-token {data.eod_token}: the {kind}'s is fixed; drop it")
    if kind == "NullTokenizer" and vocab_size is None:
        problems.append("--vocab-size: missing; give the number of the NullTokenizer's ids without EOD")
    return problems


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
