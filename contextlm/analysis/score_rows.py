"""What `tools/evaluate.py` has found, as rows for a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def score_rows(result: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and standard error of each measure."""
    for task, measures in result.get("tasks", {}).items():
        for name, value in measures["measures"].items():
            yield f"{task} (version {measures['version']}): {name}", value["value"], value["stderr"]
    for kind, measures in result.get("controls", {}).items():
        yield f"loss, context {kind}", measures["lm_loss"], None
        if kind != "none":
            yield f"worth against {kind}", measures["worth"], measures["worth_stderr"]
    for name in ("lm_loss_by_position", "lm_loss_by_position_context_zeroed"):
        for place, value in enumerate(result.get(name, ())):
            yield f"{name} {place}", value, None
    names = "accuracy lm_loss perplexity bits_per_byte unigram_entropy tokens texts samples"
    cosines = [name for name in result if name.startswith(("cosine", "effective")) and not name.endswith("_stderr")]
    for name in (*names.split(), *cosines):
        if name in result:
            yield name, result[name], result.get(f"{name}_stderr")


def number(value: float | int) -> str:
    """As many digits as matter."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if abs(value) < 1e6 else f"{value:.4g}"
