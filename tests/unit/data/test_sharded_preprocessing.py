"""Pieces give the bytes of one run; what is finished is kept, what has changed is not; a kill loses nothing."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contextlm.config.schema import DataConfig
from contextlm.data.merging import find_datasets, merge_datasets
from contextlm.data.preprocessing import PreprocessingOptions, preprocess
from contextlm.data.sharded_preprocessing import preprocess_partitions, preprocess_shard
from contextlm.data.sidecar import read_sidecar
from contextlm.errors import UserError

KEYS = ("text", "title")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill is no power cut: what the process wrote is there without a sync, which takes long."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def options(tmp_path: Path) -> PreprocessingOptions:
    """Two plain files and a packed one between them, with two keys, empty texts and bad lines."""
    for name, first, count in (("a.jsonl", 0, 40), ("b.jsonl.gz", 40, 10), ("c.jsonl", 50, 30)):
        lines = [
            json.dumps({"text": f"document {i} " * (i % 7), "title": f"title {i}"}) if i % 9 else f"bad line {i}"
            for i in range(first, first + count)
        ]
        content = "\n".join(lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return PreprocessingOptions(
        inputs=tuple(str(tmp_path / name) for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl")),
        output_prefix=str(tmp_path / "out" / "one"),
        data=DataConfig(tokenizer_type="ByteTokenizer"),
        json_keys=KEYS,
        append_eod=True,
        on_error="skip",
    )


def named(options: PreprocessingOptions, name: str) -> PreprocessingOptions:
    return replace(options, output_prefix=str(Path(options.output_prefix).with_name(name)))


def output(options: PreprocessingOptions) -> dict[str, bytes]:
    """All files of a run by the end of their names."""
    prefix = Path(options.output_prefix)
    found = prefix.parent.glob(f"{prefix.name}*")
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in found if path.is_file()}


@pytest.mark.parametrize("pieces", [1, 2, 3, 20])
def test_pieces_are_the_bytes_of_one_run(options: PreprocessingOptions, pieces: int) -> None:
    """Datasets, sidecars and reject log, the line numbers in it too; with more pieces than there is to share."""
    preprocess(options)
    expected = output(options)
    assert len(expected) == 7 and len(expected["_rejects.jsonl"].splitlines()) == 9
    partitioned = named(options, "partitioned")
    assert preprocess_partitions(partitioned, pieces, say=lambda _: None).rejected == 9
    assert output(partitioned) == expected
    assert not Path(f"{partitioned.output_prefix}.partitions").exists()
    for shard in reversed(range(pieces)):
        preprocess_shard(named(options, "sharded"), pieces, shard)
    sharded = Path(options.output_prefix).with_name("sharded")
    for key in KEYS:
        merge_datasets(find_datasets([f"{sharded}-*-of-*_{key}_document"]), f"{sharded}_{key}_document")
    merged = output(named(options, "sharded"))
    for suffix in expected.keys() - {"_rejects.jsonl"}:
        assert merged[suffix] == expected[suffix]
    rejects = sorted(sharded.parent.glob(f"{sharded.name}-*_rejects.jsonl"))
    assert b"".join(path.read_bytes() for path in rejects) == expected["_rejects.jsonl"]


def test_finished_pieces_are_kept_and_the_others_made(options: PreprocessingOptions, monkeypatch) -> None:
    preprocess(options)
    expected, target = output(options), named(options, "resumed")
    said = interrupted(target, pieces=4, after=2)
    assert said == []
    kept = {path: path.stat().st_ino for path in Path(f"{target.output_prefix}.partitions").glob("*.idx")}
    assert len(kept) == 2 * len(KEYS) and not output(target)
    seen: dict[Path, int] = {}
    progress = preprocess_partitions(target, 4, lambda _: seen.update({p: p.stat().st_ino for p in kept}), said.append)
    assert seen == kept and [sentence.split(": ")[1][:15] for sentence in said] == ["finished before"] * 2
    assert output(target) == expected and progress.documents == read_sidecar(target.prefix("text")).documents
    preprocess_partitions(target, 4, say=said.append)
    assert len(said) == 3 and "resumed: finished before, 71 documents" in said[2]


def interrupted(options: PreprocessingOptions, pieces: int, after: int) -> list[str]:
    """Stop a run when `after` of its pieces are finished; returns what it said."""
    from contextlm.data.sharded_preprocessing import write_piece

    said: list[str] = []

    def executor(plan, missing, report, say):
        for piece in missing[:after]:
            yield write_piece(plan, piece)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess_partitions(options, pieces, say=said.append, executor=executor)
    return said


def edited(options: PreprocessingOptions) -> PreprocessingOptions:
    """The same size, in the middle of a file."""
    path = Path(options.inputs[2])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"document 51", b"document XX"))
    os.utime(path, ns=(0, 0))
    return options


@pytest.mark.parametrize(
    "change",
    [
        edited,
        lambda options: replace(options, append_eod=False),
        lambda options: replace(options, inputs=options.inputs[:2]),
    ],
)
def test_what_another_run_left_is_made_anew(
    options: PreprocessingOptions, change: Callable[[PreprocessingOptions], PreprocessingOptions]
) -> None:
    """Control: without a change it is finished."""
    target = named(options, "resumed")
    interrupted(target, pieces=3, after=3)
    assert len(interrupted(target, pieces=3, after=3)) == 3
    changed = change(options)
    preprocess(changed)
    said: list[str] = []
    preprocess_partitions(replace(changed, output_prefix=target.output_prefix), 3, say=said.append)
    assert len(said) == 3 and all("made from other inputs or with other options: it is made anew" in s for s in said)
    assert output(target) == output(changed)


def test_a_finished_piece_that_was_damaged_or_had_rejects_is_made_anew(options: PreprocessingOptions) -> None:
    target = named(options, "resumed")
    interrupted(target, pieces=2, after=2)
    damaged = Path(f"{target.output_prefix}.partitions/00001-of-00002_title_document.bin")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said: list[str] = []
    with pytest.raises(UserError, match="a.jsonl:1: not valid JSON"):  # with "raise" its rejects must be told
        preprocess_partitions(replace(target, on_error="raise"), 2, say=said.append)
    assert said == []
    preprocess_partitions(target, 2, say=said.append)
    assert len(said) == 1
    preprocess(options)
    assert output(target) == output(options)


def test_mistakes(options: PreprocessingOptions) -> None:
    for shard in (-1, 3):
        with pytest.raises(UserError, match=f"--shard {shard}: with --num-shards 3 the shards are 0 to 2"):
            preprocess_shard(options, 3, shard)
    with pytest.raises(UserError, match="--partitions 0: at least 1"):
        preprocess_partitions(options, 0)
    with pytest.raises(UserError, match="--partitions 2: --input - cannot be read in pieces"):
        preprocess_partitions(replace(options, inputs=("-",)), 2)
    Path(options.inputs[0]).write_text("bad\n")
    with pytest.raises(UserError, match="no usable document"):
        preprocess_partitions(replace(options, inputs=options.inputs[:1]), 2)


def test_a_disk_that_is_full_loses_nothing_that_was_finished(options: PreprocessingOptions, monkeypatch) -> None:
    """The disk is full again and again, and the same command goes on from there."""
    preprocess(options)
    target, failures = named(options, "full"), 0
    while True:
        countdown = iter(range(8))  # the disk takes eight files, then somebody makes room

        def fsync(_: int, countdown=countdown) -> None:
            if next(countdown, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)
        try:
            preprocess_partitions(target, 6, say=lambda _: None)
            break
        except UserError as error:
            assert "cannot be written (No space left on device)" in str(error)
            assert not list(Path(target.output_prefix).parent.rglob("*.part"))
            failures += 1
        assert failures < 50
    assert failures > 4 and output(target) == output(options)


@pytest.mark.full
def test_a_kill_at_any_change_of_the_disk(options: PreprocessingOptions) -> None:
    """SIGKILL before each rename, removal and sync of a run, one after the other; then the run is given again.

    What looks complete must be so at every moment, and the end must be that of a run that nobody disturbed.
    """
    options = replace(options, inputs=options.inputs[1:])
    interrupted(options, pieces=2, after=2)  # leaves its pieces
    preprocess(options)
    expected, folder = output(options), Path(options.output_prefix).parent
    target, kills, pairs = named(options, "killed"), 0, 0
    while killed_at(kills, lambda: preprocess_partitions(target, 2, say=lambda _: None)):
        for index in [*folder.glob("killed*/*.idx"), *folder.glob("killed*.idx")]:
            tokens, whole = index.with_suffix(".bin"), Path(str(index).replace("killed", "one"))
            if tokens.exists():
                pairs += 1
                assert index.read_bytes() == whole.read_bytes()
                assert tokens.read_bytes() == whole.with_suffix(".bin").read_bytes()
        preprocess_partitions(target, 2, say=lambda _: None)
        assert output(target) == expected
        for path in folder.glob("killed*"):
            path.unlink()
        kills += 1
    assert kills > 40 and pairs > 40


def killed_at(change: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that kills itself before its change number `change` of the disk; False if it got by."""
    child = os.fork()
    if child == 0:
        left = iter(range(change))

        def deadly(real: Callable) -> Callable:
            def call(*arguments, **words):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **words)

            return call

        for name in ("replace", "unlink", "fsync", "rmdir"):
            setattr(os, name, deadly(getattr(os, name)))
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL
