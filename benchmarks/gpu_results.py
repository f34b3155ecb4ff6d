"""The results of a model as text: one table of its trainers, and what was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from gpu_trainers import AGAINST, CONTEXT, PLAIN, TRAINERS
from gpu_turns import in_turns
from table import table

HEADINGS = (
    "trainer",
    "tokens/s",
    "windows",
    "spread",
    "ratio",
    "to",
    "MFU",
    "causal",
    "sustained",
    "peak GiB",
    "first s",
    "compile s",
)


def trainers_table(found: Mapping[str, Any], peak_tflops: float | None) -> str:
    """One line for each trainer that has windows.

    Args:
        found: trainer -> its results.
        peak_tflops: of the device; None leaves the MFU empty.
    """
    medians = {name: median(found[name]) for name in TRAINERS if found.get(name, {}).get("windows")}
    rows, apart = [], []
    for name, rate in medians.items():
        result, other = found[name], AGAINST.get(name)
        rates = [each["tokens_per_second"] for each in result["windows"]]
        ratio = ("", "")
        if other in medians:
            ratio = (f"{rate / medians[other]:.3f}", str(other))
            if not in_turns(result["windows"], found[other]["windows"]):
                apart.append(f"{name} and {other}")
        used = [rate * result[kind] / 1e12 for kind in ("flops_per_token", "causal_flops_per_token")]
        mfu = ["" if peak_tflops is None else f"{tflops / peak_tflops:.1%}" for tflops in used]
        mfu.append(_of_products(result))
        spread = f"{min(rates) / rate - 1:+.1%}..{max(rates) / rate - 1:+.1%}"
        memory = f"{result['peak_bytes'] / 2**30:.1f}"
        seconds = f"{result['first_seconds']:.0f}", f"{result['compile_seconds']:.0f}"
        rows.append((name, f"{rate:,.0f}", str(len(rates)), spread, *ratio, *mfu, memory, *seconds))
    lines = [table(HEADINGS, rows)] if rows else []
    if any(row[HEADINGS.index("sustained")] for row in rows):
        lines.append("sustained: MFU as a share of what one large bf16 product sustained in the same call")
    if {PLAIN, CONTEXT} <= medians.keys():
        overhead = found[CONTEXT]["flops_per_token"] / found[PLAIN]["flops_per_token"] - 1
        lines.append(f"the head has {overhead:.2%} more FLOPs: at their price ContextLM has {1 / (1 + overhead):.3f}")
    if apart:
        lines.append(f"not in turns: {', '.join(apart)}: measured one after the other, or in different calls")
    return "\n".join(lines)


def _of_products(result: Mapping[str, Any]) -> str:
    """The rate of a trainer as a share of that of products alone, where this was noted."""
    noted = [each for each in result["windows"] if "product_flops_per_second" in each]
    shares = [each["tokens_per_second"] / each["product_flops_per_second"] for each in noted]
    return f"{statistics.median(shares) * result['flops_per_token']:.1%}" if shares else ""


def median(result: Mapping[str, Any]) -> float:
    """Tokens a second."""
    return statistics.median(each["tokens_per_second"] for each in result["windows"])


def not_measured(found: Mapping[str, Any], wanted: Mapping[str, int], parts: Mapping[str, bool]) -> list[str]:
    """What is missing of a model, a sentence each.

    Args:
        found: trainer or part -> its results.
        wanted: trainer -> its windows.
        parts: what else was asked for -> whether it is there.
    """
    sentences = []
    for name, windows in wanted.items():
        result = found.get(name, {})
        if "failed" in result:
            sentences.append(f"{name} ({result['failed']})")
        elif (there := len(result.get("windows", ()))) < windows:
            sentences.append(f"{name} ({there} of {windows} windows)")
    return sentences + [part for part, is_there in parts.items() if not is_there]
