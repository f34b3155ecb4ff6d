"""The flags by which tools over a finished dataset are told its tokenizer."""

from __future__ import annotations

import argparse

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizer_interface import Tokenizer
from contextlm.data.tokenizers import KINDS, build_tokenizer


def add_tokenizer_flags(parser: argparse.ArgumentParser) -> None:
    """Add them to `parser`."""
    parser.add_argument("--tokenizer-type", choices=KINDS, help="tokenizer to compare with and to decode with")
    parser.add_argument("--tokenizer-model", metavar="PATH", help=".model, tokenizer.json, or a folder with one")
    parser.add_argument("--eod-token", metavar="TEXT", help="EOD token, where the tokenizer does not say")


def given_tokenizer(given: argparse.Namespace) -> Tokenizer | None:
    """The tokenizer, or None where `--tokenizer-type` is not given."""
    if given.tokenizer_type is None:
        return None
    words = {name: getattr(given, name) for name in ("tokenizer_type", "tokenizer_model", "eod_token")}
    return build_tokenizer(DataConfig(**words))
