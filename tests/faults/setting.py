"""What the runs of all trials are: a small model, real data, a checkpoint every third iteration."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cli.programs import SMALL, make_dataset
from tests.faults.job import Job

ITERATIONS, SAVE_INTERVAL = 12, 3
SECONDS_BOUND = 150.0
LAYOUTS = {
    "DP2": (),
    "TP2": ("--tensor-model-parallel-size", "2"),
    "PP2": ("--pipeline-model-parallel-size", "2"),
}
LENGTH = (
    "--train-iters", str(ITERATIONS), "--save-interval", str(SAVE_INTERVAL), "--log-interval", "1",
    "--eval-interval", "6", "--eval-iters", "1", "--hidden-dropout", "0.1",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Where the data and the undisturbed runs lie.

    Attributes:
        folder: of all trials.
    """

    folder: Path

    @property
    def data(self) -> Path:
        """Prefix of the dataset."""
        return self.folder / "data" / "words_text_document"

    def words(self, layout: str, place: Path, data: Path | None = None) -> list[str]:
        """The command of a run that saves in `place` and resumes from there."""
        places = ("--data-path", str(data or self.data), "--save", str(place), "--load", str(place))
        return [*SMALL, *LAYOUTS[layout], *LENGTH, *places]

    def reference(self, layout: str) -> Path:
        """The folder of an undisturbed run."""
        return self.folder / "undisturbed" / layout

    def seconds(self, layout: str) -> float:
        """How long the undisturbed run took."""
        return json.loads((self.folder / "undisturbed" / f"{layout}.seconds").read_text())

    def make_data(self) -> None:
        """Write the dataset."""
        (self.folder / "data").mkdir(parents=True)
        make_dataset(self.folder / "data")

    def make_reference(self, layout: str) -> None:
        """Train without a fault."""
        place = self.reference(layout)
        place.parent.mkdir(parents=True, exist_ok=True)
        began, log = time.monotonic(), place.with_suffix(".log")
        job = Job(self.words(layout, place), log)
        if job.wait(SECONDS_BOUND) != 0:
            raise RuntimeError(f"the undisturbed run failed:\n{job.said()}")
        place.with_name(f"{place.name}.seconds").write_text(json.dumps(time.monotonic() - began))


def copy_data(setting: Setting, folder: Path) -> Path:
    """A copy of the dataset, to be damaged; its prefix."""
    shutil.copytree(setting.data.parent, folder)
    return folder / setting.data.name
