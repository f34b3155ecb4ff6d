"""The index cache: the same arrays from memory and disk, built once by many processes, never wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contextlm import lock_files
from contextlm.data import build_lock, index_cache
from contextlm.data.index_cache import Array, IndexCache
from contextlm.data.samples import EpochSamples
from tests.cli.programs import ROOT, environment
from tests.unit.data.index_builders import SEED, SEQ_LENGTH, digest

LENGTHS = [5, 1, 17, 0, 8, 3, 40, 2, 2, 9] * 20
ARRAY = Array("numbers", 100, np.dtype("<u4"), 100)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large enough for the disk."""
    monkeypatch.setattr(index_cache, "MEMORY_BYTES", 0)


class Numbers:
    """A cache, what it said, and how often it built 0, 1, ... 99."""

    def __init__(self, folder: Path | None) -> None:
        self.said: list[str] = []
        self.built = 0
        self.cache = IndexCache(folder, self.said.append)

    def get(self, *facts: object, array: Array = ARRAY) -> np.ndarray:
        def build(tell: Callable[[str], None]) -> list[np.ndarray]:
            self.built += 1
            tell("made")
            return [np.arange(100, dtype="<u4")]

        (found,) = self.cache.get("the numbers", lambda: facts, [array], build)
        assert found.tolist() == list(range(100))
        return found


def test_it_is_built_once_and_named_by_what_decides_it(tiny, tmp_path: Path) -> None:
    numbers, later = Numbers(tmp_path / "new" / "cache"), Numbers(tmp_path / "new" / "cache")
    found = numbers.get("a", 1)
    assert not found.flags.writeable and not found.flags.owndata
    numbers.get("a", 1)
    later.get("a", 1)
    assert (numbers.built, later.built) == (1, 0) and later.said == []
    assert numbers.said[0] == "index cache: building the numbers" and " s made" in numbers.said[1]
    later.get("a", 2)
    assert later.built == 1
    names = sorted(path.name for path in (tmp_path / "new" / "cache").iterdir())
    assert len(names) == 2 and all(name.startswith("numbers-") and name.endswith(".npy") for name in names)
    assert np.load(tmp_path / "new" / "cache" / names[0]).tolist() == found.tolist()  # a file like any other


def test_what_is_small_stays_in_memory(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path / "cache")
    assert ARRAY.num_bytes <= index_cache.MEMORY_BYTES and not numbers.cache.keeps([ARRAY])
    numbers.get()
    assert numbers.built == 1 and numbers.said == [] and not (tmp_path / "cache").exists()


def flip(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 1]) + content[201:]


def large_value(content: bytes) -> bytes:
    """With the right checksum."""
    body = content[:-15].replace(np.uint32(99).tobytes(), np.uint32(100).tobytes())
    return body + b"crc32 %08x\n" % zlib.crc32(body)


def other_array(array: np.ndarray) -> Callable[[bytes], bytes]:
    def replace(_: bytes) -> bytes:
        import io

        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue() + b"crc32 %08x\n" % zlib.crc32(stream.getvalue())

    return replace


DAMAGE = {
    "empty": lambda content: b"",
    "no array": lambda content: b"x" * len(content),
    "header alone": lambda content: content[:64],
    "cut": lambda content: content[:-40],
    "no checksum": lambda content: content[:-15],
    "half a checksum": lambda content: content[:-3],
    "longer": lambda content: content + b"\n",
    "a bit": flip,
    "a value out of range": large_value,
    "fewer": other_array(np.arange(99, dtype="<u4")),
    "another type": other_array(np.arange(100, dtype="<i8")),
    "another shape": other_array(np.arange(100, dtype="<u4").reshape(10, 10)),
    "objects": other_array(np.array([{"a": 1}] * 100, dtype=object)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_built_again_and_one_line_says_so(tiny, tmp_path: Path, damage: str) -> None:
    first, second, third = Numbers(tmp_path), Numbers(tmp_path), Numbers(tmp_path)
    first.get()
    (file,) = tmp_path.iterdir()
    sound = file.read_bytes()
    file.write_bytes(DAMAGE[damage](sound))
    assert file.read_bytes() != sound
    second.get()
    assert second.built == 1 and sum("is damaged" in line for line in second.said) == 1, second.said
    assert file.read_bytes() == sound and list(tmp_path.iterdir()) == [file]
    third.get()
    assert third.built == 0


class Bait:
    """Unpickled, it makes a folder."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.trap),)


def test_nothing_that_a_file_says_is_run(tiny, tmp_path: Path) -> None:
    folder, trap = tmp_path / "cache", tmp_path / "trap"
    Numbers(folder).get()
    (file,) = folder.iterdir()
    malicious = other_array(np.array([Bait(trap)] * 100, dtype=object))(b"")
    file.write_bytes(malicious)
    numbers = Numbers(folder)
    numbers.get()
    assert not trap.exists() and any(f"{file} is damaged" in line for line in numbers.said)
    # The control: the bait is alive.
    file.write_bytes(malicious)
    np.load(file, allow_pickle=True)
    assert trap.exists()


def test_no_byte_may_be_another(tiny, tmp_path: Path) -> None:
    """Of the header neither, whose parser raises what it likes."""
    Numbers(tmp_path).get()
    (file,) = tmp_path.iterdir()
    sound = file.read_bytes()
    for place in [*range(140), *range(140, len(sound) - 20, 37), *range(len(sound) - 20, len(sound))]:
        for byte in {0, 255, sound[place] ^ 1, ord("("), ord("'"), ord("\n")} - {sound[place]}:
            file.write_bytes(sound[:place] + bytes([byte]) + sound[place + 1 :])
            with pytest.raises(index_cache.Damaged):
                index_cache._load(file, ARRAY)


def test_what_cannot_be_kept_stays_in_memory(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        numbers = Numbers(folder)
        numbers.get()
        assert numbers.built == 1 and "the numbers stays in memory" in numbers.said[-1]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    numbers = Numbers(tmp_path / "cache")
    numbers.get()
    assert "No space left on device" in numbers.said[-1] and list((tmp_path / "cache").iterdir()) == []


def test_a_complete_cache_needs_no_right_to_write(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Numbers(tmp_path).get()
    monkeypatch.setattr(lock_files, "create", lambda *_: pytest.fail("a lock was made"))
    Numbers(tmp_path).get()


def builders(count: int, *words: str) -> list[dict]:
    """What so many processes found that were let go at once."""
    command = [sys.executable, "-m", "tests.unit.data.index_builders", *words]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(output) for output in outputs]


def test_eight_processes_that_start_at_once_build_once(make_dataset, tmp_path: Path) -> None:
    dataset = make_dataset(LENGTHS)
    expected = digest(EpochSamples(dataset, slice(None), SEQ_LENGTH, SEED))
    found = builders(8, dataset.prefix, str(tmp_path / "cache"))
    assert {one["digest"] for one in found} == {expected}
    built = sorted(line.split(" (")[0] for one in found for line in one["said"] if "building" in line)
    assert built == [
        f"index cache: building the document bounds of {dataset.prefix}",
        f"index cache: building the sample order of {dataset.prefix}, epoch 1",
        f"index cache: building the sample order of {dataset.prefix}, epoch 2",
    ]
    names = [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()]
    assert sorted(names) == ["bounds", *["documents"] * 2, *["offsets"] * 2, *["places"] * 2]


def test_without_the_lock_more_than_one_builds_and_still_none_is_wrong(make_dataset, tmp_path: Path) -> None:
    """The control, and what a lock that is taken from a living owner would lead to."""
    dataset = make_dataset(LENGTHS)
    expected = digest(EpochSamples(dataset, slice(None), SEQ_LENGTH, SEED))
    found = builders(4, dataset.prefix, str(tmp_path / "cache"), "no-lock")
    assert {one["digest"] for one in found} == {expected}
    assert sum("building" in line and "epoch 1 " in line for one in found for line in one["said"]) > 1
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".npy"] == []


DIES = """
import os, signal, sys
from pathlib import Path
from contextlm.data import build_lock
with build_lock.claimed(Path(sys.argv[1])) as mine:
    assert mine
    Path(sys.argv[2]).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_builder_that_was_killed_is_replaced_and_nothing_of_it_stays(tiny, tmp_path: Path) -> None:
    Numbers(tmp_path).get()
    (file,) = tmp_path.iterdir()
    file.unlink()
    lock, part = file.with_suffix(".lock"), tmp_path / f"{file.name}.host.1.part"
    subprocess.run([sys.executable, "-c", DIES, str(lock), str(part)], cwd=ROOT, env=environment(), check=False)
    assert lock.exists() and part.exists()
    numbers = Numbers(tmp_path)
    numbers.get()
    assert numbers.built == 1 and "waiting for another process" in numbers.said[0]
    assert list(tmp_path.iterdir()) == [file]


class Clock:
    """Time that passes when somebody sleeps; meanwhile something happens."""

    def __init__(self, happens: Callable[[float], None]) -> None:
        self.now, self.happens = 0.0, happens

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens(self.now)


def test_an_owner_out_of_sight_is_waited_for_as_long_as_it_beats(tmp_path: Path, monkeypatch) -> None:
    lock = tmp_path / "lock"
    lock.write_text("elsewhere pid:[1] 7\n")

    def beat(now: float) -> None:
        if now < 200:
            os.utime(lock, ns=(0, int(now) * 10**9))

    clock = Clock(beat)
    monkeypatch.setattr(build_lock, "time", clock)
    build_lock.wait(lock)
    assert 199 < clock.now - lock_files.SILENT_SECONDS < 201 and not lock.exists()
    lock.write_text("elsewhere pid:[1] 8\n")
    clock = Clock(lambda now: lock.unlink() if now > 3 else None)
    monkeypatch.setattr(build_lock, "time", clock)
    build_lock.wait(lock)
    assert clock.now < 4
    lock.write_text("elsewhere pid:[1] 9\n")
    lock_files.remove(lock, "elsewhere pid:[1] 8\n")
    assert lock.exists()  # another's by now


def test_only_one_claims_and_the_lock_goes_with_its_owner(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(KeyError), build_lock.claimed(lock) as mine:
        with build_lock.claimed(lock) as also_mine:
            assert mine and not also_mine
        assert not lock_files.is_dead(lock.read_text())
        raise KeyError
    assert not lock.exists()
