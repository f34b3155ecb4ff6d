"""Which checkpoint a load uses, whatever the tracker says and whatever befell the files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contextlm import atomic_files
from contextlm.checkpoints import checkpoint_folder, manifest
from contextlm.checkpoints.checkpoint_folder import CONFIG_FILE, candidates
from contextlm.checkpoints.selection import choose
from contextlm.errors import UserError
from contextlm.preflight import host_checks
from tests.small_configs import small_config

PARTS = (".metadata", "common.pt", "metadata.json", "config.yaml", "run.json")
SHARDS = ("__0_0.distcp", "__1_0.distcp")


def write(folder: Path, iteration: int) -> None:
    """The files of a checkpoint, of which only the JSON ones mean something."""
    for name in (*PARTS, *SHARDS):
        (folder / name).write_bytes(f"{name} of {iteration}, long enough to lose a byte".encode())
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))
    run = {"iteration": iteration, "consumed_samples": 4 * iteration, "world_size": 2}
    (folder / "run.json").write_text(json.dumps(run))
    manifest.write(folder, manifest.digests(folder, [*PARTS, *SHARDS]))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of iterations 10, 20 and 30."""
    root = tmp_path_factory.mktemp("written")
    for iteration in (10, 20, 30):
        temporary = checkpoint_folder.temporary_folder(root, iteration)
        checkpoint_folder.begin(temporary)
        write(temporary, iteration)
        checkpoint_folder.publish(temporary, iteration)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def chosen(root: Path, **options: Any) -> tuple[str | None, list[str]]:
    """The name of the checkpoint, and what is said."""
    said: list[str] = []
    folder = choose(candidates(root), said.append, **options)
    return None if folder is None else folder.name, said


def test_the_one_in_force_is_used(root):
    assert chosen(root) == ("iter_0000030", [])
    (root / "latest_checkpointed_iteration.txt").write_text("20")  # a kill before the tracker, or somebody's wish
    assert chosen(root) == ("iter_0000020", [])
    assert chosen(root / "iter_0000010") == ("iter_0000010", [])
    assert chosen(root / "nowhere") == chosen(root / "iter_0000010" / "run.json") == (None, [])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (flip, "another sha256"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes in place of"),
    "empty": (lambda file: file.write_bytes(b""), "has 0 bytes in place of"),
    "longer": (lambda file: file.write_bytes(file.read_bytes() + b"\0"), "bytes in place of"),
    "deleted": (Path.unlink, "is missing"),
    "renamed": (lambda file: file.rename(file.with_name(f"{file.name}.bak")), "is missing"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*PARTS, *SHARDS])
def test_damage_to_any_file_is_found_and_an_older_one_may_stand_in(root, name, damage):
    harm, words = DAMAGES[damage]
    harm(root / "iter_0000030" / name)
    with pytest.raises(UserError) as refused:
        chosen(root)
    message = str(refused.value)
    assert f"checkpoint {root / 'iter_0000030'} is " in message and name in message and words in message
    assert "older" in message
    name, (said,) = chosen(root, may_fall_back=True)
    assert name == "iter_0000020" and said.startswith(f"warning: {message.split(';')[0]}") and name in said


def test_every_damaged_file_is_named(root):
    (root / "iter_0000030" / SHARDS[0]).unlink()
    flip(root / "iter_0000030" / SHARDS[1])
    with pytest.raises(UserError, match=r"__0_0.distcp is missing, __1_0.distcp has another sha256") as refused:
        chosen(root)
    assert len(refused.value.problems) == 1


@pytest.mark.parametrize("name", PARTS)
def test_without_the_hashes_a_lack_is_still_found(root, name):
    flip(root / "iter_0000030" / SHARDS[0])
    assert chosen(root, damage=manifest.incomplete)[0] == "iter_0000030"  # why there are hashes
    (root / "iter_0000030" / name).unlink()
    with pytest.raises(UserError, match=f"iter_0000030 is incomplete: {name} is missing"):
        chosen(root, damage=manifest.incomplete)


def test_before_the_ranks_meet_the_same_one_is_meant(root):
    """Where a run begins in its data is asked before there is a process group; nothing is read for it but JSON."""

    def begins_at(**values: bool) -> int | None:
        return host_checks.continued(small_config(load=str(root), save=str(root), **values))[1].get("consumed_samples")

    for iteration in (10, 20, 30):
        (checkpoint_folder.iteration_folder(root, iteration) / CONFIG_FILE).write_text("{}")
    assert begins_at() == 120
    (root / "iter_0000030" / "run.json").write_text("{}")
    assert begins_at(verify_integrity=False) is None  # loading it tells what is wrong
    assert begins_at(load_fallback=True) == 80
    (root / "latest_checkpointed_iteration.txt").write_text("")
    assert begins_at() == 80


def test_none_is_intact(root):
    for iteration in (10, 20, 30):
        (checkpoint_folder.iteration_folder(root, iteration) / SHARDS[0]).unlink()
    with pytest.raises(UserError) as refused:
        chosen(root, may_fall_back=True)
    assert [f"iter_00000{n}" in problem for n, problem in zip((30, 20, 10), refused.value.problems, strict=False)]
    assert "no checkpoint there is intact" in refused.value.problems[-1]


def test_without_a_manifest_a_checkpoint_is_used_and_one_line_said(root):
    (root / "iter_0000030" / "manifest.json").unlink()
    folder, (said,) = chosen(root)
    assert folder == "iter_0000030" and "has no manifest.json" in said


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "\0", '{"format": 2, "files": {}}', '{"format": 1, "files": []}', '{"format": 1}',
     '{"format": 1, "files": {"a": 1}}', '{"format": 1, "files": {"a": {"bytes": 1}}}',
     '{"format": 1, "files": {"../iter_0000020/common.pt": {"bytes": 1, "sha256": ""}}}',
     '{"format": 1, "files": {"/etc/passwd": {"bytes": 1, "sha256": ""}}}'],
)  # fmt: skip
def test_a_damaged_manifest_is_damage(root, content):
    (root / "iter_0000030" / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"is damaged: manifest.json cannot be read"):
        chosen(root)


def test_further_files_are_fine(root):
    (root / "iter_0000030" / "notes.txt").write_text("mine")
    assert chosen(root) == ("iter_0000030", [])


GARBAGE = [b"", b"\n", b"  ", b"-30", b"3e1", b"30.0", b"0x1e", b"40", b"release", b"\0" * 512, bytes(range(256)),
           b"\xff\xfe3\x000\x00", "３０".encode(), "²".encode(), b"9" * 5000, b"30\n30"]  # fmt: skip


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: repr(content[:12]))
def test_a_tracker_of_any_bytes_is_told_and_the_newest_intact_one_used(root, content):
    (root / "latest_checkpointed_iteration.txt").write_bytes(content)
    flip(root / "iter_0000030" / SHARDS[0])
    folder, (said,) = chosen(root)
    assert folder == "iter_0000020"
    assert said.startswith("warning: ") and "latest_checkpointed_iteration.txt" in said
    assert "\n" not in said and "iter_0000030 is damaged" in said and str(root / folder) in said


def test_no_tracker_and_one_that_cannot_be_read(root):
    tracker = root / "latest_checkpointed_iteration.txt"
    tracker.unlink()
    folder, (said,) = chosen(root)
    assert folder == "iter_0000030" and f"{tracker} is missing" in said
    tracker.mkdir()
    folder, (said,) = chosen(root)
    assert folder == "iter_0000030" and f"{tracker} cannot be read" in said


def test_a_tracker_without_any_checkpoint_is_no_fresh_start(tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30")
    with pytest.raises(UserError, match=r"names no checkpoint that is there; put the checkpoint back, or remove"):
        chosen(tmp_path)


def test_what_a_killed_save_left_is_no_checkpoint_and_the_next_save_removes_it(root):
    for name in ("iter_0000040.tmp", "iter_0000030.old"):
        (root / name).mkdir()
        write(root / name, 40)
    (root / "latest_checkpointed_iteration.txt").unlink()
    assert chosen(root)[0] == "iter_0000030"
    said = checkpoint_folder.begin(checkpoint_folder.temporary_folder(root, 50))
    assert len(said) == 2 and all("is removed" in line for line in said)
    names = ["iter_0000010", "iter_0000020", "iter_0000030", "iter_0000050.tmp"]
    assert sorted(path.name for path in root.iterdir()) == names


def test_a_kill_between_the_two_renames_leaves_the_checkpoint_that_was(root, monkeypatch):
    temporary = checkpoint_folder.temporary_folder(root, 30)
    checkpoint_folder.begin(temporary)
    write(temporary, 31)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self == temporary:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        checkpoint_folder.publish(temporary, 30)
    assert not (root / "iter_0000030").exists()
    assert chosen(root) == ("iter_0000030.old", [])
    assert checkpoint_folder.read_run(root / "iter_0000030.old")["iteration"] == 30
    said = checkpoint_folder.begin(temporary)
    assert [line.split(" ", 1)[1].split(":")[0] for line in said] == ["has its name again", "is removed"]
    assert chosen(root) == ("iter_0000030", [])


@pytest.mark.parametrize("iteration", [30, 40])
def test_a_kill_at_any_step_leaves_an_intact_checkpoint_in_force(root, tmp_path_factory, monkeypatch, iteration):
    """Before each thing that is done to the disk; a tracker that names a checkpoint names an intact one."""
    steps_before_the_kill = left = 0

    def counted(do):
        def step(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return do(*arguments, **options)

        return step

    done = False
    while not done:
        copy = shutil.copytree(root, tmp_path_factory.mktemp("killed"), dirs_exist_ok=True)
        temporary = checkpoint_folder.temporary_folder(copy, iteration)
        checkpoint_folder.begin(temporary)
        write(temporary, iteration)
        left = steps_before_the_kill
        with monkeypatch.context() as patched:
            for where, name in ((Path, "rename"), (shutil, "rmtree"), (os, "replace"), (atomic_files, "sync")):
                patched.setattr(where, name, counted(getattr(where, name)))
            try:
                checkpoint_folder.publish(temporary, iteration)
                done = True
            except KeyboardInterrupt:
                pass
        name, said = chosen(copy)
        assert name in ("iter_0000030", f"iter_00000{iteration}", "iter_0000030.old") and said == []
        steps_before_the_kill += 1
    assert steps_before_the_kill > 10 and name == f"iter_00000{iteration}"


def test_what_is_not_here_as_it_was_written_gets_no_manifest(root):
    folder = root / "iter_0000030"
    (folder / "manifest.json").unlink()
    digests = manifest.digests(folder, [*PARTS, *SHARDS])
    (folder / SHARDS[0]).write_bytes(b"")
    (folder / SHARDS[1]).unlink()
    with pytest.raises(UserError, match=r"__0_0.distcp has 0 bytes in place of \d+, __1_0.distcp is missing; every"):
        manifest.write(folder, digests)
    assert not (folder / "manifest.json").exists()
