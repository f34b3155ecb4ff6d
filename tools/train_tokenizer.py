"""python tools/train_tokenizer.py --input corpus.jsonl --vocab-size 8000 --output-prefix tokenizer

Trains a tokenizer on text: SentencePiece (`tokenizer.model`, for `--tokenizer-type SentencePieceTokenizer`) or with
`--type byte-level-bpe` GPT-2's kind (`tokenizer.json`, for `--tokenizer-type HuggingFaceTokenizer`). The work is in
`contextlm/data/tokenizer_training.py` and `byte_level_training.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from contextlm.data.byte_level_training import train_byte_level_bpe
from contextlm.data.sources.flags import add_input_flags
from contextlm.data.tokenizer_training import MODEL_TYPES, train_sentencepiece
from contextlm.errors import UserError, until_the_reader_leaves

TYPES = {"sentencepiece": "SentencePieceTokenizer", "byte-level-bpe": "HuggingFaceTokenizer"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a tokenizer.", allow_abbrev=False)
    add_input_flags(parser)
    parser.add_argument("--json-key", default="text", metavar="KEY", help="key of the text [text]")
    parser.add_argument("--vocab-size", type=int, required=True, help="tokens in all, 256 bytes included")
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="writes PREFIX.model or PREFIX.json")
    parser.add_argument("--type", choices=TYPES, default="sentencepiece", help="kind of tokenizer [sentencepiece]")
    parser.add_argument("--model-type", choices=MODEL_TYPES, help="kind of a SentencePiece vocabulary [unigram]")
    return parser


def train(given: argparse.Namespace) -> Path:
    """Train what was asked for; the file."""
    words = (given.input, given.output_prefix, given.vocab_size)
    if given.type == "sentencepiece":
        return train_sentencepiece(*words, given.model_type or "unigram", given.json_key, given.txt_documents)
    if given.model_type is not None:
        raise UserError(f"--model-type {given.model_type}: only for --type sentencepiece; leave it out")
    return train_byte_level_bpe(*words, given.json_key, given.txt_documents)


@until_the_reader_leaves()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    try:
        path = train(given)
    except (UserError, OSError) as error:
        for problem in getattr(error, "problems", (str(error),)):
            print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"wrote {path}: {given.vocab_size} tokens")
    print(
        f"next: python tools/preprocess_data.py --input {' '.join(given.input)} --output-prefix {given.output_prefix} "
        f"--append-eod --tokenizer-type {TYPES[given.type]} --tokenizer-model {path}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
