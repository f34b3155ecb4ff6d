"""Faults of a save: a death at each of its steps, a disk that is full, a folder that is closed, one that is slow."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.faults.job import Failed
from tests.faults.setting import ITERATIONS, SAVE_INTERVAL
from tests.faults.trial import Trial

# What Python tells of just before it happens: event, pattern of the path, and where in a save that is.
STEPS = (
    ("os.mkdir", r"iter_\d+\.tmp$", "its folder is made"),
    ("open", r"iter_\d+\.tmp/__\d+_\d+\.distcp$", "a shard is opened"),
    ("open", r"iter_\d+\.tmp/\.metadata", "the index of the shards is opened"),
    ("open", r"iter_\d+\.tmp/metadata\.json", "metadata.json is opened"),
    ("open", r"iter_\d+\.tmp/config\.yaml", "config.yaml is opened"),
    ("open", r"iter_\d+\.tmp/run\.json", "run.json is opened"),
    ("open", r"iter_\d+\.tmp/manifest\.json", "the manifest is opened"),
    ("os.rename", r"iter_\d+\.tmp -> .*iter_\d+$", "the folder gets its name"),
    ("open", r"latest_checkpointed_iteration\.txt", "the tracker is opened"),
    ("os.rename", r"-> .*latest_checkpointed_iteration\.txt$", "the tracker is replaced"),
)
SAVES = ITERATIONS // SAVE_INTERVAL


def crash_in_a_save(trial: Trial) -> None:
    """One rank dies at a step of one of the saves: the checkpoint before it counts, or this one whole."""
    trial.may_save_in_the_background()
    event, pattern, words = trial.dice.choice(STEPS)
    rank = trial.dice.randrange(2) if "distcp" in pattern else 0
    which = trial.dice.randrange(1, SAVES + 1)
    with trial.job(sabotage={"what": "die", "rank": rank, "event": event, "pattern": pattern, "time_of": which}) as job:
        trial.stops(job)
    if not trial.told.exists():
        raise Failed(f"no save came to the point where {words}")
    trial.struck(f"save: before {words}")
    trial.continues()


def crash_in_the_second_save(trial: Trial) -> None:
    """Always the same, for the controls: iterations 4 to 6 are told, and have to be trained again."""
    options = {"event": "os.rename", "pattern": r"iter_0000006\.tmp -> ", "time_of": 1}
    with trial.job(sabotage={"what": "die", "rank": 0, **options}) as job:
        trial.stops(job)
    trial.struck("save: before the folder gets its name")
    trial.continues()


def refused_in_a_save(trial: Trial) -> None:
    """The operating system refuses a step of a save, once (no space, I/O error): told, tried again, nothing lost."""
    trial.may_save_in_the_background()
    event, pattern, words = trial.dice.choice(STEPS[:7])
    error = trial.dice.choice(("ENOSPC", "EIO", "EDQUOT"))
    options = {"event": event, "pattern": pattern, "time_of": trial.dice.randrange(1, SAVES + 1), "error": error}
    rank = trial.dice.randrange(2) if "distcp" in pattern else 0
    with trial.job(sabotage={"what": "fail", "rank": rank, "keeps_on": False, **options}) as job:
        status, said = trial.wait(job), job.said()
    if not trial.told.exists():
        raise Failed(f"no save came to the point where {words}")
    trial.struck(f"{error} before {words}")
    words_of_it = {"ENOSPC": "No space left", "EIO": "Input/output error", "EDQUOT": "quota exceeded"}[error]
    if words_of_it not in said:
        raise Failed(f"nothing said {words_of_it!r}")
    if status:
        raise Failed(f"ended with {status}")
    trial.is_undisturbed("went on, saved again")


def full_disk(trial: Trial) -> None:
    """The run's folder is a small file system: too small to begin, or too small to end; then it grows."""
    trial.run.mkdir()
    kib = trial.dice.randrange(2000, 18000)
    _mount(trial.run, f"size={kib}k")
    trial.may_save_in_the_background()
    with trial.job() as job:
        trial.stops(job)
    begun, said = (trial.run / "metrics.jsonl").exists(), job.said()
    last_words = f"the last checkpoint, of iteration {ITERATIONS}, could not be written"
    if (last_words if begun else "make room or save elsewhere") not in said:
        raise Failed(f"it stopped without saying that there is no room: {said[-300:]}")
    trial.struck("full in training" if begun else "too small at the start")
    _mount(trial.run, "remount,size=256m")
    trial.continues("stopped with the message, resumed")


def _mount(folder: Path, options: str) -> None:
    command = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"no small file system can be mounted here: {done.stderr.strip()}")


def can_mount(folder: Path) -> bool:
    """Whether this machine lets us have a small file system."""
    try:
        _mount(folder, "size=64k")
    except (Failed, OSError):
        return False
    subprocess.run(("umount", str(folder)), check=True)
    return True


def read_only_folder(trial: Trial) -> None:
    """The run's folder may not be written to any more, from a random moment on; then it may again."""
    with trial.job(like_a_user=True) as job:
        moment = trial.moment_in_training()
        if moment.wait(job, trial.run):
            trial.run.chmod(0o555)
            trial.struck()
        status, said = trial.wait(job), job.said()
    trial.run.chmod(0o755)
    if status != 0 and "Permission denied" not in said:
        raise Failed("it stopped without saying that permission was denied")
    trial.continues("stopped with the message, resumed" if status else "was done before, resumed")


def slow_folder(trial: Trial) -> None:
    """Every file of a checkpoint takes long to open: the run is late, and otherwise the same."""
    seconds = trial.dice.uniform(0.05, 0.4)
    with trial.job(sabotage={"what": "slow_files", "pattern": r"iter_\d+\.tmp/", "seconds": seconds}) as job:
        if status := trial.wait(job):
            raise Failed(f"ended with {status}")
    trial.struck(f"{seconds:.1f} s a file")
    trial.is_undisturbed("went on")
