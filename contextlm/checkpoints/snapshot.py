"""A run at one iteration, apart from the run: training goes on and changes nothing of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron.core.dist_checkpointing.mapping import ShardedStateDict

from contextlm import atomic_files
from contextlm.checkpoints import checkpoint_folder, manifest, rng_state, spike_window
from contextlm.checkpoints.optimizer_state import OptimizerState
from contextlm.checkpoints.sharded_state import metadata, weights_state
from contextlm.checkpoints.shards import Piece, Shards
from contextlm.config.yaml_file import write as write_config
from contextlm.training.provenance import made_by
from contextlm.training.setup import Run, gathered_weights


class Snapshot:
    """What a checkpoint of the current iteration will hold.

    Args:
        run: the run; every rank must make one, and copy the shards to the host before the next iteration.
        folder: where it is to be written; it must be there.

    Attributes:
        shards: this rank's tensors.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        with gathered_weights(run):
            self.shards = Shards(_state(run), folder)
        self._folder, self._iteration = folder, run.progress.iteration
        self._config, self._tokenizer, self._facts = run.resolved_config, run.tokenizer, _describe(run)

    def publish(self, pieces: Sequence[Piece]) -> None:
        """Complete the folder and put it in force; the first rank does it, when all have written.

        Args:
            pieces: of all ranks.
        """
        folder = self._folder
        self.shards.complete(pieces)
        write_config(self._config, folder / checkpoint_folder.CONFIG_FILE)
        self._tokenizer.save(folder)
        atomic_files.write_json(folder / checkpoint_folder.RUN_FILE, self._facts)
        known = dict(itertools.chain.from_iterable(piece.digests.items() for piece in pieces))
        others = [name for name in manifest.written_by(folder, 0) if name not in known]
        manifest.write(folder, known | manifest.digests(folder, others))
        checkpoint_folder.publish(folder, self._iteration)


def _state(run: Run) -> ShardedStateDict:
    """Weights, optimizer and generators of this rank."""
    state = weights_state(run.language_model, run.layout)
    optimizer = OptimizerState(run.optimizer, dict(state), metadata(run.layout), is_loading=False)
    state["optimizer"] = optimizer.to_disk()
    state["rng"] = rng_state.to_save(run.runtime.rank, run.runtime.world_size)
    state["spikes"] = spike_window.to_save(run.skipping.spikes, run.runtime.rank)
    return state


def _describe(run: Run) -> dict[str, Any]:
    """`run.json`: where the run stands and what made it."""
    return {
        **asdict(run.progress),
        "skipped_in_all": Counter(why for _, why in run.progress.skipped_iterations),
        "global_batch_size": run.global_batch_size,
        "world_size": run.runtime.world_size,
        "layout": run.layout_words,
        "device": run.runtime.device.type,
        "vocab_size": run.tokenizer.vocab_size,
        "tokenizer_fingerprint": run.tokenizer.fingerprint,
        "data_fingerprint": run.datasets.fingerprint,
        "evaluation_fingerprint": run.datasets.evaluation_fingerprint,
        **made_by(),
    }
