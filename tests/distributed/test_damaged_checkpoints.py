"""A damaged checkpoint is an error on every rank before anything is loaded; an older one may stand in, exactly."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import pytest

from contextlm.checkpoints import manifest
from tests.distributed import integrity_cases as cases
from tests.distributed.pool import Pool
from tests.distributed.resume_cases import train

VALUES = cases.BATCH | {"train_iters": 4}


class Trained(NamedTuple):
    """Checkpoints of iterations 2 and 4, and the losses of 3 and 4."""

    folder: Path
    losses: list[float]


@pytest.fixture(scope="module")
def trained(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of two ranks."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    pool.run(train, 2, folder=str(folder), steps=2, values=VALUES)
    return Trained(folder, pool.run(train, 2, folder=str(folder), steps=2, values=VALUES)[0])


def flip_a_weight(folder: Path) -> str:
    """Flip one bit of the token embedding, in the exponent of a weight; returns the file's name."""
    from contextlm.megatron.safe_loading import read_index

    storage = read_index(folder).storage_data
    place = next(place for key, place in storage.items() if key.fqn == "embedding.word_embeddings.weight")
    file = folder / place.relative_path
    content = bytearray(file.read_bytes())
    content[place.offset + place.length // 2 // 4 * 4 + 3] ^= 0x20
    file.write_bytes(content)
    return place.relative_path


def test_every_file_is_read_by_one_rank(pool: Pool, trained: Trained) -> None:
    folder = trained.folder / "iter_0000004"
    read = pool.run(cases.bytes_read, 2, folder=str(folder))
    assert sorted(read[0] + read[1]) == sorted(manifest.read(folder)) and abs(len(read[0]) - len(read[1])) <= 1
    files = [file.name for file in folder.iterdir() if file.name != "manifest.json"]
    assert sorted(manifest.read(folder)) == sorted(files)


def test_a_host_without_the_folder_is_named(pool: Pool, trained: Trained) -> None:
    folder = str(trained.folder / "iter_0000004")
    one, other = pool.run(cases.look_from_another_disk, 2, folder=folder)
    assert one == other == [f"it cannot be seen from {socket.gethostname()}: every host must have one shared folder"]


def test_a_flipped_bit_is_refused_or_passed_over_and_would_load_in_silence(
    pool: Pool, trained: Trained, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    name = flip_a_weight(folder / "iter_0000004")
    tries = {"folders": [str(folder)]}
    for ((problem, said),) in pool.run(cases.load_each, 2, values={}, **tries):
        assert problem.startswith(f"checkpoint {folder}/iter_0000004 is damaged: {name} has another sha256")
        assert "--load-fallback" in problem and said == []
    ((problem,),) = pool.run(cases.open_each, 1, **tries)
    assert problem.startswith(f"checkpoint {folder}/iter_0000004 is damaged: {name}")
    # The control: nothing else would notice.
    for ((problem, said),) in pool.run(cases.load_each, 2, values={"verify_integrity": False}, **tries):
        assert problem == "" and "iteration 4" in said[-1]
    older = {"save": None, "load": str(folder), "load_fallback": True}
    assert pool.run(train, 2, folder=None, steps=2, values=VALUES | older) == [trained.losses, trained.losses]
    silent = pool.run(cases.load_each, 2, values={"load_fallback": True}, **tries)[1][0]
    assert silent[0] == "" and "iter_0000004 is damaged" in silent[1][0] and "iteration 2" in silent[1][-1]


def test_what_is_incomplete_is_told_on_every_rank_even_unverified(pool: Pool, trained: Trained, tmp_path: Path) -> None:
    parts = (".metadata", "common.pt", "metadata.json", "run.json", "config.yaml")
    for name in parts:
        for kind in ("without", "empty"):
            folder = shutil.copytree(trained.folder / "iter_0000004", tmp_path / f"{kind} {name}" / "iter_0000004")
            (folder / "manifest.json").unlink()
            (folder / name).unlink() if kind == "without" else (folder / name).write_bytes(b"")
    unnamed = shutil.copytree(trained.folder, tmp_path / "unnamed")
    (unnamed / "latest_checkpointed_iteration.txt").write_bytes(b"\xff\0 4")
    folders = [*(f"{tmp_path}/without {name}/iter_0000004" for name in parts), str(unnamed)]
    folders += [f"{tmp_path}/empty {name}/iter_0000004" for name in parts[:-1]]
    for results in pool.run(cases.load_each, 2, folders=folders, values={"verify_integrity": False}):
        for name, (problem, _) in zip(parts, results, strict=False):
            assert f"iter_0000004 is incomplete: {name} is missing" in problem, (name, problem)
        problem, said = results[len(parts)]
        assert problem == "" and "names no checkpoint that is there: using" in said[0] and "iteration 4" in said[-1]
        for name, (problem, _) in zip(parts, results[len(parts) + 1 :], strict=False):
            assert problem.startswith("checkpoint ") and name in problem, (name, problem)


def test_files_of_the_checkpoint_as_a_run_writes_it(trained: Trained) -> None:
    folder = trained.folder / "iter_0000004"
    assert manifest.damage(folder) == []
    assert json.loads((folder / "manifest.json").read_text())["format"] == 1
    assert {file.suffix for file in trained.folder.glob("iter_*")} == {""}
