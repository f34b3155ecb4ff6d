"""Which dataset sample n of a blend comes from.

The datasets are the leaves of a binary tree. A node with share p of its samples on the left sends them there
evenly: round(n p) of its first n. So where sample n goes, and the how-manieth it is there, is known without a
list of the samples before it, for any n, in the depth of the tree. The samples themselves are `samples.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, Union

import numpy as np

from contextlm.data.samples import EpochSamples, Part


class _Node(NamedTuple):
    share: Fraction  # of the samples of this node that go left
    left: _Tree
    right: _Tree

    def left_count(self, n: int) -> int:
        """Of the first n samples of this node, how many go left: n x share, rounded half up, exactly."""
        return (2 * n * self.share.numerator + self.share.denominator) // (2 * self.share.denominator)


_Tree = Union[_Node, int]  # noqa: UP007 - the name is a string until here; a node, or the number of a dataset


class BlendedSamples:
    """Samples of several datasets, in proportion to their weights.

    Of the first n samples, each dataset d has n w_d, give or take less than 2, for every n: a tree that
    joins the two lightest first (Huffman's) keeps the sum of the rounding errors on any path under 1.7. All
    arithmetic is exact, so the order is the same on every machine.

    Args:
        sources: the datasets.
        weights: positive, one for each; only their ratios matter.

    Attributes:
        samples_per_epoch: how many samples there are before some dataset begins again.
    """

    def __init__(self, sources: Sequence[EpochSamples], weights: Sequence[float]) -> None:
        if not sources or len(sources) != len(weights) or not all(weight > 0 for weight in weights):
            raise ValueError(f"{len(sources)} datasets, weights {list(weights)}")
        self.sources = tuple(sources)
        self.weights = tuple(weights)
        self._tree = _huffman([Fraction(weight) for weight in weights])
        self.samples_per_epoch = self._one_pass()

    def locate(self, n: int) -> tuple[int, int]:
        """The dataset that sample n comes from, and which of that dataset's samples it is."""
        tree = self._tree
        while isinstance(tree, _Node):
            before = tree.left_count(n)
            goes_left = tree.left_count(n + 1) > before
            tree, n = (tree.left, before) if goes_left else (tree.right, n - before)
        return tree, n

    def counts(self, n: int) -> list[int]:
        """How many of the first n samples come from each dataset."""
        counts = [0] * len(self.sources)
        pending = [(self._tree, n)]
        while pending:
            tree, n = pending.pop()
            if isinstance(tree, _Node):
                left = tree.left_count(n)
                pending += [(tree.left, left), (tree.right, n - left)]
            else:
                counts[tree] = n
        return counts

    def sample(self, n: int) -> np.ndarray:
        """Sample n >= 0, int64 `[seq_length + 1]`."""
        if n < 0:
            raise IndexError(f"sample {n}")
        source, place = self.locate(n)
        return self.sources[source].sample(place)

    def parts(self, n: int) -> list[Part]:
        """The datasets, and what each gives to the first n samples."""
        total = sum(self.weights)
        parts = [
            part for source, count in zip(self.sources, self.counts(n), strict=True) for part in source.parts(count)
        ]
        return [part._replace(share=weight / total) for part, weight in zip(parts, self.weights, strict=True)]

    def prepare(self, begin: int, end: int) -> None:
        """Build what the caches lack for samples `begin` to `end - 1`."""
        for source, *places in zip(self.sources, self.counts(begin), self.counts(end), strict=True):
            source.prepare(*places)

    def _one_pass(self) -> int:
        sizes = [source.samples_per_epoch for source in self.sources]
        low, high = 0, sum(sizes)  # counts(n) sum to n, so more than all samples cannot fit
        while low < high:
            middle = (low + high + 1) // 2
            fits = all(count <= size for count, size in zip(self.counts(middle), sizes, strict=True))
            low, high = (middle, high) if fits else (low, middle - 1)
        return low


def _huffman(weights: Sequence[Fraction]) -> _Tree:
    """Join the two lightest again and again; equal weights in the order given."""
    heap: list[tuple[Fraction, int, _Tree]] = [(weight, number, number) for number, weight in enumerate(weights)]
    heapq.heapify(heap)
    for number in range(len(weights), 2 * len(weights) - 1):
        light, _, right = heapq.heappop(heap)
        heavy, _, left = heapq.heappop(heap)
        total = light + heavy
        heapq.heappush(heap, (total, number, _Node(heavy / total, left, right)))
    return heap[0][2]
