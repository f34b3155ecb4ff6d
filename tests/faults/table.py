"""What came of the trials, in words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.faults.controls import WORDS
from tests.faults.kinds import KINDS


def is_good(result: dict[str, Any]) -> bool:
    """Whether a trial held, or a control was noticed for what it is."""
    problem, control = result["problem"], result["control"]
    return problem is None if control is None else problem is not None and WORDS[control] in problem


def line_of(count: int, total: int, result: dict[str, Any]) -> str:
    """One trial."""
    control = f", broken by {result['control']}" if result["control"] else ""
    said = f"{'noticed' if control else 'FAILED'}: {result['problem']}" if result["problem"] else result["outcome"]
    name = f"{result['kind']} --seed {result['seed']} ({result['layout_and_options']}, {result['seconds']:.1f} s"
    return f"[{count}/{total}] {name}; hit {result['hit']}{control}): {said}"


def table(results: list[dict[str, Any]]) -> str:
    """All of them by fault, in markdown."""
    lines = [
        "| fault | trials | what came of it | what it hit | every number equal | worst seconds to the next iteration |",
        "|---|---|---|---|---|---|",
    ]
    for kind, entry in KINDS.items():
        rows = [result for result in results if result["kind"] == kind and result["control"] is None]
        if not rows:
            continue
        outcomes = Counter(row["outcome"] if is_good(row) else "FAILED" for row in rows)
        waits = [row["seconds_to_recover"] for row in rows if row["seconds_to_recover"] is not None]
        lines.append(
            f"| {entry.words} | {len(rows)} | {_counts(outcomes)} | {_counts(Counter(row['hit'] for row in rows))} | "
            f"{sum(row['equal'] for row in rows)} of {len(rows)} | {f'{max(waits):.1f}' if waits else '-'} |"
        )
    for row in results:
        if row["control"]:
            noticed = "noticed" if is_good(row) else "NOT NOTICED"
            lines.append(f"| control: {row['control'].replace('_', ' ')} | 1 | {noticed} | {row['hit']} | no | - |")
    return "\n".join(lines) + "\n"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {words}" for words, count in counter.most_common())
