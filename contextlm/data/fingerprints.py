"""What tells one input from another, and one run of preprocessing from another, without reading terabytes twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from contextlm.data.sidecar import Source
from contextlm.data.sources.unit import Unit
from contextlm.data.tokenizer_interface import Tokenizer

END_BYTES = 1 << 16  # of each end of a source, for its hash


def sources_of(units: Sequence[Unit]) -> tuple[Source, ...]:
    """The inputs that `units` are pieces of, each once, in order."""
    return tuple(source_of(path) for path in dict.fromkeys(unit.path for unit in units))


def source_of(path: str) -> Source:
    """Name, size and hash of an input; the name alone of what is no file (a pipe, a dataset of the Hub).

    The hash is the sha256 of its first and last 64 KiB, of a file that is no larger of its whole content: hashing
    every byte would slow preprocessing down, and cannot be done by a shard, which reads a piece of the file. So an
    edit in the middle that keeps the size is not seen in it.
    """
    if not os.path.isfile(path):
        return Source(path)
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        ends = stream.read(END_BYTES)
        stream.seek(max(END_BYTES, size - END_BYTES))
        ends += stream.read(END_BYTES)
    return Source(path, size, hashlib.sha256(ends).hexdigest())


def run_fingerprint(units: Sequence[Unit], tokenizer: Tokenizer, options: Mapping[str, Any]) -> str:
    """sha256 (hex) of all that decides the tokens of a run; computed anew by each of its shards.

    An input counts with its name, size and time of modification: any edit makes another run, in a moment.

    Args:
        options: what else decides the tokens, as JSON writes it.
    """
    inputs = []
    for unit in units:
        status = os.stat(unit.path) if os.path.isfile(unit.path) else None
        inputs.append([unit.path, unit.format, status and status.st_size, status and status.st_mtime_ns])
    facts = [tokenizer.fingerprint, tokenizer.eod, options, inputs]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
