"""python benchmarks/decoding.py

Generation by our ContextLM beside the plain model of the same backbone, both in transformers, in turns: reading a
prompt, tokens/s of decoding with the cache for batches of 1 and 16 of equal and of unequal lengths, and memory of the
cache. The weights are random and both read the same tokens. Exits with 1 if a ratio is below its target by more than
the noise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import contextlm
from contextlm.inference.cached_steps import cached_step
from contextlm.interop.huggingface_config import to_huggingface_config
from contextlm.interop.loaded_huggingface import package
from rounds import seconds_by_round, speed_ratio
from table import machine, table
from trainers import SIZES, Size

PLAIN, CONTEXT = "plain", "ContextLM"
CHUNK_SIZE = 4
DECODING_TARGET = 0.95
PREFILL_ALLOWANCE = 0.03  # beyond the FLOPs of the head


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        batch: rows.
        prompt: tokens of the longest.
        unequal: each row is shorter than the one before, padded on the left.
        num_new: tokens of a round of decoding, a multiple of the chunk size; 0 measures the prompt.
    """

    batch: int
    prompt: int
    unequal: bool = False
    num_new: int = 0

    def __str__(self) -> str:
        lengths = "unequal lengths" if self.unequal else "equal lengths"
        kind = f"decoding, {lengths}" if self.num_new else "prompt"
        return f"{kind}, batch {self.batch}"

    def tokens(self, size: Size, device: torch.device) -> torch.Tensor:
        """Random ids [batch, prompt]."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(size.vocab_size, (self.batch, self.prompt), generator=generator).to(device)

    def mask(self, device: torch.device) -> torch.Tensor | None:
        """0 for padding, [batch, prompt]; None where there is none."""
        if not self.unequal:
            return None
        columns = torch.arange(self.prompt, device=device)
        return (columns >= torch.arange(self.batch, device=device)[:, None]).long()


@dataclass
class Generation:
    """One model at one case: each call is a round, which goes on where the last one stopped."""

    model: torch.nn.Module
    case: Case
    size: Size
    device: torch.device
    cache: Any = None
    mask: torch.Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.ids = self.case.tokens(self.size, self.device)
        self.mask = self.case.mask(self.device)
        if self.case.num_new:
            _, self.cache = cached_step(self.model, self.ids, None, self.mask, num_kept=1)
        self()  # warm

    def __call__(self) -> None:
        """Read the prompt, every logit of it; or once there is a cache decode as many tokens as the case says."""
        if self.cache is None:
            cached_step(self.model, self.ids, None, self.mask)
        else:
            for _ in range(self.case.num_new):
                if self.mask is not None:
                    self.mask = torch.cat((self.mask, self.mask[:, -1:]), dim=1)
                logits, self.cache = cached_step(self.model, self.ids[:, :1], self.cache, self.mask, num_kept=1)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def build(size: Size, chunk_size: int, device: torch.device) -> torch.nn.Module:
    """A model of transformers with random weights, the head's gate open; bf16 on a GPU."""
    transformers = package()
    content = to_huggingface_config(size.config(chunk_size, Path()), size.vocab_size, None)
    kind = content.pop("model_type")
    config = transformers.AutoConfig.for_model(
        kind, **{k: content[k] for k in content if k not in ("auto_map", "dtype")}
    )
    config.eos_token_id = config.bos_token_id = None
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.7)
    return model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Generation beside the plain model.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--size", choices=[name for name in SIZES if name != "quick"], default="124m", help="[124m]")
    parser.add_argument("--rounds", type=int, default=9, help="of each model, in turns [9]")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="rows [1 16]")
    parser.add_argument("--prompt", type=int, default=64, help="tokens behind which it decodes [64]")
    parser.add_argument("--new", type=int, default=16, help="tokens of a round of decoding [16]")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU [1]")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: bf16, seconds by the wall [cpu]"
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model for 2 rounds, no verdict: does it run?")
    return parser


def problems(options: argparse.Namespace) -> list[str]:
    """What cannot be measured."""
    found = [
        f"--{name} {value}: give 1 or more"
        for name in ("rounds", "prompt", "threads")
        if (value := vars(options)[name]) < 1
    ]
    if options.new < 1 or options.new % CHUNK_SIZE:
        found.append(f"--new {options.new}: give a multiple of the chunk size {CHUNK_SIZE}, so that rounds are alike")
    if options.device == "cuda" and not torch.cuda.is_available():
        found.append("--device cuda: there is none here")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; the exit status is the verdict."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.prompt, options.new, options.batch = 2, 8, CHUNK_SIZE, [1, 2]
    if found := problems(options):
        raise SystemExit("\n".join(f"error: {problem}" for problem in found))
    torch.set_num_threads(options.threads)
    device, size = torch.device(options.device), SIZES["quick" if options.quick else options.size]
    is_cpu = device.type == "cpu"
    where = f"{options.threads} thread(s), fp32, cpu seconds" if is_cpu else f"{torch.cuda.get_device_name()}, bf16"
    print(f"{machine()}; {where}\nmeasured: {Path(contextlm.__file__).parent}\n{size}", flush=True)
    clock = time.process_time if is_cpu and options.threads == 1 else time.perf_counter
    models = {PLAIN: build(size, 0, device), CONTEXT: build(size, CHUNK_SIZE, device)}
    cases = [Case(1, size.seq_length)]
    cases += [Case(batch, options.prompt, False, options.new) for batch in options.batch]
    cases += [Case(batch, options.prompt, True, options.new) for batch in options.batch if batch > 1]
    rows, missed = [], []
    for case in cases:
        line, problem = measure(models, case, size, device, options.rounds, clock)
        print("; ".join(filter(None, line)), file=sys.stderr, flush=True)
        rows.append(line)
        missed += problem
    print(table(("case", "plain tokens/s", "ContextLM", "ratio", "95% interval", "target", "verdict"), rows))
    print(f"\n{memory(models, Case(1, size.seq_length), size, device)}")
    if missed and not options.quick:
        raise SystemExit("\n".join(missed))


def measure(
    models: dict[str, torch.nn.Module],
    case: Case,
    size: Size,
    device: torch.device,
    num_rounds: int,
    clock: Callable[[], float],
) -> tuple[tuple[str, ...], list[str]]:
    """One line of the table, and a sentence if its target was missed."""
    steps = {name: Generation(model, case, size, device) for name, model in models.items()}
    seconds = seconds_by_round(steps, num_rounds, clock)
    tokens = case.batch * (case.num_new or case.prompt)
    rates = [tokens / statistics.median(seconds[name]) for name in (PLAIN, CONTEXT)]
    ratio = speed_ratio(seconds[CONTEXT], seconds[PLAIN])
    target = DECODING_TARGET if case.num_new else 1 / (1 + size.overhead + PREFILL_ALLOWANCE)
    shown = (f"{target:.3f}", ratio.verdict(target)) if not case.unequal else ("", "")
    line = (str(case), *(f"{rate:,.1f}" for rate in rates), f"{ratio.median:.3f}", f"{ratio.low:.3f}..{ratio.high:.3f}")
    problem = (
        f"{case}: ContextLM has {ratio.median:.3f} of the speed, at most {ratio.high:.3f}; the target is {target:.3f}"
    )
    return (*line, *shown), [problem] if shown[1] == "missed" else []


def memory(models: dict[str, torch.nn.Module], case: Case, size: Size, device: torch.device) -> str:
    """Bytes a token of both caches, and what the formula says of ContextLM's."""
    per_token = {}
    for name, model in models.items():
        _, cache = cached_step(model, case.tokens(size, device), None, case.mask(device), num_kept=1)
        per_token[name] = cache_bytes(cache) / (case.batch * case.prompt)
    layers = size.config(CHUNK_SIZE, Path()).context.context_predictor_layers
    formula = (1 + (2 * layers + 1) / CHUNK_SIZE) / (2 * size.layers)
    return (
        f"cache: {per_token[PLAIN]:,.0f} bytes a token, ContextLM {per_token[CONTEXT]:,.0f}: "
        f"{per_token[CONTEXT] / per_token[PLAIN] - 1:+.1%}; (H + (2 N + 1) H / W) / (2 L H) is {formula:+.1%}"
    )


def cache_bytes(cache: Any) -> int:
    """Of all tensors that a cache holds; of ContextLM's head the entries that it made room for, 64 at a time."""
    backbone = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    head = [slots.data for slots in cache._slots() if slots.data is not None] if hasattr(cache, "_slots") else []
    return sum(tensor.numel() * tensor.element_size() for tensor in (*backbone, *head))


if __name__ == "__main__":
    main()
