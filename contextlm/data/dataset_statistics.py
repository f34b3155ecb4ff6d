"""How many tokens and documents a dataset has, how long the documents are, how many tokens a byte of text takes.

The program is `tools/dataset_stats.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from contextlm.data.indexed import IndexedDataset
from contextlm.data.sidecar import read_sidecar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 40  # characters of the longest bar of the histogram
LABELS = 9  # as many fit below the picture


@dataclass(frozen=True)
class Statistics:
    """Facts about one dataset.

    Attributes:
        name: its prefix.
        tokens: token ids in all.
        lengths: tokens of each document, int64 `[documents]`.
        text_bytes: UTF-8 bytes of its text, None where no sidecar tells.
    """

    name: str
    tokens: int
    lengths: np.ndarray
    text_bytes: int | None

    def lines(self) -> list[str]:
        """The numbers, for people."""
        empty = int(np.count_nonzero(self.lengths == 0))
        shown = [f"{self.name}: {self.tokens:,} tokens, {len(self.lengths):,} documents, {empty:,} of them empty"]
        if self.text_bytes:
            ratio = self.tokens / self.text_bytes
            text = f"{self.text_bytes:,} bytes of text, {ratio:.4f} tokens per byte"
            shown.append(text + (f", {1 / ratio:.2f} bytes per token" if ratio else ""))
        else:
            shown.append("bytes of text: not known, there is no sidecar that tells")
        if len(self.lengths):
            median, p95, p99 = np.percentile(self.lengths, (50, 95, 99))
            shown.append(
                f"tokens per document: mean {self.lengths.mean():,.1f}, median {median:,.0f}, 95% {p95:,.0f}, "
                f"99% {p99:,.0f}, longest {self.lengths.max():,}"
            )
        return shown


def dataset_statistics(prefix: str) -> Statistics:
    """Read them from the index and the sidecar; the tokens are not touched."""
    dataset = IndexedDataset(prefix)
    sequence_starts = np.concatenate(([0], np.cumsum(dataset.lengths, dtype=np.int64)))
    sidecar = read_sidecar(prefix)
    lengths = np.diff(sequence_starts[dataset.document_starts])
    return Statistics(prefix, dataset.num_tokens, lengths, None if sidecar is None else sidecar.text_bytes)


def histogram(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents by length in powers of two: `counts[i]` of them have `edges[i] <= length < edges[i + 1]` tokens.

    The first bin is that of the empty documents; both int64, `[bins]` and `[bins + 1]`.
    """
    longest = int(lengths.max(initial=0))
    edges = np.array([0, *(1 << power for power in range(longest.bit_length() + 1))], dtype=np.int64)
    return np.histogram(lengths, edges)[0], edges


def histogram_lines(lengths: np.ndarray) -> list[str]:
    """The histogram as text, a bar for each bin from the first that is not empty."""
    counts, edges = histogram(lengths)
    labels = [_label(int(low), int(high)) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    width, digits = max(map(len, [*labels, "tokens"])), len(f"{counts.max():,}")
    lines = [f"{'tokens':>{width}}  documents"]
    for place in range(int(np.argmax(counts > 0)), len(counts)):
        bar = "#" * int(np.ceil(BAR * counts[place] / max(1, counts.max())))
        lines.append(f"{labels[place]:>{width}}  {counts[place]:>{digits},} {bar}".rstrip())
    return lines


def histogram_svg(statistics: Sequence[Statistics]) -> str:
    """The histograms of all datasets on one pair of axes, each in shares of its own documents."""
    from contextlm.analysis.plots import COLOURS, svg

    def draw(axes: Axes) -> None:
        edges = max((histogram(one.lengths)[1] for one in statistics), key=len)
        for place, one in enumerate(statistics):
            counts, _ = histogram(one.lengths)
            shares = 100 * counts / max(1, counts.sum())
            colour = COLOURS[place % len(COLOURS)]
            axes.stairs(shares, range(len(counts) + 1), label=one.name, color=colour, linewidth=1.8)
        places = range(0, len(edges), -(-len(edges) // LABELS))
        axes.set_xticks(places, [f"{edges[place]:,}" for place in places])
        axes.set_xlabel("tokens per document (each bin is twice as wide as the one before)")
        axes.set_ylabel("documents (%)")

    return svg(draw, "documents by their length")


def _label(low: int, high: int) -> str:
    return f"{low:,}" if high - low == 1 else f"{low:,}-{high - 1:,}"
