"""python tools/evaluate.py --load checkpoints --data-path data/my_text_document --split 90,10,0

Scores a checkpoint, saved under any layout, or a Hugging Face folder: on one split of a dataset, as the training's
samples or document by document; on texts; on the last words of passages; on lm_eval's tasks. `--diagnose` and
`--context-control` ask what the context is worth. One process, CPU or GPU; docs/evaluation.md explains each.
The work is in `contextlm/inference/`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from contextlm import atomic_files
from contextlm.analysis.score_rows import number, score_rows
from contextlm.config.fields import all_fields
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files

if TYPE_CHECKING:
    from contextlm.data.samples import Samples
    from contextlm.inference.subject import Subject

Report = Callable[[int, int], None]
SPLITS = ("train", "validation", "test")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Score a checkpoint.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--load",
        required=True,
        metavar="FOLDER",
        help="what --save made, an iter_ folder, or a Hugging Face folder",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--data-path", nargs="+", metavar="PREFIX", help="dataset prefixes, weighted or not [those of the training]"
    )
    what.add_argument("--text", nargs="+", metavar="FILE", help="texts: .jsonl with a `text` a line, or plain files")
    what.add_argument(
        "--last-word", metavar="FILE", help="passages, .jsonl or one a line, of which to guess the last word"
    )
    what.add_argument("--tasks", metavar="NAME,NAME", help="tasks of lm_eval")
    parser.add_argument("--split", help="shares of training, validation, test [those of the training]")
    parser.add_argument("--use-split", choices=SPLITS, default="validation", help="which of them [validation]")
    parser.add_argument(
        "--document-wise", action="store_true", help="score each document of a dataset by itself, as --text always does"
    )
    parser.add_argument("--window", type=int, help="tokens that are read at once [all that the model can]")
    parser.add_argument(
        "--stride", type=int, help="slide the window so far at a time, document by document [the whole window]"
    )
    parser.add_argument("--diagnose", action="store_true", help="every control, loss by position, cosines, ranks")
    parser.add_argument("--batch-size", type=int, default=8, help="samples per forward pass [8]")
    parser.add_argument("--max-samples", type=int, help="stop after so many samples, or documents of a task [all]")
    parser.add_argument("--num-fewshot", type=int, help="examples before each question [the task's own number]")
    parser.add_argument("--include-path", metavar="FOLDER", help="a folder with more tasks")
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
    swaps = options.context_control == "shuffle" or options.diagnose
    least, reason = (2, ": shuffle swaps sequences within a batch") if swaps else (1, "")
    checks = {
        f"--batch-size {options.batch_size}: give {least} or more{reason}": options.batch_size >= least,
        f"--max-samples {options.max_samples}: give {least} or more, or leave it out{reason}": (
            options.max_samples is None or options.max_samples >= least
        ),
        f"--window {options.window}: give 1 or more": options.window is None or options.window >= 1,
        f"--stride {options.stride}: give 1 or more": options.stride is None or options.stride >= 1,
        "--diagnose: with a dataset or --text; leave out --tasks and --last-word": not (
            options.diagnose and (options.tasks or options.last_word)
        ),
        "--diagnose: tries every --context-control; leave that out": not (
            options.diagnose and options.context_control != "none"
        ),
        "--diagnose: reads samples; leave out --stride and --document-wise": not (
            options.diagnose and (options.stride or options.document_wise)
        ),
        f"--context-control shuffle: texts of one batch have not the same length; use --diagnose, or {_OTHERS}": not (
            options.context_control == "shuffle" and _is_by_document(options)
        ),
    }
    wrong = [problem for problem, fine in checks.items() if not fine]
    return wrong + result_files.problems("--output", options.output)


_OTHERS = "zero, random or previous"


def _is_by_document(options: argparse.Namespace) -> bool:
    return bool(options.text or options.last_word or options.tasks or options.stride or options.document_wise)


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Score as asked; the result holds the measures and what they were taken on."""
    if wrong := problems(options):
        raise UserError(*wrong)
    if options.tasks:
        from contextlm.inference.tasks import run_tasks

        return run_tasks(
            options.load,
            options.tasks.split(","),
            batch_size=options.batch_size,
            limit=options.max_samples,
            num_fewshot=options.num_fewshot,
            include_path=options.include_path,
            max_length=options.window,
            context_control=options.context_control,
        )
    from contextlm.inference.open_subject import subject
    from contextlm.inference.predictions import controlled

    with subject(options.load) as examined, _bar() as report:
        if options.window is not None and options.window > examined.num_positions:
            raise UserError(f"--window {options.window}: the model reads {examined.num_positions} tokens at most")
        with controlled(examined, options.context_control):
            result = measure(examined, options, report)
        return {**result, "context_control": options.context_control, **examined.identity()}


def measure(examined: Subject, options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """The measures that the options ask for, on the data that they name."""
    from contextlm.inference import text_scoring as texts
    from contextlm.inference.diagnostics import diagnose
    from contextlm.inference.evaluation_data import (
        PackedDocuments,
        chosen_split,
        documents_of,
        last_word_texts,
        samples_of,
    )
    from contextlm.inference.scoring import score

    batch_size, window = options.batch_size, options.window or examined.num_positions
    if options.last_word:
        passages = last_word_texts(options.last_word, list(texts.read_texts([options.last_word])))[
            : options.max_samples
        ]
        found = texts.score_last_words(examined, passages, batch_size=batch_size, progress=report)
        return {**found, "last_word": options.last_word}
    if options.text:
        origin: dict[str, Any] = {"text": options.text}
        documents = texts.documents_of_texts(examined, options.text)
        samples: Samples | None = (
            PackedDocuments(documents, examined.tokenizer.eod, window) if options.diagnose else None
        )
    else:
        split = chosen_split(examined, options.data_path, options.split, options.use_split)
        origin = {"split": options.use_split, "data_path": list(split.origin.words)}
        by_document = options.stride or options.document_wise
        documents = documents_of(examined, split) if by_document else []
        samples = None
        if not by_document:
            samples, origin["data_fingerprint"] = samples_of(examined, split)
    if samples is None:
        stride = min(options.stride or window, window)
        documents = documents[: options.max_samples]
        found = texts.score_documents(
            examined, documents, length=window, stride=stride, batch_size=batch_size, progress=report
        )
        return {**found, **origin, "window": window, "stride": stride}
    how: dict[str, Any] = {"batch_size": batch_size, "max_samples": options.max_samples}
    if options.diagnose:
        return {**diagnose(examined, samples, **how, progress=lambda _, *place: report(*place)), **origin}
    return {**score(examined, samples, **how, progress=report), **origin}


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    """A progress bar on a terminal."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("scoring")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(result: dict[str, Any]) -> Table:
    """The result for the eye."""
    shown = Table()
    shown.add_column("measure")
    shown.add_column("value", justify="right")
    shown.add_column("standard error", justify="right")
    for name, value, error in score_rows(result):
        shown.add_row(name, "unknown" if value is None else number(value), "" if error is None else number(error))
    return shown


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print a table, write the JSON."""
    options = parser().parse_args(arguments)
    result = evaluate(options)
    of = f", {result['split']} split" if "split" in result else ""
    print(f"{result['checkpoint']}{of}")  # a table's title would be broken to its width
    Console().print(table(result))
    if options.output:
        result_files.write("--output", options.output, atomic_files.json_bytes(result))


if __name__ == "__main__":
    main()
