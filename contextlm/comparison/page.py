"""`results.md`: the arms with their budgets, the losses, the paired differences, and what to bear in mind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contextlm.comparison.arms import Arm
from contextlm.comparison.study import Study

if TYPE_CHECKING:
    from contextlm.comparison.differences import Difference, Losses

Row = tuple[str, ...]

HONESTY = (
    "ContextLM here is a reconstruction of a published method, not its authors' code. The intervals say how far other "
    "seeds would move a difference; they say nothing about other sizes, data, learning rates or lengths of training. "
    "Each is for one comparison: of twenty without any effect, one excludes 0."
)


def results_page(study: Study, losses: Losses, found: Sequence[Difference], notes: Sequence[str]) -> str:
    """The page as Markdown; `notes` stand at its end."""
    config = next(iter(study.arms.values())).config
    batch, iterations = config.global_batch_size(1), config.training.train_iters or 0
    tokens = iterations * batch * config.model.seq_length
    parts = [
        f"# {study.name}",
        HONESTY,
        f"{len(study.arms)} arms x {len(study.seeds)} seeds, {iterations:,} iterations of {batch} x "
        f"{config.model.seq_length} tokens each ({tokens / 1e6:.2f}M), vocabulary {study.vocab_size:,}. Runs of one "
        "seed read the same tokens in the same order; where arms have other parts, their initial weights differ.",
        "## Arms",
        "FLOPs are those of training, attention in full.",
        markdown_table(arm_rows(study)),
        "## Validation loss",
        "Nats per token after the last iteration.",
        markdown_table(_loss_rows(study, losses)),
        "## Paired differences",
        "Validation loss of an arm minus that of a baseline with the same seed, and the 95% interval of their mean "
        "(Student's t); below 0 the arm is better.",
        markdown_table(_difference_rows(study, found)),
        "![Paired differences with their intervals](differences.svg)",
        "![Loss curves](losses.svg)",
        "Training loss, smoothed (lines), and validation loss (points): means over the seeds with the 95% interval of "
        "each; pale: the seeds.",
    ]
    if notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def arm_rows(study: Study) -> list[Row]:
    """The budgets of the arms, below a heading; what a dry run shows."""
    first = study.arms[study.baselines[0]]
    rows: list[Row] = [
        ("arm", "parameters", "against " + first.name, "MFLOP/token", "against " + first.name, "matched", "residual")
    ]
    for arm in study.arms.values():
        rows.append(
            (
                arm.name,
                f"{arm.parameters:,}",
                f"{arm.parameters / first.parameters - 1:+.1%}",
                f"{arm.flops_per_token / 1e6:.3f}",
                f"{arm.flops_per_token / first.flops_per_token - 1:+.1%}",
                *_match_cells(arm),
            )
        )
    return rows


def _match_cells(arm: Arm) -> Row:
    """What was varied to have whose budget, and what remains."""
    found = arm.match
    if found is None:
        return "", ""
    words = f"{found.field} {found.value} for {arm.budget} of {arm.of}"
    return words, f"{found.residual:+.3%} ({found.reached - found.wanted:+,.0f})"


def _loss_rows(study: Study, losses: Losses) -> list[Row]:
    rows: list[Row] = [("arm", *(f"seed {seed}" for seed in study.seeds), "mean")]
    for name, own in losses.items():
        cells = (f"{own[seed]:.4f}" if seed in own else "" for seed in study.seeds)
        rows.append((name, *cells, f"{sum(own.values()) / len(own):.4f}" if own else ""))
    return rows


def _difference_rows(study: Study, found: Sequence[Difference]) -> list[Row]:
    rows: list[Row] = [
        ("arm", "minus", *(f"seed {seed}" for seed in study.seeds), "mean", "95% interval", "the arm is")
    ]
    for pair in found:
        cells = (f"{pair.by_seed[seed]:+.4f}" if seed in pair.by_seed else "" for seed in study.seeds)
        known = pair.interval
        ends = ("", "") if known is None else (f"{known.mean:+.4f}", f"{known.low:+.4f} .. {known.high:+.4f}")
        rows.append((pair.arm, pair.baseline, *cells, *ends, pair.verdict))
    return rows


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows, the first of them the heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
