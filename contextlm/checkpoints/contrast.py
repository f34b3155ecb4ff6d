"""Two checkpoints beside each other: options, tensors and, piece by piece, their values."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load

from contextlm.analysis.run_record import differences
from contextlm.checkpoints.contents import StoredTensor, options, tensors
from contextlm.megatron.safe_loading import SafeReader

_READ_AT_ONCE = 1 << 28  # bytes of one checkpoint's tensors in memory, or one tensor if that has more


@dataclass(frozen=True)
class Contrast:
    """How two checkpoints differ.

    Attributes:
        options: those that differ, (one's value, the other's).
        only_first, only_second: tensors that one of them has.
        forms: tensors of other shapes or types, in words.
        values: tensors that hold other values, and the greatest absolute difference.
        num_equal: tensors that are equal, bit for bit.
    """

    options: dict[str, tuple[Any, Any]]
    only_first: list[str]
    only_second: list[str]
    forms: dict[str, tuple[str, str]]
    values: dict[str, float] = field(default_factory=dict)
    num_equal: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference."""
        return not (self.options or self.only_first or self.only_second or self.forms or self.values)

    def as_json(self) -> dict[str, Any]:
        """For a file; what is no number is null."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return asdict(self) | {"values": numbers}


def contrast(first: Path, second: Path) -> Contrast:
    """Compare two `iter_` folders; a part of either is in memory at a time.

    Raises:
        UserError: one of them cannot be read.
    """
    one, other = ({tensor.name: tensor for tensor in tensors(folder)} for folder in (first, second))
    both = [name for name in one if name in other]
    forms = {name: (_form(one[name]), _form(other[name])) for name in both}
    unlike = {name: pair for name, pair in forms.items() if pair[0] != pair[1]}
    alike = [one[name] for name in both if name not in unlike]
    values, num_equal = {}, 0
    for names in _portions(alike):
        ours, theirs = _read(first, names), _read(second, names)
        for name in ours:
            if torch.equal(_bits(ours[name]), _bits(theirs[name])):
                num_equal += 1
            else:
                values[name] = _greatest_difference(ours[name], theirs[name])
    only_first, only_second = ([n for n in mine if n not in yours] for mine, yours in ((one, other), (other, one)))
    return Contrast(differences(options(first), options(second)), only_first, only_second, unlike, values, num_equal)


def _form(tensor: StoredTensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _portions(found: list[StoredTensor]) -> Iterator[list[StoredTensor]]:
    """Tensors to read together."""
    portion: list[StoredTensor] = []
    for tensor in found:
        if portion and sum(x.bytes for x in portion) + tensor.bytes > _READ_AT_ONCE:
            yield portion
            portion = []
        portion.append(tensor)
    if portion:
        yield portion


def _read(folder: Path, wanted: list[StoredTensor]) -> dict[str, Tensor]:
    room = {x.name: torch.empty(x.shape, dtype=getattr(torch, x.dtype)) for x in wanted}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as asked: there is one process
        load(room, storage_reader=SafeReader(folder), no_dist=True)
    return room


def _bits(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _greatest_difference(one: Tensor, other: Tensor) -> float:
    """NaN where only one of two values is; two NaN are alike."""
    difference = (one.double() - other.double()).abs()
    return difference.masked_fill(one.isnan() & other.isnan() | (one == other), 0.0).max().item()
