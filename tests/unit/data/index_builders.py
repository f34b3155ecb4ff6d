"""python -m tests.unit.data.index_builders PREFIX CACHE [no-lock]: prints the samples' digest, and what the cache said.

One of several processes that start at once and want the same sample orders, which take a while to build.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, cast

from contextlm.data import build_lock, index_cache, samples
from contextlm.data.index_cache import IndexCache
from contextlm.data.indexed import IndexedDataset
from contextlm.data.samples import EpochSamples

SEQ_LENGTH, SEED, NUM_EPOCHS = 16, 3, 2
BUILD_SECONDS = 0.5


def digest(found: EpochSamples) -> str:
    """Of all samples of some epochs."""
    tokens = hashlib.sha256()
    for n in range(NUM_EPOCHS * found.samples_per_epoch):
        tokens.update(found.sample(n).tobytes())
    return tokens.hexdigest()


def main(prefix: str, folder: str, mode: str = "") -> None:
    """Wait for the others, then read."""
    index_cache.MEMORY_BYTES = 0
    build = samples.epoch_index

    def slow_build(*arguments: Any) -> Any:
        if mode == "no-lock":
            _meet(Path(f"{folder}.building"))
        time.sleep(BUILD_SECONDS)
        return build(*arguments)

    cast(Any, samples).epoch_index = slow_build
    if mode == "no-lock":
        cast(Any, build_lock).claimed = lambda lock: contextlib.nullcontext(True)
    said: list[str] = []
    cache = IndexCache(Path(folder), said.append)
    print("ready", flush=True)
    sys.stdin.readline()
    found = EpochSamples(IndexedDataset(prefix, cache), slice(None), SEQ_LENGTH, SEED, cache=cache)
    print(json.dumps({"digest": digest(found), "said": said}), flush=True)


def _meet(place: Path) -> None:
    """Wait until another process builds too."""
    place.mkdir(exist_ok=True)
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < 2:
        time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
