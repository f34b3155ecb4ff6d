"""python tools/plan.py --model contextlm-gpt2-1.5b --bf16 --global-batch-size 512 --gpus 64 --gpu-memory 80 --fit

Says before anything is paid what a run needs: parameters, FLOPs, memory of each rank, balance of the pipeline; with
`--tokens` time and price; with `--fit` which layouts fit; with `--largest-micro-batch` how many samples a GPU takes;
with `--match` the plain model of equal size or cost. All options of training may follow. From formulas alone: no torch,
no GPU. Read next: `contextlm/analysis/plan_blocks.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from contextlm.analysis.device_peaks import PEAK_TFLOPS, peak_tflops
from contextlm.analysis.dry_run import costs
from contextlm.analysis.fitting import fits, naive, usable, with_whole_micro_batches
from contextlm.analysis.largest_micro_batch import largest
from contextlm.analysis.matching import BUDGETS, SIZES, match
from contextlm.analysis.memory import fullest
from contextlm.analysis.plan_answers import cost_block, fit_block, largest_block, match_block, naive_block, verdict
from contextlm.analysis.plan_record import cost_record, fit_record, largest_record, match_record, plan_record
from contextlm.analysis.run_cost import run_cost, tokens_of_run
from contextlm.analysis.step_time import Machine
from contextlm.config import Config, parse, validate
from contextlm.config.presets import preset_names
from contextlm.config.schema import ContextConfig
from contextlm.data.given_vocabulary import given_vocab_size
from contextlm.errors import UserError, tell_warnings, told_to_the_user

_GIB = 2**30
_PRESETS = [name for name in preset_names() if not name.endswith("-tiny")]


def planning_options() -> argparse.ArgumentParser:
    """The options of the plan itself; the others are those of training."""
    parser = argparse.ArgumentParser(
        description="What a run needs, before it is paid for.",
        epilog="All options of pretrain_contextlm.py may be given too: the model, the batch, the layout.",
        allow_abbrev=False,
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs [the fewest that the layout needs]")
    parser.add_argument(
        "--gpu", default="NVIDIA H100", help="for their peak, if --peak-tflops is not given [NVIDIA H100]"
    )
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="memory of one, of which 90%% can be used")
    parser.add_argument("--mfu", type=float, default=40, metavar="PERCENT", help="that one GPU reaches by itself [40]")
    parser.add_argument("--price-per-gpu-hour", type=float, metavar="PRICE", help="in any currency")
    parser.add_argument("--tokens", type=float, metavar="N", help="of the run [what --train-iters or -samples say]")
    parser.add_argument("--fit", action="store_true", help="propose layouts, micro-batch sizes and recomputation")
    parser.add_argument(
        "--largest-micro-batch", action="store_true", help="that fits --gpu-memory; without --model, of every preset"
    )
    parser.add_argument("--match", choices=sorted(BUDGETS), help="propose a plain model of equal parameters or FLOPs")
    parser.add_argument("--by", choices=list(SIZES), default="depth", help="what --match varies [depth]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


@told_to_the_user()
def main(arguments: Sequence[str]) -> int:
    """Run the program; the exit status: 1 if no layout fits."""
    given, words = planning_options().parse_known_args(arguments)
    if given.largest_micro_batch:
        text, record, found = _largest(given, words)
    else:
        config, world_size, machine = _read(given, words)
        assert config.model.vocab_size is not None
        answer = _matched if given.match else _fitted if given.fit else _described
        text, record, found = answer(given, config, config.model.vocab_size, world_size, machine)
    print(json.dumps(record, indent=2) if given.json else text)
    return 0 if found else 1


def _read(given: argparse.Namespace, words: Sequence[str]) -> tuple[Config, int, Machine]:
    """The configuration, the number of GPUs and what they do, or all that is wrong with what was given.

    words: the options of training.
    """
    problems = _wrong_numbers(given)
    asked = [f"--{name.replace('_', '-')}" for name in ("fit", "match", "largest_micro_batch") if getattr(given, name)]
    if len(asked) > 1:
        problems.append(f"{' and '.join(asked)}: ask one question at a time")
    if _gives(words, "--world-size"):
        raise UserError(*problems, "--world-size: is --gpus here; give that")
    # A layout is what --fit looks for: the one that is given need not suit the GPUs.
    count = ["--world-size", str(given.gpus)] if given.gpus is not None and given.gpus > 0 and not given.fit else []
    try:
        invocation = parse(["--dry-run", *words, *count], {})
        config = _with_vocabulary(invocation.config)
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    tell_warnings(invocation.warnings)
    peak = config.logging.peak_tflops or peak_tflops(given.gpu)
    if peak is None:
        problems.append(f"--gpu {given.gpu}: not known; give --peak-tflops, or one of {', '.join(PEAK_TFLOPS)}")
    problems += _missing(given, config)
    if problems:
        raise UserError(*problems)
    world_size = given.gpus or config.parallel.model_parallel_size
    return config, world_size, Machine(peak or 0.0, given.mfu / 100)


def _with_vocabulary(config: Config) -> Config:
    """With the size of the tokenizer's, where one is given: that is what training takes."""
    size = given_vocab_size(config)
    if size is None:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))


def _preset(name: str, words: Sequence[str]) -> Config:
    return _with_vocabulary(parse(["--dry-run", "--model", name, *words], {}).config)


def _gives(words: Sequence[str], flag: str) -> bool:
    return any(word.split("=")[0] == flag for word in words)


def _wrong_numbers(given: argparse.Namespace) -> list[str]:
    numbers = {name: getattr(given, name) for name in ("gpus", "gpu_memory", "mfu", "price_per_gpu_hour", "tokens")}
    problems = [
        f"--{name.replace('_', '-')} {value:g}: give a number above 0"
        for name, value in numbers.items()
        if value is not None and not 0 < value < math.inf
    ]
    return problems + ([f"--mfu {given.mfu:g}: is a percentage; give at most 100"] if given.mfu > 100 else [])


def _missing(given: argparse.Namespace, config: Config) -> list[str]:
    """What a question needs and was not given."""
    problems = []
    if config.model.vocab_size is None:
        problems.append("--vocab-size: missing; give that of the tokenizer, e.g. --vocab-size 50257")
    for name, example in (("gpus", 64), ("gpu_memory", 80)):
        if given.fit and getattr(given, name) is None:
            problems.append(f"--{name.replace('_', '-')}: missing; --fit asks what fits that: give e.g. {example}")
    if given.largest_micro_batch and given.gpu_memory is None:
        problems.append("--gpu-memory: missing; --largest-micro-batch asks what fits that: give e.g. 80")
    if given.fit and config.training.global_batch_size is None:
        problems.append("--global-batch-size: missing; --fit compares layouts of one batch: give e.g. 512")
    if given.match and not config.context.enabled:
        problems.append("--match: the model is plain itself; give one with a context head, e.g. a contextlm preset")
    return problems


Answer = tuple[str, dict[str, Any], bool]
"""As text, as a record, and whether there is one."""


def _described(given: argparse.Namespace, config: Config, vocab_size: int, world_size: int, machine: Machine) -> Answer:
    text, record = costs(config, world_size), plan_record(config, vocab_size, world_size)
    if given.gpu_memory:
        needed, memory_bytes = fullest(config, vocab_size, world_size), given.gpu_memory * _GIB
        text = f"{text}\n\n{verdict(needed, memory_bytes)}"
        record["fits"] = needed.total <= usable(memory_bytes)
    if tokens := given.tokens or tokens_of_run(config, world_size):
        cost = run_cost(config, vocab_size, world_size, machine, tokens, given.price_per_gpu_hour)
        text, record["cost"] = f"{text}\n\n{cost_block(cost, world_size, machine)}", cost_record(cost)
    return text, record, True


def _fitted(given: argparse.Namespace, config: Config, vocab_size: int, world_size: int, machine: Machine) -> Answer:
    memory_bytes = given.gpu_memory * _GIB
    found = fits(config, vocab_size, world_size, machine, memory_bytes)
    alone = naive(config)
    needed = fullest(with_whole_micro_batches(alone, world_size), vocab_size, world_size)
    problems = validate(alone, world_size, dry_run=True)
    blocks = [naive_block(needed, alone.training.micro_batch_size, problems, memory_bytes)]
    record: dict[str, Any] = {"naive": needed._asdict() | {"total": needed.total, "refused": problems}}
    record["fits"] = fit_record(found, world_size)
    blocks.append(fit_block(found, world_size, memory_bytes) if found else "No layout fits; take more GPUs.")
    tokens = given.tokens or tokens_of_run(config, world_size)
    if tokens and found:
        cost = run_cost(found[0].config, vocab_size, world_size, machine, tokens, given.price_per_gpu_hour)
        blocks.append(cost_block(cost, world_size, machine))
        record["cost_of_the_first"] = cost_record(cost)
    return "\n\n".join(blocks), record, bool(found)


def _largest(given: argparse.Namespace, words: Sequence[str]) -> Answer:
    """Of the model that is given among the options of training, else of every preset."""
    alone = _gives(words, "--model")
    first, world_size, _ = _read(given, words if alone else ["--model", _PRESETS[0], *words])
    others = () if alone else _PRESETS[1:]
    models = [first, *(_preset(name, words) for name in others)]
    memory_bytes = given.gpu_memory * _GIB
    found = [largest(model, world_size, memory_bytes) for model in models]
    return largest_block(found, memory_bytes), largest_record(found), any(any(each.samples) for each in found)


def _matched(given: argparse.Namespace, config: Config, vocab_size: int, world_size: int, machine: Machine) -> Answer:
    plain = dataclasses.replace(config, context=ContextConfig())
    found = match(plain, config, given.match, given.by, vocab_size)
    return match_block(found, config, given.match, vocab_size), match_record(found, vocab_size), True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
