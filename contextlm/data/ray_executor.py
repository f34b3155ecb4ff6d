"""Makes the pieces of a run on the nodes of a Ray cluster that is there already.

Each piece is a task of its own; Ray starts it again elsewhere if its node dies. The nodes need the inputs, the
tokenizer and the output folder at the same paths, and our dependencies; this package itself is sent to them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from contextlm.data.preprocessing import Plan, Progress, make_plan
from contextlm.data.sharded_preprocessing import Piece, Report, Say, write_piece
from contextlm.data.sources.sharing import share
from contextlm.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


def on_ray(plan: Plan, pieces: Sequence[Piece], report: Report, say: Say) -> Iterator[Progress]:
    """Make `pieces`, as many at once as the cluster has room for.

    Args:
        report: called after each.
        say: told how many tasks there are.

    Raises:
        UserError: no Ray, no cluster, no node with `--workers` cores, or what a piece raised.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install ray") from None
    if not pieces:
        return
    if not ray.is_initialized():
        try:
            ray.init(address="auto", runtime_env={"py_modules": [str(PACKAGE)]}, log_to_driver=False)
        except ConnectionError:
            raise UserError(
                "--executor ray: there is no Ray cluster here; start one with `ray start --head`, or name one with "
                "RAY_ADDRESS"
            ) from None
    cores = pieces[0].options.workers or 1
    most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    if cores > most:
        raise UserError(f"--workers {cores}: a task has as many cores, and no node of the cluster more than {most}")
    task = ray.remote(num_cpus=cores)(_make)
    sizes = [sum(unit.size for unit in share(plan.units, part.num_shards, part.shard)) for _, part in pieces]
    done = Progress(sum(sizes))
    say(f"{len(pieces)} tasks of {cores} core{'s' if cores > 1 else ''} on a Ray cluster")
    waiting = [task.remote(os.getcwd(), piece) for piece in pieces]
    while waiting:
        finished, waiting = ray.wait(waiting)
        try:
            progress = ray.get(finished[0])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(*error.cause.problems) from None
            raise
        done = done.plus(progress)
        report(done)
        yield done


def _make(folder: str, piece: Piece) -> Progress:
    """On a node: make one piece. Relative paths mean what they mean where the run was started."""
    os.chdir(folder)
    return write_piece(make_plan(piece.options), piece)
