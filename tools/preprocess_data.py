"""python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --append-eod \\
    --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model

Tokenizes text into `data/corpus_text_document.bin/.idx/.json`, which training reads with
`--data-path data/corpus_text_document`. The options are Megatron-LM's, and so are the files, byte for byte.
The work is in `contextlm/data/preprocessing.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

# NumPy's threads would multiply no matrix here, and only keep workers from being copies of this process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from contextlm.data.preprocessing import PreprocessingOptions, Progress, preprocess, rejects_path
from contextlm.data.progress import ProgressDisplay, describe
from contextlm.data.sharded_preprocessing import preprocess_partitions, preprocess_shard
from contextlm.data.sources.flags import add_input_flags
from contextlm.data.tokenizer_flags import add_tokenizer_flags, tokenizer_config, tokenizer_words
from contextlm.errors import UserError, until_the_reader_leaves

# Options of Megatron-LM's tool that this one does not have, each with the reason.
REFUSED = {
    "--split-sentences": "data split into sentences is for BERT-style models; a document whose text is a list keeps it",
    "--lang": "it belongs to --split-sentences",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tokenize text for training.", allow_abbrev=False)
    add_input_flags(parser)
    parser.add_argument(
        *("--json-keys", "--text-column"), nargs="+", default=["text"], metavar="KEY", help="keys to tokenize [text]"
    )
    parser.add_argument("--output-prefix", required=True, metavar="PREFIX", help="writes PREFIX_KEY_document.bin/.idx")
    parser.add_argument("--append-eod", action="store_true", help="end every document with the EOD token")
    add_tokenizer_flags(parser, required=True)
    parser.add_argument("--workers", type=int, metavar="N", help="cores to use [all]")
    parser.add_argument("--partitions", type=int, metavar="N", help="work in N pieces; a run that was stopped goes on")
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="who makes them [local]")
    parser.add_argument("--num-shards", type=int, metavar="N", help="make one of N shards, for tools/merge_datasets.py")
    parser.add_argument("--shard", type=int, metavar="I", help="which one, from 0; $SLURM_ARRAY_TASK_ID in a job array")
    parser.add_argument("--log-interval", type=int, default=1000, help="documents between progress lines [1000]")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at a bad line: stop, or skip it and list it in PREFIX_rejects.jsonl [raise]",
    )
    for flag in ("--keep-newlines", "--keep-sequential-samples"):
        parser.add_argument(flag, action="store_true", help="not needed: newlines and the order are always kept")
    return parser


def refuse(arguments: Sequence[str]) -> None:
    """Name each option of Megatron-LM that is not supported here, with the reason."""
    given = [argument.split("=")[0] for argument in arguments]
    problems = [
        f"{flag}: not supported in ContextLM because {reason}" for flag, reason in REFUSED.items() if flag in given
    ]
    if problems:
        raise UserError(*problems)


def summary(given: argparse.Namespace, options: PreprocessingOptions, progress: Progress) -> str:
    """What was written, and the next command."""
    lines = [f"{describe(progress)}, {progress.seconds:.1f} s" if progress.seconds else describe(progress)]
    lines += [f"wrote {options.prefix(key)}.bin, .idx, .json" for key in options.json_keys]
    if progress.rejected:
        lines.append(f"left out {progress.rejected:,} lines, listed in {rejects_path(options)}")
    if given.num_shards is not None:
        for key in options.json_keys:
            shards = f"{given.output_prefix}-*-of-{given.num_shards:05d}_{key}_document"
            lines.append(
                f"next, when all shards are there: python tools/merge_datasets.py --input '{shards}' "
                f"--output-prefix {given.output_prefix}_{key}_document"
            )
        return "\n".join(lines)
    flags = " ".join(tokenizer_words(given))
    lines.append(
        f"next: torchrun --nproc-per-node 1 pretrain_contextlm.py --model contextlm-gpt2-tiny "
        f"--data-path {options.prefix(options.json_keys[0])} {flags} --train-iters 100"
    )
    return "\n".join(lines)


def work(
    given: argparse.Namespace, options: PreprocessingOptions, report: Callable[[Progress], None]
) -> tuple[PreprocessingOptions, Progress]:
    """Write the datasets; returns the options that name them."""
    check_pieces(given)
    if given.num_shards is not None:
        return preprocess_shard(options, given.num_shards, given.shard, report, say)
    if given.partitions is not None:
        from contextlm.data.ray_executor import on_ray

        executor = on_ray if given.executor == "ray" else None
        return options, preprocess_partitions(options, given.partitions, report, say, executor)
    return options, preprocess(options, report, say)


def check_pieces(given: argparse.Namespace) -> None:
    """Raise every mistake in how the work is to be divided."""
    problems = []
    if (given.num_shards is None) != (given.shard is None):
        problems.append("--num-shards, --shard: give both, or neither")
    if given.num_shards is not None and given.partitions is not None:
        problems.append("--partitions: a shard is one piece already; leave it out, or --num-shards and --shard")
    if given.executor == "ray" and given.partitions is None:
        problems.append("--executor ray: give --partitions N too, the number of tasks")
    if problems:
        raise UserError(*problems)


def say(sentence: str) -> None:
    """What is worth knowing while it happens."""
    print(sentence, file=sys.stderr, flush=True)


@until_the_reader_leaves()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    try:
        refuse(arguments)
        given = parser().parse_args(arguments)
        options = PreprocessingOptions(
            inputs=tuple(given.input),
            output_prefix=given.output_prefix,
            data=tokenizer_config(given),
            vocab_size=given.vocab_size,
            json_keys=tuple(given.json_keys),
            append_eod=given.append_eod,
            txt_documents=given.txt_documents,
            workers=1 if given.workers is None and given.executor == "ray" else given.workers,
            on_error=given.on_error,
        )
        with ProgressDisplay(given.log_interval, sys.stderr) as display:
            options, progress = work(given, options, display.update)
    except (UserError, OSError) as error:
        for problem in getattr(error, "problems", (str(error),)):
            print(f"error: {problem}", file=sys.stderr)
        return 1
    print(summary(given, options, progress))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
