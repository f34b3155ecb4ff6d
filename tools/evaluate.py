"""python tools/evaluate.py --load checkpoints --data-path data/my_text_document --split 90,10,0

Scores a checkpoint, saved under any layout, on one split of a dataset: loss, perplexity, bits per byte. Every token
of one pass counts once. `--context-control zero` asks whether the context helps. One process, CPU or GPU.
The work is in `contextlm/inference/scoring.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from contextlm import atomic_files
from contextlm.config.fields import all_fields
from contextlm.config.split_data import split_data
from contextlm.errors import UserError, told_to_the_user

SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Score a checkpoint.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--load", required=True, metavar="FOLDER", help="what --save made, or one iter_ folder of it")
    parser.add_argument(
        "--data-path", nargs="+", metavar="PREFIX", help="dataset prefixes, weighted or not [those of the training]"
    )
    parser.add_argument("--split", help="shares of training, validation, test [those of the training]")
    parser.add_argument("--use-split", choices=SPLITS, default="validation", help="which of them [validation]")
    parser.add_argument("--batch-size", type=int, default=8, help="samples per forward pass [8]")
    parser.add_argument("--max-samples", type=int, help="stop after so many samples [one whole pass]")
    parser.add_argument(
        "--context-control",
        choices=all_fields()["context_control"].choices,
        default="none",
        help="what the tokens receive in place of the prediction [none: the prediction]",
    )
    parser.add_argument("--output", metavar="FILE", help="also write the result as JSON")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What cannot be scored with."""
    least = 2 if options.context_control == "shuffle" else 1
    reason = ": shuffle swaps sequences within a batch" if least == 2 else ""
    checks = {
        f"--batch-size {options.batch_size}: give {least} or more{reason}": options.batch_size >= least,
        f"--max-samples {options.max_samples}: give {least} or more, or leave it out{reason}": (
            options.max_samples is None or options.max_samples >= least
        ),
    }
    return [problem for problem, fine in checks.items() if not fine]


def evaluate(options: argparse.Namespace) -> dict[str, object]:
    """Score as asked; the result holds the measures and what they were taken on."""
    if wrong := problems(options):
        raise UserError(*wrong)
    from contextlm.data.datasets import build_datasets
    from contextlm.inference.opened import opened
    from contextlm.inference.scoring import score

    with opened(options.load, options.context_control) as model:
        given = {"data_path": options.data_path and tuple(options.data_path), "split": options.split}
        if any(given.values()):  # in place of what the training had for each split
            given |= {"train_data_path": (), "valid_data_path": (), "test_data_path": ()}
        data = dataclasses.replace(
            model.config.data, **{key: value for key, value in given.items() if value is not None}
        )
        # One split is read here; that others hold enough was asked for by the training.
        training = dataclasses.replace(model.config.training, skip_train=True, full_validation=False, eval_iters=0)
        datasets = build_datasets(dataclasses.replace(model.config, data=data, training=training), model.tokenizer)
        name = SPLITS[options.use_split]
        samples = datasets.train if name == "training" else getattr(datasets, name)
        if samples is None:
            origin = "no data of its own" if data.per_split else f"--split {data.document_split} leaves it empty"
            raise UserError(f"--use-split {options.use_split}: {origin}", *datasets.notes)
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("scoring")
            measures = score(
                model,
                samples,
                batch_size=options.batch_size,
                max_samples=options.max_samples,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        return {
            **measures,
            "split": options.use_split,
            "context_control": options.context_control,
            "checkpoint": str(model.folder),
            "iteration": model.facts["iteration"],
            "model": model.config.preset,
            "data_path": list(split_data(data)[name].words),
            "data_fingerprint": datasets.fingerprint,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print a table, write the JSON."""
    options = parser().parse_args(arguments)
    with told_to_the_user():
        result = evaluate(options)
    table = Table(title=f"{result['checkpoint']}, {result['split']} split", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name in ("lm_loss", "perplexity", "bits_per_byte", "unigram_entropy", "tokens"):
        value = result[name]
        table.add_row(
            name, "unknown" if value is None else f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
        )
    Console().print(table)
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(options.output, result)


if __name__ == "__main__":
    main()
