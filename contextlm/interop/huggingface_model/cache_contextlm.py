"""What decoding a ContextLM remembers: keys and values of the backbone, and the state of the context head.

This file also travels in exported folders: it imports nothing but torch and transformers.

Each row counts its own real tokens, wherever its padding is: token n of row b belongs to chunk n // W, and entry
[b, n] of a `Slots` is token n (or chunk n) of row b. Everything follows from the lengths of the rows, so that
reordering takes rows, and cropping only shortens lengths.

Beside the backbone's 2 L H numbers a token it holds H (the token encoder's states, without which no crop into the
middle of a chunk could be exact) and (2 N + 1) H / W (the predictor's keys and values, the predictions); L layers,
N predictor layers.

Shapes: B rows, T columns of this call, K columns in all, R rows that finish a chunk in this call, N chunks that they
finish at most, H hidden, D head dimension, W tokens a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache


class Slots:
    """A tensor [B, room, ...] whose entries are found by row and number; it grows by blocks."""

    BLOCK = 64

    def __init__(self) -> None:
        self.data: Tensor | None = None

    @property
    def held(self) -> Tensor:
        """The tensor; something must have been written."""
        assert self.data is not None
        return self.data

    def write(self, values: Tensor, rows: Tensor, numbers: Tensor, end: int, num_rows: int) -> None:
        """Put `values[i, ...]` at `[rows[i], numbers[i]]`, where the two index tensors broadcast.

        Args:
            values: [*index shape, ...].
            rows, numbers: long tensors.
            end: above every number that is written.
            num_rows: B.
        """
        self._make_room(values, values.shape[rows.dim() :], end, num_rows)
        self.held[rows, numbers] = values

    def write_all(self, values: Tensor, first: int) -> None:
        """Put `values` [B, T, ...] at the numbers from `first` on, in every row."""
        end = first + values.shape[1]
        self._make_room(values, values.shape[2:], end, values.shape[0])
        self.held[:, first:end] = values

    def _make_room(self, like: Tensor, shape: torch.Size, end: int, num_rows: int) -> None:
        room = 0 if self.data is None else self.data.shape[1]
        if end > room:
            grown = like.new_zeros(num_rows, -(-end // self.BLOCK) * self.BLOCK, *shape)
            if self.data is not None:
                grown[:, :room] = self.data
            self.data = grown
        elif self.held.requires_grad or (like.requires_grad and torch.is_grad_enabled()):
            self.data = self.held.clone()  # autograd may still need what was read before

    def select(self, rows: Tensor) -> None:
        """Become the given rows of itself."""
        if self.data is not None:
            self.data = self.data.index_select(0, rows.to(self.data.device))


@dataclass(frozen=True)
class Places:
    """Which tokens of their rows the columns of one call are.

    Args:
        before: real tokens of each row before this call, [B] on the CPU.
        after: the same after it.
        numbers_BT: number of each column's token in its row; [1, T] if all rows are alike. Padding has any.
        real_BT: which columns hold tokens; None if all do.
        columns_BK: the same of all columns so far.
    """

    before: Tensor
    after: Tensor
    numbers_BT: Tensor
    real_BT: Tensor | None
    columns_BK: Tensor | None

    @property
    def alike(self) -> bool:
        """Whether every row is equally long and has no padding in this call."""
        return self.real_BT is None and self.numbers_BT.shape[0] == 1


class ContextCache(DynamicCache):
    """Pass it as the cache of a ContextLM; it makes one itself where `use_cache` asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: Tensor | None = None  # real tokens of each row, on the CPU
        self.columns_BK: Tensor | None = None  # which columns hold tokens; None while all do
        self.states, self.predictions = Slots(), Slots()
        self.predictor: list[tuple[Slots, Slots]] = []  # keys and values of each layer, [B, chunks, heads, D]

    def _slots(self) -> list[Slots]:
        return [self.states, self.predictions, *(slots for pair in self.predictor for slots in pair)]

    def commit(self, places: Places) -> None:
        """The call is done: its columns belong to the past."""
        self.lengths, self.columns_BK = places.after, places.columns_BK

    def write_states(self, hidden_BTH: Tensor, places: Places) -> None:
        """Remember the token encoder's output."""
        if places.alike:
            self.states.write_all(hidden_BTH, int(places.before[0]))
            return
        real_BT = torch.ones_like(places.numbers_BT, dtype=torch.bool) if places.real_BT is None else places.real_BT
        rows, columns = real_BT.nonzero(as_tuple=True)
        self.states.write(
            hidden_BTH[rows, columns],
            rows,
            places.numbers_BT[rows, columns],
            int(places.after.max()),
            hidden_BTH.shape[0],
        )

    def update_predictor(
        self, keys_RDNd: Tensor, values_RDNd: Tensor, layer: int, rows: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new chunks; returns those of all chunks of these rows.

        Args:
            keys_RDNd, values_RDNd: [R, heads, N, D].
            layer: of the predictor.
            rows: which rows, [R].
            first: number of each one's first new chunk, [R].
        """
        while len(self.predictor) <= layer:
            self.predictor.append((Slots(), Slots()))
        found = []
        for slots, new in zip(self.predictor[layer], (keys_RDNd, values_RDNd), strict=True):
            end = self.write_chunks(slots, new.transpose(1, 2), rows, first)
            whole = slots.held[:, :end] if len(rows) == slots.held.shape[0] else slots.held[rows, :end]
            found.append(whole.transpose(1, 2))
        return found[0], found[1]

    def write_chunks(self, slots: Slots, new_RN: Tensor, rows: Tensor, first: Tensor) -> int:
        """Add entries of new chunks [R, N, ...]; returns the number of chunks so far in the longest row.

        A row that finishes fewer chunks than N leaves a wrong entry, which no token reads, until the chunk is finished.
        """
        count, num_rows = new_RN.shape[1], self.states.held.shape[0]
        end = int(first.max()) + count
        if len(rows) == num_rows and bool((first == first[0]).all()):
            slots.write_all(new_RN, int(first[0]))
        else:
            device = new_RN.device
            numbers = (first[:, None] + torch.arange(count)).to(device)
            slots.write(new_RN, rows[:, None].to(device), numbers, end, num_rows)
        return end

    # What `generate` and its users do to a cache.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row b becomes what row `beam_idx[b]` was."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]  # its LongTensor is any tensor of indices
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self._select(torch.arange(self._num_rows, device=indices.device)[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row becomes `repeats` rows."""
        super().batch_repeat_interleave(repeats)
        self._select(torch.arange(self._num_rows).repeat_interleave(repeats))

    @property
    def _num_rows(self) -> int:
        return 0 if self.lengths is None else len(self.lengths)

    def _select(self, rows: Tensor) -> None:
        if self.lengths is None:
            return
        self.lengths = self.lengths[rows.cpu()]
        if self.columns_BK is not None:
            self.columns_BK = self.columns_BK[rows.to(self.columns_BK.device)]
        for slots in self._slots():
            slots.select(rows)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last columns: as many as a negative number says, or all but as many as a positive one."""
        num_columns = self.get_seq_length()
        num_removed = -tokens_to_remove if tokens_to_remove <= 0 else max(num_columns - tokens_to_remove, 0)
        num_removed = min(num_removed, num_columns)
        if num_removed == 0:
            return
        if num_removed == num_columns:
            self.reset()
            return
        super().crop(-num_removed)
        removed: Tensor | int = num_removed
        if self.columns_BK is not None:
            removed = self.columns_BK[:, -num_removed:].sum(dim=1).cpu()
            self.columns_BK = self.columns_BK[:, :-num_removed]
        assert self.lengths is not None
        self.lengths = self.lengths - removed

    def reset(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]  # nobody derives from it


def count_tokens(hidden_BTH: Tensor, attention_mask: Tensor | None, cache: ContextCache | None) -> Places:
    """Where the columns of this call stand in their rows.

    Args:
        hidden_BTH: for its shape and device.
        attention_mask: [B, K], 0 for padding; None where every column holds a token.
        cache: of the columns before.

    Raises:
        ValueError: the mask or the cache has another shape.
    """
    (num_rows, num_columns), device = hidden_BTH.shape[:2], hidden_BTH.device
    past = 0 if cache is None else cache.get_seq_length()
    before, columns_BK = torch.zeros(num_rows, dtype=torch.long), None
    if past > 0:
        assert cache is not None and cache.lengths is not None
        before, columns_BK = cache.lengths, cache.columns_BK
    if len(before) != num_rows:
        raise ValueError(f"cache: holds {len(before)} rows, the input has {num_rows}")
    real_BT = None
    if attention_mask is not None:
        if attention_mask.shape != (num_rows, past + num_columns):
            raise ValueError(
                f"attention_mask: has shape {list(attention_mask.shape)}; give {[num_rows, past + num_columns]}, a "
                "column for each token, those in the cache included"
            )
        real_BT = attention_mask[:, past:].bool()
        real_BT = None if bool(real_BT.all()) else real_BT
    steps = torch.arange(num_columns, device=device)
    if real_BT is not None:
        numbers_BT = (before[:, None].to(device) + real_BT.cumsum(dim=1) - 1).clamp(min=0)
    elif bool((before == before[0]).all()):
        numbers_BT = int(before[0]) + steps[None]
    else:
        numbers_BT = before[:, None].to(device) + steps
    after = before + (num_columns if real_BT is None else real_BT.sum(dim=1).cpu())
    if columns_BK is not None or real_BT is not None:
        everything = torch.ones(num_rows, past + num_columns, dtype=torch.bool, device=device)
        old = everything[:, :past] if columns_BK is None else columns_BK
        columns_BK = torch.cat((old, everything[:, past:] if real_BT is None else real_BT), dim=1)
    return Places(before, after, numbers_BT, real_BT, columns_BK)
