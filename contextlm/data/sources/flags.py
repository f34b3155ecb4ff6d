"""The flags of tools that read text."""

from __future__ import annotations

import argparse

from contextlm.data.sources.units import READABLE, TXT_DOCUMENTS


def add_input_flags(parser: argparse.ArgumentParser) -> None:
    """Add --input and --txt-documents, for `find_units`."""
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help=f"files, folders, 'glob patterns'; - for JSON lines from stdin; hf://NAME[:SPLIT]; kinds: {READABLE}",
    )
    parser.add_argument(
        "--txt-documents",
        choices=TXT_DOCUMENTS,
        default="file",
        help="a document of a .txt file: all of it, or what lies between two blank lines [file]",
    )
