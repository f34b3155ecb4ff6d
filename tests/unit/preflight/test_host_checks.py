"""Everything that would end a run later is found before the ranks meet, and told at once."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from contextlm.analysis.checkpoint_size import checkpoint_bytes, num_kept, num_saves
from contextlm.byte_words import size
from contextlm.config.schema import Config
from contextlm.errors import UserError
from contextlm.preflight import folders, host_checks, memory
from contextlm.training.whereabouts import Whereabouts
from tests.small_configs import small_config

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A dataset to be damaged."""
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{data}{suffix}", tmp_path / f"copy{suffix}")
    return tmp_path / "copy"


def config(prefix: Path, **values: Any) -> Config:
    """A run of the small model on a dataset."""
    given = {"data_path": (str(prefix),), "tokenizer_type": "ByteTokenizer", "eval_iters": 0}
    return small_config(**(given | values))


def problems(given: Config, refusals: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        host_checks.check(given, Whereabouts(), refusals)
    return caught.value.problems


def truncate(prefix: Path) -> None:
    os.truncate(f"{prefix}.bin", 1000)


def remove_index(prefix: Path) -> None:
    Path(f"{prefix}.idx").unlink()


def set_id(prefix: Path) -> None:
    """A token beyond the vocabulary of 257."""
    Path(f"{prefix}.json").unlink()
    with open(f"{prefix}.bin", "r+b") as stream:
        stream.seek(500)
        stream.write((60000).to_bytes(2, "little"))


def rename_tokenizer(prefix: Path) -> None:
    facts = json.loads(Path(f"{prefix}.json").read_text())
    Path(f"{prefix}.json").write_text(json.dumps(facts | {"tokenizer_fingerprint": "0" * 64}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, ".bin is truncated: "),
        (remove_index, ".idx missing"),
        (set_id, "token id 60000 is outside the vocabulary of 257"),
        (rename_tokenizer, "was made with a ByteTokenizer (fingerprint 000000000000)"),
    ],
)
def test_data(copy: Path, damage, says: str) -> None:
    damage(copy)
    (problem,) = problems(config(copy))
    assert str(copy) in problem and says in problem


def test_all_at_once(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(copy)
    monkeypatch.setattr(folders.os, "fsync", failing(errno.EROFS))
    given = config(copy, tokenizer_model="no/such", tokenizer_type="SentencePieceTokenizer", output_dir=str(tmp_path))
    found = problems(given, refusals=("--save a: another job saves there",))
    assert [problem.split(" ")[0] for problem in found] == [
        "--save",
        "--tokenizer-model",
        f"{copy}.bin",
        "--output-dir",
    ]


def failing(code: int) -> Any:
    """A call of the system that fails."""

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("fsync", errno.EROFS, "Read-only file system"),
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("rename", errno.EPERM, "Operation not permitted"),
    ],
)
def test_folders_are_really_written_to(
    data: Path, tmp_path: Path, monkeypatch, call: str, code: int, says: str
) -> None:
    places = {name: str(tmp_path / name / "below") for name in ("save", "output_dir", "tensorboard_dir")}
    assert host_checks.check(config(data, **places), Whereabouts()).words
    assert list(tmp_path.iterdir()) == []  # no trace
    monkeypatch.setattr(folders.os, call, failing(code))
    found = problems(config(data, **places))
    assert [problem.split(" ")[0] for problem in found] == ["--save", "--output-dir", "--tensorboard-dir"]
    assert all(says in problem and problem.endswith("give a folder that can") for problem in found)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_rank_of_a_host_looks_at_what_belongs_to_it(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folders.os, "fsync", failing(errno.EROFS))
    monkeypatch.setenv("LOCAL_RANK", "1")
    host_checks.check(config(data, save=str(tmp_path)), Whereabouts())


def test_a_cache_that_cannot_be_written_is_a_warning(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(folders.os, "fsync", failing(errno.EROFS))
    host_checks.check(config(data, data_cache_path=str(tmp_path)), Whereabouts())
    assert "warning: --data-cache-path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("free", "problem", "warning"),
    [
        (3.1, None, None),
        (2.5, None, "enough for 2 of the 3 checkpoints"),
        (1.9, "2 checkpoint(s) of", None),
        (0.0, "2 checkpoint(s) of", None),
    ],
)
def test_room_on_the_disk(
    data: Path, tmp_path: Path, monkeypatch, capsys, free: float, problem: str | None, warning: str | None
) -> None:
    given = config(data, save=str(tmp_path), save_interval=2, train_iters=5)
    each = checkpoint_bytes(given, 257)
    assert num_saves(given, 1, 0) == 3
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: Usage(0, 0, int(free * each)))
    if problem is None:
        host_checks.check(given, Whereabouts())
    else:
        (found,) = problems(given)
        assert f"--save {tmp_path}: " in found and problem in found and "make room" in found
    said = capsys.readouterr().err
    assert (warning in said) if warning else said == ""


def test_how_many_checkpoints_are_planned() -> None:
    def saves(iteration: int, **values: Any) -> int:
        return num_saves(small_config(train_iters=10, **values), 1, iteration)

    assert saves(0) == 0
    assert saves(0, save="a") == saves(9, save="a") == 1
    assert saves(10, save="a", save_interval=1) == 0
    assert [saves(n, save="a", save_interval=4) for n in (0, 3, 4, 8)] == [3, 3, 2, 1]
    assert [saves(n, save="a", save_interval=5) for n in (0, 5)] == [2, 1]


def test_a_checkpoint_that_is_damaged_is_left_to_who_loads_it(data: Path, tmp_path: Path) -> None:
    (tmp_path / "iter_0000005").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("5")
    (tmp_path / "iter_0000005" / "run.json").write_text("{")
    assert host_checks.check(config(data, save=str(tmp_path), load=str(tmp_path)), Whereabouts()).first_sample == 0


def test_memory() -> None:
    gpus = [memory.Share(f"GPU {place}", *needs, 80) for place, needs in enumerate([(60, 73), (90, 99), (10, 71)])]
    assert [text.split(":")[0] for text in memory.problems(gpus)] == ["GPU 1"]
    assert [text.split(":")[0] for text in memory.warnings(gpus)] == ["GPU 0"]
    assert "--micro-batch-size" in memory.warnings(gpus)[0]
    host = [memory.Share("memory of a", 30, 35, 80)] * 3  # its ranks share it
    assert memory.together(host) == [memory.Share("memory of a", 90, 105, 80)]


def test_sizes() -> None:
    assert [size(number) for number in (0, 999, 1600, 412e9, 1.25e12, 5e15)] == [
        "0 bytes", "999 bytes", "1.6 kB", "412 GB", "1.2 TB", "5000 TB",
    ]  # fmt: skip


def test_how_many_checkpoints_are_kept() -> None:
    def kept(**values: Any) -> int:
        return num_kept(small_config(save="x", train_iters=100, save_interval=10, **values), 1, 0)

    assert kept() == 10
    assert kept(save_total_limit=2) == 3  # and the new one, before an old one goes
    assert kept(save_retain_interval=50) == 4  # 50, 100, the newest and the new one
    assert kept(save_total_limit=2, save_retain_interval=50, save_best=True) == 6
    assert kept(save_total_limit=50) == 10
