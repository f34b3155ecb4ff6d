"""The `checkpoint` section: what is saved and loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass

from contextlm.config.options import option


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is saved and what a run starts from."""

    save: str | None = option(None, "Folder for checkpoints.", example="runs/a")
    load: str | None = option(
        None,
        "Folder to resume from; equal to --save: resume if there is a checkpoint, else start fresh.",
        example="runs/a",
    )
    save_interval: int | None = option(
        None, "Iterations between checkpoints; the end is always saved.", example=100, minimum=1
    )
    async_save: bool = option(
        False, "Write checkpoints in the background: training waits only for the copy of the tensors to host memory."
    )
    save_total_limit: int | None = option(
        None, "Newest checkpoints that stay; older ones are deleted once a new one is complete.", example=3, minimum=1
    )
    save_retain_interval: int | None = option(
        None,
        "Keep every checkpoint of an iteration that this divides; of the others only the newest, or as many as "
        "--save-total-limit says.",
        example=1000,
        minimum=1,
    )
    save_best: bool = option(
        False, "Keep the checkpoint with the least validation loss, and name it in best_checkpointed_iteration.txt."
    )
    finetune: bool = option(False, "Load weights only: iteration 0, fresh optimizer and data.")
    allow_changed_options: tuple[str, ...] = option(
        (),
        "Options that may differ from the checkpoint's though that makes another run of it; docs/options.md says which "
        "need this leave.",
        example=("adam-beta2", "hidden-dropout"),
    )
    verify_integrity: bool = option(
        True, "Compare the files of a checkpoint with the hashes of its manifest before anything is loaded."
    )
    load_fallback: bool = option(
        False, "If the checkpoint to load is damaged, take the newest older one that is intact, and say so."
    )
    init_backbone_from: str | None = option(
        None, "A plain checkpoint whose weights become the backbone under a new context head.", example="runs/gpt2"
    )

    @property
    def resumes_itself(self) -> bool:
        """Whether --load and --save name one folder: resume if there is a checkpoint, else start fresh."""
        if self.load is None or self.save is None:
            return False
        return os.path.realpath(self.load) == os.path.realpath(self.save)
