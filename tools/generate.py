"""python tools/generate.py --load checkpoints --prompt "The function returns" --max-new-tokens 60

Continues a text with a checkpoint, saved under any layout, and prints it as it is sampled. One process, CPU or GPU.
The work is in `contextlm/inference/sampling.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from contextlm import atomic_files
from contextlm.errors import UserError, told_to_the_user


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Continue a text.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--load", required=True, metavar="FOLDER", help="what --save made, or one iter_ folder of it")
    parser.add_argument("--prompt", required=True, help="the text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=100, help="how many tokens at most [100]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token [0.8]")
    parser.add_argument("--top-k", type=int, help="sample among so many likeliest tokens [all]")
    parser.add_argument("--top-p", type=float, default=1.0, help="sample among those with this probability [1.0]")
    parser.add_argument("--seed", type=int, default=1234, help="of the draws [1234]")
    parser.add_argument("--output", metavar="FILE", help="also write prompt and text as JSON")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What cannot be sampled with."""
    checks = {
        f"--max-new-tokens {options.max_new_tokens}: give 1 or more": options.max_new_tokens >= 1,
        f"--temperature {options.temperature}: give 0 or more": options.temperature >= 0,
        f"--top-k {options.top_k}: give 1 or more, or leave it out": options.top_k is None or options.top_k >= 1,
        f"--top-p {options.top_p}: give a probability above 0, at most 1": 0 < options.top_p <= 1,
    }
    return [problem for problem, fine in checks.items() if not fine]


def generate(options: argparse.Namespace) -> dict[str, object]:
    """Sample as asked, printing as it goes."""
    from contextlm.inference.opened import opened
    from contextlm.inference.sampling import continuation

    if wrong := problems(options):
        raise UserError(*wrong)
    with opened(options.load) as model:
        prompt = model.tokenizer.encode(options.prompt)
        tokens: list[int] = []
        shown = len(model.tokenizer.decode(prompt))
        print(options.prompt, end="", flush=True)
        start = time.perf_counter()
        for token in continuation(
            model,
            prompt,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
        ):
            tokens.append(token)
            # A character may span tokens: what ends in its beginning waits for the rest.
            text = model.tokenizer.decode(prompt + tokens)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                print(text[shown:], end="", flush=True)
                shown = len(text)
        rate = len(tokens) / (time.perf_counter() - start)
        text = model.tokenizer.decode(prompt + tokens)
        print(text[shown:], flush=True)
        print(f"{len(tokens)} tokens, {rate:.1f} tokens/s", file=sys.stderr)
        return {
            "prompt": options.prompt,
            "text": text[len(model.tokenizer.decode(prompt)) :],
            "checkpoint": str(model.folder),
            "temperature": options.temperature,
            "seed": options.seed,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, print, write the JSON."""
    options = parser().parse_args(arguments)
    with told_to_the_user():
        result = generate(options)
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_json(options.output, result)


if __name__ == "__main__":
    main()
