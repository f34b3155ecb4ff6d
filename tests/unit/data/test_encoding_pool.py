"""Worker processes: the order, both ways of starting them, their death, and what is in memory meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from contextlm.config.schema import DataConfig
from contextlm.data import encoding_pool
from contextlm.data.document_encoding import EncodedBatch, EncodingSettings
from contextlm.data.encoding_pool import encode_batches
from contextlm.data.sources.batches import Batch, read_batches
from contextlm.data.sources.units import find_units
from contextlm.errors import UserError
from tests.cli.programs import ROOT

SETTINGS = EncodingSettings(DataConfig(tokenizer_type="ByteTokenizer"), ("text",), append_eod=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[[], Iterator[Batch]]:
    """Gives batches of a few documents each; the lengths of the documents are 0, 1, 2, ..."""
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in range(600)))
    return lambda: read_batches(find_units([str(path)]), ["text"], 1 << 12)


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(encoding_pool, "_start_method", lambda: request.param)
    return request.param


def lengths(encoded: Iterator[EncodedBatch]) -> list[int]:
    return np.concatenate([batch.texts[0].lengths for batch in encoded]).tolist()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_order_is_kept(corpus: Callable[[], Iterator[Batch]], start_method: str, monkeypatch) -> None:
    monkeypatch.setattr("contextlm.data.sources.streams.BLOCK_BYTES", 1 << 12)
    assert lengths(encode_batches(SETTINGS, corpus(), 2)) == lengths(encode_batches(SETTINGS, corpus(), 1))
    assert lengths(encode_batches(SETTINGS, corpus(), 1)) == [n + 1 for n in range(1, 600)]


def test_only_a_few_batches_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        def result(self) -> str:
            return "encoded"

    class Pool:
        def submit(self, *_: object) -> Done:
            return Done()

    class Piece:
        in_memory = 1

    def read(count: list[int]) -> Iterator[Batch]:
        while True:
            count[0] += 1
            yield Batch([cast(Any, Piece())], ("text",), 1)

    for size, most in ((1, 2 * encoding_pool.BATCHES_AHEAD_PER_WORKER), (encoding_pool.BYTES_AHEAD, 2)):
        Piece.in_memory, count = size, [0]
        encoded = encoding_pool._through(Pool(), SETTINGS, read(count), 2)
        assert [next(encoded) for _ in range(5)] == ["encoded"] * 5
        assert count[0] <= most + 5


def test_a_worker_that_dies_is_an_error(corpus: Callable[[], Iterator[Batch]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_pool, "_start_method", lambda: "spawn")
    monkeypatch.setattr(encoding_pool, "encode_batch", _die_in_a_worker)
    with pytest.raises(UserError, match="--workers 2: a worker process died"):
        list(encode_batches(SETTINGS, (batch for _ in range(3) for batch in corpus()), 2))


def _die_in_a_worker(settings: EncodingSettings, batch: Batch) -> str:
    import multiprocessing

    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return "encoded"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_process_with_threads_is_not_copied() -> None:
    program = """
        import threading, time
        from contextlm.data.encoding_pool import _start_method
        print(_start_method())
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        print(_start_method())
    """
    assert shown(program).split() == ["fork", "spawn"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_go_when_the_parent_is_killed() -> None:
    program = """
        import os, signal, sys, itertools
        from tests.unit.data.test_encoding_pool import SETTINGS
        from contextlm.data.encoding_pool import encode_batches
        from contextlm.data.sources.batches import Batch
        encoded = encode_batches(SETTINGS, (Batch([], ("text",), 0) for _ in itertools.count()), 2)
        for _ in range(20):
            next(encoded)
        import multiprocessing
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    # They hold the same stdout, so it is closed only when all of them are gone: `shown` would wait for ever.
    assert len(shown(program, -signal.SIGKILL).split()) == 2


def shown(program: str, status: int = 0) -> str:
    """What a program of its own prints, with one thread to begin with."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout
