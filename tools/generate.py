"""python tools/generate.py --load checkpoints --prompt "The function returns" --max-new-tokens 60

Continues a text with a checkpoint, saved under any layout, or with a Hugging Face folder, and prints it as it is
sampled. Without a prompt it asks for one after the other. One process, CPU or GPU.
The work is in `contextlm/inference/sampling.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contextlm import atomic_files
from contextlm.errors import UserError, told_to_the_user
from contextlm.preflight import result_files

if TYPE_CHECKING:
    from contextlm.inference.subject import Subject


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Continue a text.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--load",
        required=True,
        metavar="FOLDER",
        help="what --save made, an iter_ folder, or a Hugging Face folder",
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--prompt", help="the text to continue [ask for texts, one a line, until the end of the input]")
    origin.add_argument("--prompt-file", metavar="FILE", help="a file with the text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=100, help="how many tokens at most [100]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token [0.8]")
    parser.add_argument("--top-k", type=int, help="sample among so many likeliest tokens [all]")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample among those with this probability [1.0]")
    parser.add_argument("--seed", type=int, default=1234, help="of the draws [1234]")
    parser.add_argument("--output", metavar="FILE", help="also write prompt and text as JSON (a list, where it asked)")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What cannot be sampled with."""
    checks = {
        f"--max-new-tokens {options.max_new_tokens}: give 1 or more": options.max_new_tokens >= 1,
        f"--temperature {options.temperature}: give 0 or more": options.temperature >= 0,
        f"--top-k {options.top_k}: give 1 or more, or leave it out": options.top_k is None or options.top_k >= 1,
        f"--top-p {options.top_p}: give a probability above 0, at most 1": 0 < options.top_p <= 1,
    }
    wrong = [problem for problem, fine in checks.items() if not fine]
    return wrong + result_files.problems("--output", options.output)


def prompts(options: argparse.Namespace) -> Iterator[str]:
    """The text that was given, or what is typed."""
    if options.prompt is not None:
        yield options.prompt
    elif options.prompt_file is not None:
        try:
            yield Path(options.prompt_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompt-file {options.prompt_file}: cannot be read ({error}); give UTF-8 text") from None
    else:
        while True:
            print("prompt> " if sys.stdin.isatty() else "", end="", file=sys.stderr, flush=True)
            if not (line := sys.stdin.readline()):
                return
            if line.strip():
                yield line.rstrip("\n")


def generate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Sample as asked, printing as it goes."""
    if wrong := problems(options):
        raise UserError(*wrong)
    from contextlm.inference.huggingface_subject import twin
    from contextlm.inference.open_subject import subject

    with subject(options.load) as examined:
        ends = examined.document_ends
        # If they matter to layers only the trainer's model knows them.
        if examined.trainer is not None and ends is not None and not ends.matter_to_layers:
            examined = twin(examined.trainer)
        return [continued(examined, prompt, options) for prompt in prompts(options)]


def continued(examined: Subject, prompt: str, options: argparse.Namespace) -> dict[str, Any]:
    """Continue one text, printing as it goes."""
    from contextlm.inference.sampling import continuation

    tokenizer = examined.tokenizer
    given, tokens = tokenizer.encode(prompt), []
    shown = begin = len(tokenizer.decode(given))
    print(prompt, end="", flush=True)
    start = time.perf_counter()
    first = None
    for token in continuation(
        examined,
        given,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    ):
        first = first or time.perf_counter()
        tokens.append(token)
        # A character may span tokens: what ends in its beginning waits for the rest.
        text = tokenizer.decode(given + tokens)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            print(text[shown:], end="", flush=True)
            shown = len(text)
    end = time.perf_counter()
    text = tokenizer.decode(given + tokens)
    print(text[shown:], flush=True)
    speed = f", then {(len(tokens) - 1) / (end - first):.1f} tokens/s" if first and len(tokens) > 1 else ""
    waited = (first or end) - start
    print(f"{len(tokens)} tokens, the first after {waited:.2f} s{speed}", file=sys.stderr)
    return {
        "prompt": prompt,
        "text": text[begin:],
        "checkpoint": str(examined.folder),
        **{name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")},
    }


@told_to_the_user()
def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, print, write the JSON."""
    options = parser().parse_args(arguments)
    results = generate(options)
    if options.output:
        asked = options.prompt is None and options.prompt_file is None
        content = atomic_files.json_bytes(results if asked else results[0])
        result_files.write("--output", options.output, content)


if __name__ == "__main__":
    main()
