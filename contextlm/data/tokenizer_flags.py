"""The flags by which the tools are told a tokenizer; they are those of training."""

from __future__ import annotations

import argparse
import shlex

from contextlm.config.fields import Field, all_fields
from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import build_tokenizer

_OF_DATA = (
    "tokenizer_type",
    "tokenizer_model",
    "vocab_file",
    "merge_file",
    "tiktoken_pattern",
    "tiktoken_num_special_tokens",
    "eod_token",
)
_NAMES = (*_OF_DATA, "vocab_size")


def add_tokenizer_flags(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add them to `parser`; `required`: the tool needs a tokenizer."""
    fields = all_fields()
    for name in _NAMES:
        field = fields[name]
        parser.add_argument(
            field.flag,
            type=field.kind,
            choices=field.choices,
            default=field.default,
            required=required and name == "tokenizer_type",
            metavar=None if field.choices else "N" if field.kind is int else "TEXT" if name == "eod_token" else "PATH",
            help=_help(field),
        )


def _help(field: Field) -> str:
    if field.name == "vocab_size":
        return "ids of a NullTokenizer without EOD; ids to use of a TikTokenizer's .json file"
    return field.help


def tokenizer_config(given: argparse.Namespace) -> DataConfig:
    """What was given, but for --vocab-size."""
    return DataConfig(**{name: getattr(given, name) for name in _OF_DATA})


def tokenizer_words(given: argparse.Namespace) -> list[str]:
    """What was given, as it is typed after another program."""
    fields = all_fields()
    words = [(fields[name], getattr(given, name)) for name in _NAMES]
    return [word for field, value in words if value != field.default for word in (field.flag, shlex.quote(str(value)))]


def given_tokenizer(given: argparse.Namespace) -> Tokenizer | None:
    """The tokenizer, or None where `--tokenizer-type` is not given."""
    if given.tokenizer_type is None:
        return None
    return build_tokenizer(tokenizer_config(given), given.vocab_size)
