"""The commands that made a run, as they can be given again in a shell."""

from __future__ import annotations

import shlex
from typing import Any

from contextlm.analysis.run_record import RunRecord

_WIDTH = 100


def rerun_commands(run: RunRecord) -> str:
    """One command for each job that did something otherwise than the one before; empty where none is on record.

    A run that was continued under another layout, or with other options, is made again by the same jobs.
    """
    jobs = [event for event in run.events if event["what"] == "begin" and isinstance(event.get("started_with"), dict)]
    jobs = jobs or ([run.details] if isinstance(run.details.get("started_with"), dict) else [])
    lines: list[str] = []
    before: dict[str, Any] = {}
    for job in jobs:
        started, commit = job["started_with"], job.get("git_commit")
        if started == before:
            continue
        before = started
        reached = job["iteration"] if "what" in job else 0
        lines += [
            *([""] if lines else []),
            f"# {run.name}, after iteration {reached:,d}:" if reached else f"# {run.name}:",
            *([f"# source: commit {commit}"] if commit else []),
            *([f"cd {shlex.quote(str(started['directory']))}"] if started.get("directory") else []),
            _typed(started),
        ]
    return "\n".join(lines)


def _typed(started: dict[str, Any]) -> str:
    """The command with its variables, in lines that fit a page."""
    lines = [" ".join(f"{name}={shlex.quote(str(value))}" for name, value in started.get("environment", {}).items())]
    for word in (shlex.quote(str(word)) for word in started.get("command", ())):
        if len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(word)
    return " \\\n  ".join(lines)
