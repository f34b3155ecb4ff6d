"""The parts of a call of `gpu.py`, one after the other, on one process group and one file of results."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpu_attention
import gpu_ladder
import gpu_loop
import gpu_profile
from contextlm.parallel import runtime
from contextlm.training.garbage import collected_by_hand
from gpu_ceilings import Ceilings
from gpu_clock import Budget, first_seconds, window
from gpu_peer import peer
from gpu_trainers import (
    AGAINST,
    CONTEXT,
    CONTEXT_AGAIN,
    PEER,
    PEER_OUR_LOSS,
    PLAIN,
    PLAIN_AGAIN,
    PLAIN_FP8,
    Step,
    Subject,
    build_run,
    flops,
    num_parameters,
    ours,
    released,
    vocab_size,
)
from gpu_turns import WARM_UP, Job, failure, forget_all, measure
from trainers import Size, write_tokens


class Bench(NamedTuple):
    """What all parts of a call share.

    Attributes:
        results: of this kind of device; `keep` writes them.
        process, layout: of the one process.
        folder: for the tokens.
    """

    options: argparse.Namespace
    budget: Budget
    results: dict[str, Any]
    keep: Callable[[], None]
    process: Any
    layout: Any
    folder: Path

    def found(self, model: Subject) -> dict[str, Any]:
        """The results of a model."""
        found: dict[str, Any] = self.results.setdefault("models", {}).setdefault(str(model), {})
        return found

    def config(self, model: Subject, trainer: str, **values: Any) -> Any:
        """The configuration of a trainer, whose tokens are written."""
        config = model.configuration(trainer, self.folder / model.preset, **values)
        if not (self.folder / f"{model.preset}.idx").exists():
            write_tokens(self.folder / model.preset, Size(1, 1, 1, config.model.seq_length, vocab_size(config), 1, 1))
        return config

    @property
    def ceilings(self) -> Ceilings:
        """Those of this call."""
        return Ceilings(**self.results["ceilings"])

    def ceilings_of(self, noted: Mapping[str, Any]) -> Ceilings:
        """Those of the call that noted something, if it did note them."""
        return Ceilings(**noted.get("ceilings", self.results["ceilings"]))


@contextlib.contextmanager
def started(options: argparse.Namespace, results: dict[str, Any], keep: Callable[[], None]) -> Iterator[Bench]:
    """The process group of one, and a folder."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        parallel = options.model[0].configuration(PLAIN, folder).parallel
        process = stack.enter_context(runtime.start(parallel))
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        layout = stack.enter_context(model_parallel(parallel))
        stack.enter_context(collected_by_hand())
        yield Bench(options, Budget(options.minutes), results, keep, process, layout, folder)


def measure_all(bench: Bench) -> None:
    """All that was asked for, as far as the minutes go: trainers and profiles of every model first."""
    for model in bench.options.model:
        measure_attention(bench, model)
        measure_trainers(bench, model)
    for model in bench.options.model:
        if bench.options.ladder:
            measure_ladder(bench, model)
    for model in bench.options.model:
        for trainer in bench.options.loop:
            measure_loop(bench, model, trainer)


def measure_attention(bench: Bench, model: Subject) -> None:
    """The attention kernels at a model's shape, which takes a second."""
    found, config, device = bench.found(model), bench.config(model, PLAIN), bench.process.device
    if "attention" not in found:
        found["attention"] = {
            "seconds": gpu_attention.attention_seconds(config, device),
            "taken": gpu_attention.taken(config, device),
        }
        bench.keep()
        forget_all()


def windows(options: argparse.Namespace) -> dict[str, int]:
    """The trainers of a call, and how many windows each is to have."""
    extra = [name for name, asked in ((PEER_OUR_LOSS, options.our_loss), (PLAIN_FP8, options.fp8)) if asked]
    chosen = [name for name in (PLAIN, PEER, CONTEXT) if name in options.trainers]
    wanted = dict.fromkeys((*chosen, *extra), options.windows)
    again = [name for name in (PLAIN_AGAIN, CONTEXT_AGAIN) if options.recompute and AGAINST[name] in chosen]
    return wanted | dict.fromkeys(again, min(1, options.windows))


def measure_trainers(bench: Bench, model: Subject) -> None:
    """Windows in turns, and profiles."""
    options, found = bench.options, bench.found(model)
    configs = {name: bench.config(model, name) for name in windows(options)}

    @contextlib.contextmanager
    def opened(name: str) -> Iterator[Step]:
        config = configs[name]
        found[name] |= {
            "flops_per_token": flops(config),
            "causal_flops_per_token": flops(config, causal_half=True),
        }
        if name in (PEER, PEER_OUR_LOSS):
            with peer(config, bench.process, our_loss=name == PEER_OUR_LOSS) as step:
                yield step
            return
        with released(build_run(config, bench.process, bench.layout)) as built, ours(built) as step:
            yield step

    def profile(name: str, step: Step) -> None:
        if lacks_profile(name):
            profiled = gpu_profile.profiled(step, configs[name])
            found[name]["profile"] = {**profiled, "ceilings": bench.results["ceilings"]}

    def lacks_profile(name: str) -> bool:
        return name in options.profile and "profile" not in found.get(name, {})

    plain = bench.config(model, PLAIN)
    job = Job(
        windows(options),
        options.seconds,
        plain.global_batch_size(1) * plain.model.seq_length,
        num_parameters(plain),
        opened,
        profile,
        lambda name: gpu_profile.SECONDS if lacks_profile(name) else 0.0,
        {"product_flops_per_second": bench.ceilings.flops_per_second},
    )
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else float("inf")
    measure(job, bench.budget, found, bench.keep, memory)


def measure_ladder(bench: Bench, model: Subject) -> None:
    """A short window of each rung, the last of which is the plain trainer; iterations a second."""
    found, rungs = bench.found(model), gpu_ladder.rungs(bench.config(model, PLAIN))
    ladder, sizes = found.setdefault("ladder", {}), gpu_ladder.Sizes.of(bench.config(model, PLAIN))
    found |= {"ladder_bytes": {rung.name: rung.saves(sizes) for rung in rungs}, "ceilings": bench.results["ceilings"]}
    for number, name in enumerate((gpu_ladder.BARE, *(rung.name for rung in rungs))):
        needed = first_seconds(found, PLAIN, num_parameters(bench.config(model, PLAIN))) + gpu_ladder.SECONDS
        if isinstance(ladder.get(name), float) or not bench.budget.allows(needed):
            continue
        try:
            with gpu_ladder.without(rungs[number:]) as values:
                ladder[name] = rung_rate(bench, bench.config(model, PLAIN, **values))
        except Exception as error:  # of this rung; the others go on
            ladder[name] = failure(error)
        forget_all()
        bench.keep()


def rung_rate(bench: Bench, config: Any) -> float:
    """Iterations a second of a run as it is built here and now."""
    with released(build_run(config, bench.process, bench.layout)) as built, ours(built) as step:
        for _ in range(WARM_UP):
            step()
        return window(step, min(gpu_ladder.SECONDS, bench.options.seconds))


def measure_loop(bench: Bench, model: Subject, trainer: str) -> None:
    """One of our trainers, bare and in the whole loop."""
    found, config = bench.found(model), bench.config(model, trainer)
    loop = found.setdefault("loop", {}).setdefault(trainer, {"rounds": []})
    needed = first_seconds(found, trainer, num_parameters(config)) + len(gpu_loop.PARTS) * bench.options.seconds
    if gpu_loop.missing(loop) > 0 and bench.budget.allows(needed):
        run_loop(bench, config, loop)
        forget_all()


def run_loop(bench: Bench, config: Any, loop: dict[str, Any]) -> None:
    """Build the run, and let it go."""
    try:
        with released(build_run(config, bench.process, bench.layout)) as built:
            gpu_loop.measure(built, bench.options.seconds, bench.budget, loop, bench.keep)
    except Exception as error:  # the rounds before are kept
        loop["failed"] = failure(error)
