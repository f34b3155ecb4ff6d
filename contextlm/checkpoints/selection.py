"""Which checkpoint a load uses: the one in force, if it is intact; an older one where that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contextlm.checkpoints import manifest
from contextlm.checkpoints.checkpoint_folder import Candidates
from contextlm.errors import UserError

Damage = Callable[[Path], list[str]]


def choose(
    given: Candidates,
    say: Callable[[str], None],
    *,
    damage: Damage = manifest.damage,
    may_fall_back: bool = False,
    remedy: str = "give an older iter_ folder",
) -> Path | None:
    """The first candidate, looked at with `damage`; None where there is no checkpoint.

    Where the tracker is at fault, nobody knows which checkpoint was meant: the newest intact one is used.

    Args:
        given: the checkpoints there are.
        say: told one line if another one is used than was meant, or one that cannot be verified.
        damage: what is wrong with the files of a checkpoint, a sentence each.
        may_fall_back: whether an older one may stand in for a damaged one.
        remedy: ends the sentence about a damaged one.

    Raises:
        UserError: the checkpoint to use is damaged, or the tracker names one and none is there.
    """
    passed_over: list[str] = []
    for folder in given.folders:
        problems = damage(folder)
        if not problems:
            reasons = [*filter(None, [given.problem]), *passed_over]
            if reasons:
                say(f"warning: {'; '.join(reasons)}: using {folder}, the newest intact checkpoint")
            if not (folder / manifest.MANIFEST).exists():
                say(f"warning: {folder} has no {manifest.MANIFEST}: an older version saved it, nothing can be verified")
            return folder
        kind = "incomplete" if manifest.incomplete(folder) else "damaged"
        passed_over.append(f"checkpoint {folder} is {kind}: {', '.join(problems)}")
        if given.problem is None and not may_fall_back:
            raise UserError(f"{passed_over[0]}; {remedy if len(given.folders) > 1 else 'load one from elsewhere'}")
    if passed_over:
        reasons = [*filter(None, [given.problem]), *passed_over]
        raise UserError(*reasons, "no checkpoint there is intact; load one from elsewhere, or begin anew elsewhere")
    if given.problem is not None:
        raise UserError(f"{given.problem}; put the checkpoint back, or remove that file to begin anew")
    return None
