"""Opens what is to be examined: a checkpoint of ours, or a folder of transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from contextlm.checkpoints import checkpoint_folder
from contextlm.errors import UserError
from contextlm.inference.opened import opened
from contextlm.inference.subject import Subject, from_checkpoint


@contextlib.contextmanager
def subject(path: str | Path, *, in_fp32: bool = False) -> Iterator[Subject]:
    """Open a checkpoint saved under any layout, or a folder that transformers reads.

    Args:
        path: a `--save` folder, an `iter_` folder of it, or a Hugging Face folder.
        in_fp32: compute in fp32 on a GPU too, whatever the weights are stored in.

    Raises:
        UserError: it is neither, or it is incomplete.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        from contextlm.inference.huggingface_subject import huggingface_subject  # transformers takes seconds

        yield huggingface_subject(path, in_fp32)
        return
    if checkpoint_folder.find(path) is None:
        raise UserError(f"--load {path}: holds no checkpoint; give a folder that --save made, or a Hugging Face folder")
    with opened(path, in_fp32=in_fp32) as ours:
        yield from_checkpoint(ours)


def standalone(path: str | Path, *, in_fp32: bool = False) -> Subject:
    """A checkpoint's twin or a folder's model, which needs no process group and decodes with a cache.

    Args:
        path, in_fp32: as for `subject`.
    """
    from contextlm.inference.huggingface_subject import twin

    with subject(path, in_fp32=in_fp32) as found:
        return found if found.trainer is None else twin(found.trainer)
