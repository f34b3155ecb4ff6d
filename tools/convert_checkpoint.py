"""python tools/convert_checkpoint.py --to hf --load checkpoints --save exported
python tools/convert_checkpoint.py --from hf --load pythia-160m --save checkpoints

Converts a checkpoint, saved under any layout, to a folder that Hugging Face's transformers loads; or a local folder
with GPT-2 or GPT-NeoX (Pythia) weights to a checkpoint that trains under any layout. Both models must give the
same logits before the result gets its name. One process, no GPU needed. The work is in `contextlm/interop/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizers import KINDS
from contextlm.errors import UserError, told_to_the_user


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint to or from Hugging Face's format, and prove it.", allow_abbrev=False
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument("--to", choices=("hf",), help="from a checkpoint of ours to a Hugging Face folder")
    direction.add_argument("--from", choices=("hf",), dest="origin", help="from a Hugging Face folder to a checkpoint")
    parser.add_argument("--load", required=True, metavar="FOLDER", help="what to convert")
    parser.add_argument("--save", required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument(
        "--max-file-size", type=float, default=1.0, metavar="GB", help="--to hf: of one file of weights [1.0]"
    )
    parser.add_argument("--tokenizer-type", choices=KINDS, help="--from hf: if not the folder's own tokenizer")
    parser.add_argument("--tokenizer-model", metavar="PATH", help="--from hf: its file")
    parser.add_argument("--eod-token", metavar="TEXT", help="--from hf: EOD token, where the tokenizer does not say")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What does not go together."""
    wrong = []
    if not options.max_file_size > 0:
        wrong.append(f"--max-file-size {options.max_file_size}: give gigabytes, more than 0")
    if options.to is not None:
        wrong += [
            f"--{name.replace('_', '-')}: belongs to --from hf; a checkpoint has its tokenizer: leave it out"
            for name in ("tokenizer_type", "tokenizer_model", "eod_token")
            if getattr(options, name) is not None
        ]
    return wrong


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def convert(options: argparse.Namespace) -> str:
    """Convert as asked; what to print in the end."""
    if wrong := problems(options):
        raise UserError(*wrong)
    if options.to is not None:
        from contextlm.interop.export_huggingface import export

        certificate = export(options.load, options.save, round(options.max_file_size * 1e9), say)
        following = f"next: transformers.AutoModelForCausalLM.from_pretrained({options.save!r})"
    else:
        from contextlm.interop.import_huggingface import import_model

        data = DataConfig(
            tokenizer_type=options.tokenizer_type,
            tokenizer_model=options.tokenizer_model,
            eod_token=options.eod_token,
        )
        certificate, config = import_model(options.load, options.save, data, say)
        following = _to_train(options.save, has_head=config.context.enabled)
    return (
        f"wrote {options.save}: logits differ by {certificate['max_abs_difference']:.3g} at most, "
        f"{certificate['relative_difference']:.2g} of the largest\n{following}"
    )


def _to_train(save: str, *, has_head: bool) -> str:
    """How the checkpoint is trained; one without a context head can get one."""
    words = f"next: pretrain_contextlm.py --config {save}/iter_0000000/config.yaml --load {save} --finetune ..."
    if has_head:
        return words
    return f"{words}, or --init-backbone-from in place of --load --finetune, with --context-chunk-size 4"


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Convert and say what was made."""
    print(convert(parser().parse_args(arguments)))


if __name__ == "__main__":
    main()
