"""What is done to models that are examined, by the pool: a process opens one at a time."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch


def verdicts(load: str, tampered: str = "nothing", **options: Any) -> dict[str, str]:
    """Claim -> verdict of all proofs that need no other processes.

    Args:
        load: a checkpoint or a Hugging Face folder.
        tampered: what is broken in the code meanwhile: a key of `SABOTAGE`, or nothing.
    """
    from contextlm.verification.proofs import proofs

    with SABOTAGE[tampered]():
        found = list(proofs(load, over_processes=lambda _: [], say=lambda _: None, **options))
    return {proof.claim: proof.verdict for proof in found}


def failing_program(load: str) -> tuple[int | str | None, dict[str, Any]]:
    """The exit status of tools/verify.py with a leaking model, and what it wrote."""
    from contextlm.verification import proofs
    from tools import verify

    output = Path(load, "proofs.json")
    with SABOTAGE["alignment"](), mock.patch.object(proofs.proofs, "__kwdefaults__", _without_processes(proofs.proofs)):
        try:
            verify.main([load, "--output", str(output)])
        except SystemExit as error:
            return error.code, json.loads(output.read_text())
    return None, json.loads(output.read_text())


def _without_processes(function: Any) -> dict[str, Any]:
    return {**function.__kwdefaults__, "over_processes": lambda _: []}


@contextlib.contextmanager
def _alignment() -> Iterator[None]:
    """Each token receives the prediction of the chunk after its own."""
    from contextlm.model import context_head

    aligned = context_head.spread
    with mock.patch.object(context_head, "spread", lambda p, *rest: aligned(p.roll(-1, dims=0), *rest)):
        yield


@contextlib.contextmanager
def _cache() -> Iterator[None]:
    """Decoding pools the first token of a chunk alone."""
    from contextlm.interop.huggingface_model.head_contextlm import ContextHead

    tokens_of = ContextHead._tokens

    def late(self: Any, hidden: Any, places: Any, cache: Any, rows: Any, first: Any, count: int) -> Any:
        found = tokens_of(self, hidden, places, cache, rows, first, count)
        return (
            found if cache is None or int(places.before[0]) == 0 else found.roll(1, dims=2)[:, :, :1].expand_as(found)
        )

    with mock.patch.object(ContextHead, "_tokens", late):
        yield


@contextlib.contextmanager
def _padding() -> Iterator[None]:
    """Padding is counted as tokens."""
    from contextlm.interop.huggingface_model import modeling_contextlm as modeling

    count = modeling.count_tokens
    with mock.patch.object(modeling, "count_tokens", lambda hidden, mask, cache: count(hidden, None, cache)):
        yield


SABOTAGE: dict[str, Any] = {
    "nothing": contextlib.nullcontext,
    "alignment": _alignment,
    "cache": _cache,
    "padding": _padding,
}


def logits_alone(load: str, tokens: list[list[int]]) -> torch.Tensor:
    """Logits of one process, the gate open."""
    from contextlm.inference.open_subject import subject
    from contextlm.inference.predictions import open_gate

    with subject(load, in_fp32=True) as examined, open_gate(examined.model):
        return examined.logits(torch.tensor(tokens)).float()


def greedy_without_cache(load: str, prompt: str, count: int) -> str:
    """What a model continues with, the whole text read anew for each token."""
    from contextlm.inference.open_subject import subject

    with subject(load) as examined:
        given = tokens = examined.tokenizer.encode(prompt)
        for _ in range(count):
            token = int(examined.logits(torch.tensor([tokens]))[0, -1].argmax())
            if token == examined.tokenizer.eod:
                break
            tokens = [*tokens, token]
        return examined.tokenizer.decode(tokens)[len(examined.tokenizer.decode(given)) :]


def refusal(name: str, arguments: list[str]) -> str:
    """What a tool says that ends with status 1."""
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        try:
            importlib.import_module(f"tools.{name}").main(arguments)
        except SystemExit as error:
            assert error.code == 1
            return shown.getvalue()
    return ""


def task_results(model: str, arguments: dict[str, Any], tasks: list[str], folder: str) -> dict[str, dict[str, Any]]:
    """lm_eval's measures of tasks by one of its models, without the Hub."""
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": folder}
    with mock.patch.dict(os.environ):
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # else accelerate, which `hf` needs, makes a process group and keeps it
        return _task_results(model, arguments, tasks, folder)


def _task_results(model: str, arguments: dict[str, Any], tasks: list[str], folder: str) -> dict[str, dict[str, Any]]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    import contextlm.interop.huggingface
    import contextlm.interop.lm_eval  # noqa: F401

    found = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=tasks,
        batch_size=4,
        device="cpu",
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        log_samples=False,
        bootstrap_iters=0,
    )
    return {
        task: {key: value for key, value in measures.items() if isinstance(value, float)}
        for task, measures in found["results"].items()
    }
