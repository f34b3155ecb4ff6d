"""Who is to blame when no rank moves, and the words for it. Pure functions of the notes that the ranks have left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from contextlm.parallel.companions import Failure, Note

Notes = Mapping[int, Note | None]
_SHOWN_RANKS = 16


class Hang(NamedTuple):
    """A run in which nothing moves.

    Attributes:
        rank: the one that the others wait for, as far as that can be told.
        what: of it, one line.
        frames: its innermost ones; none where it cannot say.
    """

    rank: int
    what: str
    frames: tuple[str, ...]


def is_silent(note: Note | None, seconds: float) -> bool:
    """Whether a rank has said nothing for so long: its process is stopped, gone, or its interpreter held."""
    return note is None or not note.has_left and time.time() - note.at > seconds


def nothing_moves(notes: Notes, silence: float) -> bool:
    """Whether every rank is stuck, silent, or has left."""
    return all(note is None or note.has_left or note.is_stuck or is_silent(note, silence) for note in notes.values())


def hanging(notes: Notes, silence: float) -> Hang:
    """The rank that keeps the others waiting.

    A silent one, else the one that is furthest behind: in the earliest iteration; among equals one that does not wait
    in a collective, and has been idle the longest.
    """
    silent = [rank for rank, note in notes.items() if is_silent(note, silence)]
    if silent:
        note = notes[silent[0]]
        if note is None:
            return Hang(silent[0], f"rank {silent[0]} has not been heard of", ())
        words = (
            f"{note} has been silent for {time.time() - note.at:.0f} s, last heard of in {note.place}: its process is "
            "stopped, or an extension holds its interpreter"
        )
        return Hang(note.rank, words, ())
    there = [note for note in notes.values() if note is not None and not note.has_left]
    last = min(there, key=lambda note: (note.iteration, note.waits, -note.idle, note.rank))
    words = f"{last} has hung for {last.idle:.0f} s in {last.place}"
    if last.waits:
        words += ", waiting for another rank, as all others do" if len(there) > 1 else ""
    return Hang(last.rank, words, last.frames)


def report(hang: Hang, notes: Notes, silence: float, stacks: str | None, ends_in: float | None) -> list[str]:
    """The lines that one rank prints for all.

    Args:
        silence: seconds without a note after which nothing is known of a rank.
        stacks: the folder with everyone's stacks.
        ends_in: seconds until the run ends; None if it does not.
    """
    lines = [f"warning: nothing moves: {hang.what}"]
    if hang.frames:
        lines.append(f"         it is at {' < '.join(hang.frames)}")
    lines += [f"         {_line(rank, note, silence)}" for rank, note in list(notes.items())[:_SHOWN_RANKS]]
    if len(notes) > _SHOWN_RANKS:
        lines.append(f"         and {len(notes) - _SHOWN_RANKS} more ranks")
    if stacks is not None:
        lines.append(f"         the stacks of all ranks that can write them are in {stacks}")
    if ends_in is not None:
        lines.append(f"         the run ends with status 1 in {ends_in:.0f} s unless it moves again")
    return lines


def as_failure(hang: Hang) -> Failure:
    """Why the run ends."""
    at = f", at {hang.frames[0]}" if hang.frames else ""
    return Failure(
        hang.rank,
        hang.what + at,
        "see stacks/ beside exit.json, and that rank's host; run the same command again: it continues from the last "
        "checkpoint; --hang-timeout-seconds gives slow work more time",
    )


def _line(rank: int, note: Note | None, silence: float) -> str:
    if note is None:
        return f"rank {rank}: no sign of it"
    if note.has_left:
        return f"rank {rank}: has ended"
    if is_silent(note, silence):
        return f"rank {rank}: silent for {time.time() - note.at:.0f} s, since {note.place}"
    doing = "waits for other ranks" if note.waits else "does not wait for others"
    return f"rank {rank}: {note.place}, idle for {note.idle:.0f} s, {doing}"
