"""python tools/dataset_stats.py --input data/corpus_text_document --plot lengths.svg

Counts tokens and documents, and shows how long the documents are: as text, and with `--plot` as a picture. Only the
index is read. The work is in `contextlm/data/dataset_statistics.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from contextlm.data.dataset_statistics import dataset_statistics, histogram_lines, histogram_svg
from contextlm.data.merging import find_datasets
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Count tokens and documents.", allow_abbrev=False)
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="WHAT", help="prefixes (without .bin), folders, or quoted globs"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the histogram of lengths there")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    given = parser().parse_args(arguments)
    if given.plot is not None and given.plot.suffix != ".svg":
        raise UserError(f"--plot {given.plot}: only .svg pictures are written; end the name with .svg")
    if wrong := result_files.problems("--plot", given.plot):
        raise UserError(*wrong)
    statistics = [dataset_statistics(prefix) for prefix in find_datasets(given.input)]
    for one in statistics:
        print("\n".join([*one.lines(), *histogram_lines(one.lengths), ""]))
    if given.plot is not None:
        result_files.write("--plot", given.plot, histogram_svg(statistics).encode())
        print(f"wrote {given.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
