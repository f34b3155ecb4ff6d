"""python tools/merge_datasets.py --input 'data/corpus-*-of-*_text_document' --output-prefix data/corpus_text_document

Joins datasets into one: prefixes in the order given, folders and globs in numeric order. The shards that
`tools/preprocess_data.py --num-shards` made give the same bytes as one run. Datasets that do not belong together
are refused. The work is in `contextlm/data/merging.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contextlm.data.merging import find_datasets, merge_datasets
from contextlm.errors import told_to_the_user


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Join datasets into one.", allow_abbrev=False)
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="WHAT", help="prefixes (without .bin), folders, or quoted globs"
    )
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="writes PREFIX.bin, .idx and .json")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    prefixes = find_datasets(given.input)
    merged = merge_datasets(prefixes, given.output_prefix, lambda prefix: print(f"adding {prefix}", flush=True))
    documents = len(merged.document_starts) - 1
    print(f"wrote {given.output_prefix}.bin, .idx: {documents:,} documents, {merged.num_tokens:,} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
