"""python tools/preprocess_data.py --input corpus.jsonl --output-prefix data/corpus --append-eod \\
    --workers 2 --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model

Tokenizes text into `data/corpus_text_document.bin/.idx/.json`, which training reads with
`--data-path data/corpus_text_document`. The options are Megatron-LM's, and so are the files, byte for byte.
The work is in `contextlm/data/preprocessing.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contextlm.config.schema import DataConfig
from contextlm.data.preprocessing import PreprocessingOptions, Progress, preprocess, rejects_path
from contextlm.data.progress import ProgressDisplay, describe
from contextlm.data.sources.flags import add_input_flags
from contextlm.data.tokenizers import KINDS
from contextlm.errors import UserError

# Options of Megatron-LM's tool that this one does not have, each with the reason.
REFUSED = {
    "--split-sentences": "sentence-split data is for BERT-style models",
    "--keep-newlines": "it belongs to --split-sentences; newlines are always kept",
    "--partitions": "not supported yet; the input is streamed, so one partition holds any size",
    "--vocab-file": "not supported yet; use --tokenizer-type HuggingFaceTokenizer with a tokenizer.json",
    "--merge-file": "not supported yet; use --tokenizer-type HuggingFaceTokenizer with a tokenizer.json",
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
    parser.add_argument("--tokenizer-type", required=True, choices=KINDS)
    parser.add_argument("--tokenizer-model", metavar="PATH", help=".model, tokenizer.json, or a folder with one")
    parser.add_argument("--eod-token", metavar="TEXT", help="EOD token, where the tokenizer does not say")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize [1]")
    parser.add_argument("--log-interval", type=int, default=1000, help="documents between progress lines [1000]")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="at a bad line: stop, or skip it and list it in PREFIX_rejects.jsonl [raise]",
    )
    return parser


def refuse(arguments: Sequence[str]) -> None:
    """Name each option of Megatron-LM that is not supported here, with the reason."""
    given = [argument.split("=")[0] for argument in arguments]
    problems = [
        f"{flag}: not supported in ContextLM because {reason}" if flag == "--split-sentences" else f"{flag}: {reason}"
        for flag, reason in REFUSED.items()
        if flag in given
    ]
    if problems:
        raise UserError(*problems)


def summary(options: PreprocessingOptions, progress: Progress) -> str:
    """What was written, and the next command."""
    lines = [f"{describe(progress)}, {progress.seconds:.1f} s"]
    lines += [f"wrote {options.prefix(key)}.bin, .idx, .json" for key in options.json_keys]
    if progress.rejected:
        lines.append(f"left out {progress.rejected:,} lines, listed in {rejects_path(options)}")
    flags = f"--tokenizer-type {options.data.tokenizer_type}"
    if options.data.tokenizer_model:
        flags += f" --tokenizer-model {options.data.tokenizer_model}"
    if options.data.eod_token:
        flags += f" --eod-token '{options.data.eod_token}'"
    lines.append(
        f"next: torchrun --nproc-per-node 1 pretrain_contextlm.py --model contextlm-gpt2-tiny "
        f"--data-path {options.prefix(options.json_keys[0])} {flags} --train-iters 100"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status."""
    try:
        refuse(arguments)
        given = parser().parse_args(arguments)
        options = PreprocessingOptions(
            inputs=tuple(given.input),
            output_prefix=given.output_prefix,
            data=DataConfig(
                tokenizer_type=given.tokenizer_type,
                tokenizer_model=given.tokenizer_model,
                eod_token=given.eod_token,
            ),
            json_keys=tuple(given.json_keys),
            append_eod=given.append_eod,
            txt_documents=given.txt_documents,
            workers=given.workers,
            on_error=given.on_error,
        )
        with ProgressDisplay(given.log_interval, sys.stderr) as display:
            progress = preprocess(options, display.update)
    except (UserError, OSError) as error:
        for problem in getattr(error, "problems", (str(error),)):
            print(f"error: {problem}", file=sys.stderr)
        return 1
    print(summary(options, progress))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
