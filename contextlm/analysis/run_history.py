"""What befell a run, in sentences: beginnings, ends, faults, rollbacks, failed saves, skipped iterations.

From `events.jsonl`, the `skipped` of `metrics.jsonl`, `bad_steps/` and `exit.json`. Read next: `report_tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from contextlm.analysis.run_record import RunRecord

MOST_SKIPPED = 20  # of which each has a line of its own
# What is no fault, in more words.
_WHY = {"told": "by --iterations-to-skip", "overflow": "fp16 overflow, the loss scale is lowered"}
_ENDS = ("end", "failure", "preemption")


class Happening(NamedTuple):
    """One line of a run's history.

    Attributes:
        time: in UTC; empty where it is not on record.
        iteration: None where it is not on record.
        is_bad: whether somebody should look at it.
    """

    time: str
    iteration: int | None
    sentence: str
    is_bad: bool = False


def history(run: RunRecord) -> list[Happening]:
    """What is on record, jobs in order, and behind them the skipped iterations."""
    return [*_jobs(run), *_skipped(run)]


def state(run: RunRecord) -> str:
    """Where the run stands, in a few words."""
    ending, reached = _last_ending(run), run.iterations
    status = ending.get("status")
    if status == 1:
        return f"failed: {ending.get('cause')}"
    if reached is not None and any(
        isinstance(run.config.get(option), int) and run.training[-1].get(column, 0) >= run.config[option]
        for option, column in (("train_iters", "iteration"), ("train_samples", "consumed_samples"))
    ):
        return "finished"
    if status is not None:
        return f"stopped after iteration {reached:,d}" if reached is not None else "stopped before the first iteration"
    return "unfinished: still running, or killed"


def _last_ending(run: RunRecord) -> dict[str, Any]:
    """How the last job ended that began: a start that was refused changes exit.json, and nothing of the run."""
    words = [event for event in run.events if event["what"] in ("begin", *_ENDS)]
    began = [place for place, event in enumerate(words) if event["what"] == "begin"]
    if not began or len(words) < began[-1] + 3:  # it, its end, and what was refused after it
        return run.ending
    ending = words[began[-1] + 1]
    return {"status": 0} | ending if ending["what"] == "end" else ending


def _jobs(run: RunRecord) -> Iterator[Happening]:
    if not run.events:
        if run.ending.get("status"):
            yield Happening("", None, _ending(run.ending), is_bad=run.ending["status"] == 1)
        return
    under_way = False
    for event in run.events:
        if event["what"] == "begin" and under_way:
            yield Happening("", None, "the job before has left no word of its end: killed, or its machine lost", True)
        under_way = event["what"] == "begin" or (under_way and event["what"] not in _ENDS)
        yield _happening(event)
    if under_way:
        yield Happening("", None, "no end is on record: still running, or killed", is_bad=True)


def _happening(event: dict[str, Any]) -> Happening:
    """One line of events.jsonl; of a kind that this version does not know, its facts as they are."""
    what, iteration = event["what"], event.get("iteration")
    iteration = iteration if isinstance(iteration, int) else None
    time = str(event.get("time", "")).replace("T", " ").removesuffix("Z")
    under = f", {event['layout']}" if event.get("layout") else ""
    if what == "begin":
        return Happening(time, iteration, f"continued{under}" if iteration else f"began{under}")
    if what == "end":
        return Happening(time, iteration, "ended, as asked")
    if what in ("failure", "preemption"):
        return Happening(time, iteration, _ending(event), is_bad=what == "failure")
    known = {"time", "what", "iteration"}
    facts = "; ".join(str(value) for name, value in event.items() if name not in known)
    return Happening(time, iteration, f"{what}: {facts}" if facts else str(what), is_bad=True)


def _ending(record: dict[str, Any]) -> str:
    """exit.json, or the event that has the same facts."""
    if record.get("status") != 1:
        return str(record.get("cause"))
    remedy = f" ({record['remedy']})" if record.get("remedy") else ""
    attempt = f"attempt {record['attempt']}, " if record.get("attempt") else ""
    return f"failed: {attempt}rank {record.get('rank')}: {record.get('cause')}{remedy}"


def skipped(run: RunRecord) -> dict[int, str]:
    """Why iterations updated nothing, by iteration."""
    return {line["iteration"]: str(line["skipped"]) for line in run.training if line.get("skipped")}


def _skipped(run: RunRecord) -> Iterator[Happening]:
    found: Sequence[tuple[int, str]] = sorted(skipped(run).items())
    for iteration, why in found[:MOST_SKIPPED]:
        sentence = run.bad_steps.get(iteration, _WHY.get(why, why))
        yield Happening("", iteration, f"skipped: {sentence}", is_bad=why not in _WHY)
    if len(found) > MOST_SKIPPED:
        yield Happening("", None, f"{len(found) - MOST_SKIPPED} more skipped iterations, up to {found[-1][0]:,d}")
