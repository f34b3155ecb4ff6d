"""python tools/validate_dataset.py --input data/corpus_text_document --samples 3

Reads datasets whole and lists all that is wrong with them: sizes, ids outside the vocabulary, documents without EOD
or with EOD inside, files that are not those of the sidecar. Exit status 1 if anything is. With the tokenizer
(`--tokenizer-type`, `--tokenizer-model`) it is compared too, and samples are shown as text.
The work is in `contextlm/data/dataset_validation.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contextlm.data.dataset_validation import samples, validate_dataset
from contextlm.data.merging import find_datasets
from contextlm.data.tokenizer_flags import add_tokenizer_flags, given_tokenizer
from contextlm.errors import told_to_the_user


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Check datasets.", allow_abbrev=False)
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="WHAT", help="prefixes (without .bin), folders, or quoted globs"
    )
    parser.add_argument("--samples", type=int, default=0, metavar="K", help="show K documents of each dataset [0]")
    add_tokenizer_flags(parser)
    return parser


@told_to_the_user()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    prefixes = find_datasets(given.input)
    tokenizer = given_tokenizer(given)
    problems: list[str] = []
    for prefix in prefixes:
        found = validate_dataset(prefix, tokenizer)
        problems += found.problems
        for note in found.notes:
            print(f"note: {note}")
        if found.dataset is not None:
            documents = len(found.dataset.document_starts) - 1
            state = "sound" if not found.problems else f"{len(found.problems)} problems"
            print(f"{prefix}: {documents:,} documents, {found.dataset.num_tokens:,} tokens, {state}")
            for line in samples(found.dataset, given.samples, tokenizer):
                print(f"  {line}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
