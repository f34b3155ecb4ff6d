"""Arrays that follow from a dataset, built once per file system and mapped by every process that needs them.

Each is a `.npy` file, named by a sha256 of what decides it and followed by the crc32 of its bytes. A file appears
under its name only when it is complete; one that is damaged is built again; what is small, or cannot be kept, stays in
memory. Who builds: `build_lock.py`. What: `sample_index.py`, `indexed.py`. The folder may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contextlm.data import build_lock

MEMORY_BYTES = 16 << 20  # arrays of a million documents
FORMAT = 1
FOLDER = "index_cache"
_CHECK_BYTES = 1 << 22

Say = Callable[[str], None]
Build = Callable[[Say], Sequence[np.ndarray]]


class Array(NamedTuple):
    """What an array must be like.

    Attributes:
        name: begins the name of its file.
        length, dtype: its only dimension and its type.
        limit: its values are from 0 to below this.
        exact: False where it may be shorter.
    """

    name: str
    length: int
    dtype: np.dtype
    limit: int
    exact: bool = True

    @property
    def num_bytes(self) -> int:
        """Bytes of its values, at most."""
        return self.length * self.dtype.itemsize

    def fits(self, values: np.ndarray) -> bool:
        """Whether the values have its type and length."""
        lengths = (self.length,) if self.exact else range(1, self.length + 1)
        return values.ndim == 1 and len(values) in lengths and values.dtype == self.dtype


class Damaged(ValueError):
    """A file that is not what it should be."""


class IndexCache:
    """The arrays of one dataset.

    Args:
        folder: where the files lie; made if needed. None keeps everything in memory.
        say: tells the user one line; a line on stderr if not given.
    """

    def __init__(self, folder: Path | None, say: Say | None = None) -> None:
        self.folder = folder
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))

    @classmethod
    def of(cls, prefix: str, folder: str | None) -> IndexCache:
        """The one in `folder`, if that is given, else beside the dataset."""
        return cls(Path(prefix).parent / FOLDER if folder is None else Path(folder))

    def keeps(self, arrays: Sequence[Array]) -> bool:
        """Whether these are large enough to be kept on disk."""
        return self.folder is not None and sum(array.num_bytes for array in arrays) > MEMORY_BYTES

    def get(
        self, about: str, facts: Callable[[], Sequence[object]], arrays: Sequence[Array], build: Build
    ) -> list[np.ndarray]:
        """The arrays that `build` returns, from the disk if they are there.

        Args:
            about: what they are, for the user.
            facts: says all that decides them, as JSON values; not asked about what stays in memory.
            arrays: what they must be like.
            build: makes them; it is given a function to tell how far it is.
        """
        if not self.keeps(arrays):
            return list(build(_silent))
        assert self.folder is not None
        key = hashlib.sha256(json.dumps([FORMAT, *facts()]).encode()).hexdigest()[:32]
        paths = [self.folder / f"{array.name}-{key}.npy" for array in arrays]
        try:
            return self._kept(about, list(zip(paths, arrays, strict=True)), build)
        except (OSError, Damaged) as error:
            cause = getattr(error, "strerror", None) or error
            self._say_once_a_host(f"index cache: {about} stays in memory: {self.folder}: {cause}")
            return list(build(_silent))

    def _kept(self, about: str, files: Sequence[tuple[Path, Array]], build: Build) -> list[np.ndarray]:
        lock, told = files[0][0].with_suffix(".lock"), False
        while True:
            if all(path.exists() for path, _ in files):
                try:
                    return [_load(path, array) for path, array in files]
                except Damaged as damage:
                    problem = f"; {damage}"
            else:
                problem = ""
            files[0][0].parent.mkdir(parents=True, exist_ok=True)
            with build_lock.claimed(lock) as is_mine:
                if is_mine:
                    found = _sound(files)  # another may have been done just before
                    return found or self._build(f"{about}{problem}", files, build)
            if not told:
                self._say_once_a_host(f"index cache: waiting for another process that builds {about}")
                told = True
            build_lock.wait(lock)

    def _say_once_a_host(self, line: str) -> None:
        """What all processes of a host have to say is said by the first of them."""
        if os.environ.get("LOCAL_RANK", "0") == "0":
            self._say(line)

    def _build(self, about: str, files: Sequence[tuple[Path, Array]], build: Build) -> list[np.ndarray]:
        began = time.monotonic()

        def tell(stage: str) -> None:
            self._say(f"index cache:   {time.monotonic() - began:6.1f} s {stage}")

        self._say(f"index cache: building {about}")
        for (path, array), values in zip(files, build(tell), strict=True):
            assert array.fits(values), (array, values.dtype, values.shape)
            for left_behind in path.parent.glob(f"{path.name}.*.part"):  # by an owner of the lock who is gone
                left_behind.unlink(missing_ok=True)
            _write(path, values)
        found = [_load(path, array) for path, array in files]
        size = sum(values.nbytes for values in found)
        self._say(f"index cache: built in {time.monotonic() - began:.1f} s, {size / 1e6:,.0f} MB in {self.folder}")
        return found


def _sound(files: Sequence[tuple[Path, Array]]) -> list[np.ndarray] | None:
    try:
        return [_load(path, array) for path, array in files]
    except (OSError, Damaged):
        return None


def _load(path: Path, array: Array) -> np.ndarray:
    """Map a file, after all of it was read once. Raises Damaged, OSError."""
    check, trailer = 0, len(_trailer(0))
    with open(path, "rb") as stream:
        left = path.stat().st_size - trailer
        while left > 0 and (block := stream.read(min(_CHECK_BYTES, left))):
            check, left = zlib.crc32(block, check), left - len(block)
        if left or stream.read() != _trailer(check):
            raise Damaged(f"{path} is damaged: its checksum is not that of its bytes")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Damaged(f"{path} is damaged: {error}") from None
    ends_well = values.ndim == 1 and values.offset + values.nbytes + trailer == path.stat().st_size
    if not (ends_well and array.fits(values) and 0 <= int(values.min()) <= int(values.max()) < array.limit):
        raise Damaged(f"{path} is damaged: it does not hold what it should, {array}")
    return values.view(np.ndarray)


def _write(path: Path, values: np.ndarray) -> None:
    """Write a file and give it its name when it is complete."""
    part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        with open(part, "w+b") as stream:
            np.lib.format.write_array(stream, values, version=(1, 0), allow_pickle=False)
            stream.flush()
            stream.seek(0)
            check = 0
            while block := stream.read(_CHECK_BYTES):
                check = zlib.crc32(block, check)
            stream.write(_trailer(check))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _trailer(check: int) -> bytes:
    return b"crc32 %08x\n" % check


def _silent(_: str) -> None:
    """Of what takes no time there is nothing to tell."""
