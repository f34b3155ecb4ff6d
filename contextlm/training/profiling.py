"""`--profile`: some iterations under torch's profiler, as a trace for Perfetto and a table of operations.

The trace of a rank is `trace_rankN.json.gz` in `--output-dir`: open it at https://ui.perfetto.dev.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from contextlm.training.metrics import Metrics
    from contextlm.training.setup import Run

NUM_OPERATIONS = 10


class Profile:
    """Profiles the iterations after `--profile-step-start` up to `--profile-step-end` on the chosen ranks.

    What it costs to begin and to write is no time of an iteration, on no rank. A profile that fails is told of and
    stops nothing.
    """

    def __init__(self, run: Run, metrics: Metrics) -> None:
        self.run, self.metrics = run, metrics
        settings = run.config.logging
        self.iterations = range(settings.profile_step_start, settings.profile_step_end if settings.profile else 0)
        self.is_chosen = str(run.runtime.rank) in settings.profile_ranks
        self.is_inside = self.has_begun = False
        self.profiler: torch.profiler.profile | None = None

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._attempt(self._finish)
        if self.iterations and not self.has_begun and self.run.runtime.rank == 0:
            start, end = self.iterations.start, self.iterations.stop
            self._say(f"note: --profile: none of the iterations {start + 1} to {end} was run; see --profile-step-start")

    def before_iteration(self) -> None:
        """Begin or end here, if the next iteration is the first or the one after the last; then collective."""
        if (self.run.progress.iteration in self.iterations) == self.is_inside:
            return
        self.is_inside = not self.is_inside
        self.has_begun = True
        self._attempt(self._begin if self.is_inside else self._finish)
        torch.distributed.barrier()  # else the other ranks' next iteration would wait for this one
        self.metrics.restart_clock()

    def _attempt(self, step: Callable[[], None]) -> None:
        """Whatever the profiler or the disk may raise, which must not hide another failure either."""
        try:
            step()
        except Exception as error:
            self.profiler = None
            self._say(f"warning: the profile failed, training goes on: {type(error).__name__}: {error}")

    def _begin(self) -> None:
        if self.is_chosen:
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
        self._say(f"profile of rank {self.run.runtime.rank}: {path}; the {NUM_OPERATIONS} longest operations:")
        self._say(profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=NUM_OPERATIONS))

    def _say(self, text: str) -> None:
        self.metrics.say(text, every_rank=True)
