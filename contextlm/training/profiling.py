"""`--profile`: some iterations under torch's profiler, as a trace for Perfetto and a table of operations.

The trace of a rank is `trace_rankN.json.gz` in `--output-dir`: open it at https://ui.perfetto.dev.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from contextlm.training.setup import Run

NUM_OPERATIONS = 10


class Profile:
    """Profiles the iterations after `--profile-step-start` up to `--profile-step-end` on the chosen ranks."""

    def __init__(self, run: Run) -> None:
        self.run = run
        settings = run.config.logging
        chosen = settings.profile and str(run.runtime.rank) in settings.profile_ranks
        self.iterations = range(settings.profile_step_start, settings.profile_step_end) if chosen else range(0)
        self.profiler: torch.profiler.profile | None = None

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._finish()

    def before_iteration(self) -> None:
        """Begin or end here, if the next iteration is the first or the one after the last."""
        if self.run.progress.iteration not in self.iterations:
            self._finish()
        elif self.profiler is None:
            self.profiler = torch.profiler.profile(record_shapes=True)
            self.profiler.start()

    def _finish(self) -> None:
        """Write the trace and print the operations that took longest."""
        if self.profiler is None:
            return
        profiler, self.profiler = self.profiler, None
        profiler.stop()
        assert self.run.config.output_dir is not None
        folder = Path(self.run.config.output_dir)
        path = folder / f"trace_rank{self.run.runtime.rank}.json.gz"
        part = path.with_name(f"part_{path.name}")
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(part))
        os.replace(part, path)
        device = self.run.runtime.device.type
        print(f"profile of rank {self.run.runtime.rank}: {path}; the {NUM_OPERATIONS} longest operations:")
        table = profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=NUM_OPERATIONS)
        print(table, flush=True)
