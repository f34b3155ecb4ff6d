"""python tools/train_tokenizer.py --input corpus.jsonl --vocab-size 8000 --output-prefix tokenizer

Trains a SentencePiece tokenizer on text and writes `tokenizer.model`, for `--tokenizer-type
SentencePieceTokenizer --tokenizer-model tokenizer.model`. The work is in
`contextlm/data/tokenizer_training.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contextlm.data.sources.flags import add_input_flags
from contextlm.data.tokenizer_training import MODEL_TYPES, train_sentencepiece
from contextlm.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a SentencePiece tokenizer.", allow_abbrev=False)
    add_input_flags(parser)
    parser.add_argument("--json-key", default="text", metavar="KEY", help="key of the text [text]")
    parser.add_argument("--vocab-size", type=int, required=True, help="pieces in all, 256 byte pieces included")
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="writes PREFIX.model")
    parser.add_argument("--model-type", choices=MODEL_TYPES, default="unigram", help="kind of vocabulary [unigram]")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    try:
        path = train_sentencepiece(
            *(given.input, given.output_prefix, given.vocab_size, given.model_type, given.json_key),
            txt_documents=given.txt_documents,
        )
    except (UserError, OSError) as error:
        for problem in getattr(error, "problems", (str(error),)):
            print(f"error: {problem}", file=sys.stderr)
        return 1
    print(f"wrote {path}: {given.vocab_size} pieces")
    print(
        f"next: python tools/preprocess_data.py --input {' '.join(given.input)} --output-prefix {given.output_prefix} "
        f"--append-eod --tokenizer-type SentencePieceTokenizer --tokenizer-model {path}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
