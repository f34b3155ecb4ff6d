"""lm_eval's tasks on a checkpoint, by its own evaluator and our model class; imported where tasks are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from contextlm.errors import UserError


def run_tasks(
    load: str,
    names: Sequence[str],
    *,
    batch_size: int,
    limit: int | None = None,
    num_fewshot: int | None = None,
    include_path: str | None = None,
    max_length: int | None = None,
    context_control: str = "none",
) -> dict[str, Any]:
    """Run tasks; returns `tasks`: of each its version, its examples and its measures with their standard errors.

    Args:
        load: a checkpoint or a Hugging Face folder.
        names: of tasks or groups of tasks.
        batch_size: texts per forward pass.
        limit: examples of each task.
        num_fewshot: examples before each question; the task's own number if None.
        include_path: a folder with more tasks.
        max_length: tokens that are read at once.
        context_control: see `--context-control`.

    Raises:
        UserError: lm_eval is not installed, or there is no such task.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("--tasks: needs lm_eval: pip install 'contextlm[eval]'") from None
    from contextlm.interop.lm_eval import ContextLMEvaluation

    manager = TaskManager(include_path=include_path, include_defaults=include_path is None)
    if include_path is not None and not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=include_path)  # reads thousands of files, which own tasks do not need
    if unknown := [name for name in names if name not in manager.all_tasks]:
        raise UserError(
            f"--tasks {','.join(unknown)}: lm_eval {lm_eval.__version__} has no such task; see --include-path"
        )
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # its bootstrap forks, which a process with threads should not
    model = ContextLMEvaluation(load, batch_size, max_length, context_control)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=list(names),
        num_fewshot=num_fewshot,
        limit=limit,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=1000,
    )
    assert found is not None  # of the first rank
    return {
        "tasks": {name: _task(name, measures, found) for name, measures in found["results"].items()},
        "lm_eval_version": lm_eval.__version__,
        "limit": limit,
        "context_control": context_control,
        **model.examined.identity(),
    }


def _task(name: str, measures: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """One task's part of what lm_eval returns, whose names are `measure,filter` and `measure_stderr,filter`."""
    values = {key: value for key, value in measures.items() if isinstance(value, (int, float)) and "," in key}
    named = {}
    for key, value in values.items():
        measure, _, kind = key.partition(",")
        if not measure.endswith("_stderr"):
            error = measures.get(f"{measure}_stderr,{kind}")
            label = measure if kind == "none" else f"{measure} ({kind})"
            named[label] = {"value": value, "stderr": error if isinstance(error, (int, float)) else None}
    return {
        "version": found.get("versions", {}).get(name),
        "num_fewshot": found.get("n-shot", {}).get(name),
        "examples": found.get("n-samples", {}).get(name, {}).get("effective"),
        "measures": named,
    }
