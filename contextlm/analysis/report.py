"""One self-contained page about some runs, from results to the commands that made them.

The page loads nothing from anywhere and runs nothing, so it can be sent and archived. Read next: `run_record.py`
(what is read), `seed_groups.py` (what belongs together), `curves.py`, `report_tables.py`, `report_style.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from contextlm.analysis import curves
from contextlm.analysis import report_tables as tables
from contextlm.analysis.page_parts import bullets, code, escaped, figure, folded, paragraph, section
from contextlm.analysis.report_style import STYLE
from contextlm.analysis.rerun import rerun_commands
from contextlm.analysis.run_record import RunRecord
from contextlm.analysis.seed_groups import SeedGroup, seed_groups

HONESTY = (
    "ContextLM here is a reconstruction of a published method, not its authors' code. One seed of a tiny "
    "model proves nothing about which model is better: read such a page as evidence that the system trains, "
    "resumes and measures."
)
LOSS_CAPTION = (
    "Lines: training loss, smoothed (pale: each iteration). Points: validation loss. Dashed: continued with other "
    "options. At the foot: triangles where a run was continued, crosses where an iteration was skipped."
)
SEEDS_CAPTION = (
    " Of several seeds: each one pale, their mean bold, as far as all of them have come. Bars, and from three seeds on "
    "bands: the 95% interval of the mean over seeds (Student's t, at each iteration by itself)."
)
# Inline styles and nothing else: no scripts, no pictures or fonts from anywhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def build_report(runs: Sequence[RunRecord], title: str, commands: str = "") -> str:
    """The page as HTML text.

    Args:
        runs: in the order of table and legend; the configuration of the others is compared to the first's.
        title: heading of the page.
        commands: shell commands around the runs, shown as they are.
    """
    groups = seed_groups(runs)
    sections = [
        section("results", "Results", tables.results(runs) + tables.seeds(groups)),
        section("loss", "Loss", _loss(groups)),
        section("events", "Events", f"<div class='events'>{found}</div>" if (found := tables.events(runs)) else ""),
        section("context", "What the context does", _context(groups)),
        section("evaluation", "Evaluation", tables.scores(runs)),
        section("samples", "Samples", _samples(runs)),
        section("throughput", "Throughput", _throughput(groups)),
        section("gradients", "Gradient norm", _gradients(groups)),
        section("changes", "Continued with other options", tables.changes(runs)),
        section("differences", "Differences in configuration", tables.config_differences(runs)),
        section("configuration", "Configuration", tables.configuration(runs)),
        section("data", "Data and versions", tables.data(runs) + tables.versions(runs)),
        section("commands", "Commands", _commands(runs, commands)),
        section("missing", "Not found", _missing(runs)),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escaped(title)}</h1>\n<p class='honesty'>{escaped(HONESTY)}</p>\n"
        + "\n".join(filter(None, sections))
        + "\n</main></body></html>\n"
    )


def _loss(groups: Sequence[SeedGroup]) -> str:
    """Two pictures of which one is seen at a time: a choice that needs no script."""
    caption = LOSS_CAPTION + (SEEDS_CAPTION if any(len(group.runs) > 1 for group in groups) else "")
    cut = " The steep beginning is cut off; the logarithmic scale shows all iterations."
    return (
        "<div class='choice'><input type='radio' name='scale' id='linear' checked><label for='linear'>linear</label>"
        "<input type='radio' name='scale' id='logarithmic'><label for='logarithmic'>logarithmic</label>"
        f"<div class='if-linear'>{figure(curves.loss_plot(groups), caption + cut)}</div>"
        f"<div class='if-logarithmic'>{figure(curves.loss_plot(groups, log_x=True), caption)}</div></div>"
    )


def _gradients(groups: Sequence[SeedGroup]) -> str:
    caption = "Global norm before clipping. Crosses at the foot: iterations that updated nothing."
    return figure(curves.gradient_norm_plot(groups), caption)


def _throughput(groups: Sequence[SeedGroup]) -> str:
    """Tokens per second, and the share of the peak where that is known."""
    speed = curves.column_plot(groups, "tokens_per_second", "Throughput by iteration", "tokens/s")
    share = curves.column_plot(groups, "mfu", "MFU by iteration", "MFU (%)", scale=100.0)
    parts = [figure(speed, "Tokens per second of the whole job.") if speed else ""]
    if share:
        parts.append(figure(share, "Share of the devices' peak (dense bf16), FLOPs counted by formula."))
    elif speed:
        parts.append(paragraph("MFU is unknown: the peak of this device is not on record; --peak-tflops gives it."))
    return "".join(parts)


def _context(groups: Sequence[SeedGroup]) -> str:
    """What only a model with a context head tells."""
    worth, gate = curves.worth_plot(groups), curves.column_plot(groups, "gate", "Gate by iteration", "gate", floor=None)
    position = curves.position_plot(groups)
    captions = {
        worth: "Validation loss with zero in place of every prediction, minus the validation loss. More than the head "
        "brings, for both were trained together: only a matched plain model says that.",
        position: "The last validation loss by the place of a token in its chunk.",
        gate: "The gate at log lines; of a gate with many channels their mean absolute value.",
    }
    return "".join(figure(picture, caption) for picture, caption in captions.items() if picture)


def _samples(runs: Sequence[RunRecord]) -> str:
    parts = []
    for run in runs:
        for prompt, text in run.samples:
            caption = run.name if prompt else f"{run.name}, given nothing"
            body = f"<b>{escaped(prompt)}</b>{escaped(text.removeprefix(prompt))}"
            parts.append(
                f"<figure><figcaption>{escaped(caption)}</figcaption><pre class='sample'>{body}</pre></figure>"
            )
    return "".join(parts)


def _commands(runs: Sequence[RunRecord], commands: str) -> str:
    """What each run was started with, and what the user says about it."""
    recorded = {run.name: rerun_commands(run) for run in runs}
    parts = [folded(name, code(text), is_open=len(runs) < 4) for name, text in recorded.items() if text]
    first = paragraph("Each run again, from its beginning:") if parts else ""
    return first + "".join(parts) + (folded("All commands", code(commands)) if commands.strip() else "")


def _missing(runs: Sequence[RunRecord]) -> str:
    """What was not there, once for all runs that lack it."""
    notes = dict.fromkeys(note for run in runs for note in run.notes)
    return bullets(f"{', '.join(run.name for run in runs if note in run.notes)}: {note}" for note in notes)
