"""What the ranks of the tests of damaged and malicious checkpoints do; run by the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

BATCH = {"micro_batch_size": 2, "global_batch_size": 4, "lr": 1e-2}


def load_each(folders: list[str], values: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """One run that tries to resume from each folder.

    Returns:
        for each the error, empty if there is none, and what was said.
    """
    from contextlm.checkpoints import loading
    from contextlm.errors import UserError
    from tests.distributed.runs import small_run

    results = []
    with small_run("gpt2", **BATCH, **values) as run:
        for folder in folders:
            given, said, problem = replace(run.config.checkpoint, load=folder), list[str](), ""
            try:
                loading.load(replace(run, config=replace(run.config, checkpoint=given)), said.append)
            except UserError as error:
                problem = str(error)
            results.append((problem, said))
    return results


def open_each(folders: list[str]) -> list[str]:
    """As tools open a checkpoint; the error for each, empty if there is none."""
    from contextlm.errors import UserError
    from contextlm.inference.opened import opened

    results = []
    for folder in folders:
        try:
            with opened(folder):
                results.append("")
        except UserError as error:
            results.append(str(error))
    return results


def bytes_read(folder: str) -> list[str]:
    """The files that this rank reads when all ranks look at a checkpoint."""
    from pathlib import Path
    from unittest import mock

    from contextlm.checkpoints import joint_look, manifest
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH), mock.patch.object(manifest, "_digest", wraps=manifest._digest) as digest:
        assert joint_look.damage(Path(folder), hashes=True) == []
        return [call.args[0].name for call in digest.call_args_list]


def look_from_another_disk(folder: str) -> list[str]:
    """What is found where the last rank's host does not have the folder."""
    from pathlib import Path

    from contextlm.checkpoints import joint_look
    from tests.distributed.runs import small_run

    with small_run("gpt2", **BATCH) as run:
        return joint_look.damage(Path(folder, "elsewhere" if run.layout.is_last_rank else ""), hashes=True)
