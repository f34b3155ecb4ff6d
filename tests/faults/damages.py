"""Files that are not what they were: of a checkpoint, of the data, the tracker."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.job import Failed
from tests.faults.moments import Moment
from tests.faults.setting import copy_data
from tests.faults.trial import Trial


def truncate(path: Path, trial: Trial) -> None:
    """Cut a random part off."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(trial.dice.randrange(size))


def flip(path: Path, trial: Trial) -> None:
    """Flip one bit."""
    place, bit = trial.dice.randrange(path.stat().st_size), trial.dice.randrange(8)
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def delete(path: Path, trial: Trial) -> None:
    """It is gone."""
    path.unlink()


DAMAGES: tuple[Callable[[Path, Trial], None], ...] = (truncate, flip, delete)


def _killed_after_a_save(trial: Trial) -> Path:
    """A run that is killed some time after its second save; its newest checkpoint, by the tracker."""
    with trial.job() as job:
        Moment("iteration", 7, trial.dice.uniform(0, 0.1)).wait(job, trial.run)
        job.kill_all()
        trial.struck()
        trial.wait(job)
    iteration = int((trial.run / "latest_checkpointed_iteration.txt").read_text())
    return trial.run / f"iter_{iteration:07d}"


def damaged_shard(trial: Trial) -> None:
    """A bit of a shard is flipped, or it is cut short or gone: named before it is loaded; restored, it continues."""
    checkpoint = _killed_after_a_save(trial)
    shard = trial.dice.choice(sorted(checkpoint.glob("*.distcp")))
    _damaged_and_restored(trial, shard, trial.dice.choice(DAMAGES), str(checkpoint), shard.name)


def damaged_checkpoint(trial: Trial) -> None:
    """Any file of the newest checkpoint is damaged: `--load-fallback` goes on from the one before it."""
    checkpoint = _killed_after_a_save(trial)
    trial.more = ("--load-fallback",)
    path = trial.dice.choice(sorted(path for path in checkpoint.iterdir() if path.name != "manifest.json"))
    damage = trial.dice.choice(DAMAGES)
    damage(path, trial)
    trial.struck(f"{path.name}: {damage.__name__}")
    trial.continues("resumed from the one before")
    if str(checkpoint) not in (said := (trial.folder / "log").read_text()) or path.name not in said:
        raise Failed(f"nothing named {path}")


def damaged_manifest(trial: Trial) -> None:
    """The manifest of the newest checkpoint is changed or cut short: the checkpoint is not trusted; restored, it is."""
    checkpoint = _killed_after_a_save(trial)
    _damaged_and_restored(trial, checkpoint / "manifest.json", trial.dice.choice((truncate, flip)), str(checkpoint))


def _damaged_and_restored(trial: Trial, path: Path, damage: Callable[[Path, Trial], None], *words: str) -> None:
    kept = trial.folder / "kept"
    shutil.copyfile(path, kept)
    damage(path, trial)
    trial.struck(f"{path.suffix or path.name}: {damage.__name__}")
    with trial.job() as job:
        trial.stops(job, *words)
    shutil.copyfile(kept, path)
    trial.continues("stopped with the message, resumed when restored")


def damaged_tracker(trial: Trial) -> None:
    """The tracker is empty, gone, of random bytes, or names what is not there: the newest checkpoint is used."""
    checkpoint = _killed_after_a_save(trial)
    tracker = trial.run / "latest_checkpointed_iteration.txt"
    contents = {"empty": b"", "gone": None, "random bytes": trial.dice.randbytes(7), "not there": b"12345\n"}
    words = trial.dice.choice(sorted(contents))
    content = contents[words]
    tracker.unlink() if content is None else tracker.write_bytes(content)
    trial.struck(words)
    trial.continues()
    if f"using {checkpoint}" not in (trial.folder / "log").read_text():
        raise Failed("nothing said which checkpoint was used instead")


def damaged_data(trial: Trial) -> None:
    """A run is killed, and a file of its data is damaged before it continues."""
    trial.data = copy_data(trial.setting, trial.folder / "data")
    _killed_after_a_save(trial)
    path = trial.data.with_name(trial.data.name + trial.dice.choice((".bin", ".idx")))
    _damaged_and_restored(trial, path, trial.dice.choice(DAMAGES), path.stem)
