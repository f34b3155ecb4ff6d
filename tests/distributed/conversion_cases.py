"""Conversions, run by the pool: what they need and what they leave. Runs on every rank."""

from __future__ import annotations

import contextlib
import json
import resource
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from contextlm.config.schema import DataConfig
from contextlm.data.tokenizers import build_tokenizer
from contextlm.errors import UserError
from tests.random_weights import randomize
from tests.small_configs import small_config


def quiet(text: str) -> None:
    """Progress that nobody reads."""


def save_random(folder: str, backbone: str, values: dict[str, Any], **facts: Any) -> None:
    """A checkpoint of one process, all weights random, under the ByteTokenizer."""
    from contextlm.checkpoints.weights_checkpoint import save_weights
    from contextlm.inference.opened import built

    config, tokenizer = small_config(backbone, **values), build_tokenizer(DataConfig(tokenizer_type="ByteTokenizer"))
    with built(config, tokenizer.vocab_size) as (model, layout, _):
        randomize(model)
        save_weights(model, layout, config, tokenizer, Path(folder), facts)


def save_under(source: str, folder: str, backbone: str, values: dict[str, Any]) -> None:
    """The weights of a checkpoint, saved again by a run under a layout and in a precision, on the data in `values`."""
    from contextlm.checkpoints import saving
    from contextlm.training.step import train_step
    from tests.distributed.runs import load_weights, small_run

    with small_run(backbone, **values, save=folder, tokenizer_type="ByteTokenizer") as run:
        load_weights(run, source)
        kept = [parameter.detach().clone() for parameter in run.model[0].parameters()]
        train_step(run, run.micro_batches(run.datasets.train, 0, run.num_microbatches))  # gives the optimizer a state
        for parameter, value in zip(run.model[0].parameters(), kept, strict=True):
            parameter.data.copy_(value)
        saving.save(run, quiet)


def export(load: str, save: str, max_file_bytes: int = 10**9, sabotage: str | None = None) -> dict[str, Any] | str:
    """The certificate, or what was refused."""
    from contextlm.interop import export_huggingface

    try:
        with _sabotaged(sabotage):
            return export_huggingface.export(load, save, max_file_bytes, quiet)
    except UserError as error:
        return str(error)


def import_model(load: str, save: str, sabotage: str | None = None, **data: Any) -> dict[str, Any] | str:
    """The certificate, or what was refused."""
    from contextlm.interop import import_huggingface

    try:
        with _sabotaged(sabotage):
            return import_huggingface.import_model(load, save, DataConfig(**data), quiet)[0]
    except UserError as error:
        return str(error)


def command_line(arguments: list[str]) -> str:
    """What tools/convert_checkpoint.py prints in the end."""
    from tools import convert_checkpoint

    return convert_checkpoint.convert(convert_checkpoint.parser().parse_args(arguments))


@contextlib.contextmanager
def _sabotaged(fault: str | None):
    """Inside, something goes wrong."""
    if fault == "disk is full":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # no file may be larger
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    elif fault == "queries and keys are swapped":
        from contextlm.interop import export_huggingface, huggingface_weights

        right = huggingface_weights.to_huggingface

        def wrong(*arguments: Any) -> Any:
            for name, value in right(*arguments):
                is_qkv = "qkv" in name or "c_attn.weight" in name or "query_key" in name
                yield name, value.roll(16, dims=-1 if "c_attn" in name else 0) if is_qkv else value

        cast(Any, export_huggingface).to_huggingface = wrong
        try:
            yield
        finally:
            export_huggingface.to_huggingface = right
    else:
        yield


def peer_folder(folder: str, backbone: str, tokenizer: str | None = None, **values: Any) -> None:
    """A folder as transformers writes it: random weights, with rows of padding beyond the tokenizer's ids."""
    import transformers

    from contextlm.interop.huggingface_config import CLASSES, model_type, to_huggingface_config

    config = small_config(backbone, context_chunk_size=0, **values)
    content = to_huggingface_config(config, 264, 256)
    kind = getattr(transformers, CLASSES[model_type(config)])
    model = kind(kind.config_class(**{name: value for name, value in content.items() if name != "model_type"}))
    randomize(model)
    model.save_pretrained(folder, max_shard_size="100KB")


def logits_of(folder: str, ids: list[list[int]], trust: bool = False) -> Tensor:
    """What transformers makes of a folder, with its own code if `trust`."""
    import transformers

    if not trust and json.loads(Path(folder, "config.json").read_text())["model_type"] == "contextlm":
        import contextlm.interop.huggingface  # noqa: F401
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=trust)
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits


def logits_of_new_head(source: str, backbone: str, values: dict[str, Any], ids: list[list[int]]) -> Tensor:
    """Logits of a run that begins with a new head on a converted backbone, at step 0."""
    from contextlm.checkpoints import loading
    from tests.distributed.runs import small_run

    begin = {"init_backbone_from": source, "tokenizer_type": "ByteTokenizer"}
    with small_run(backbone, **values, **begin) as run, torch.no_grad():
        loading.load(run, quiet)
        tokens = torch.tensor(ids)
        model = run.language_model[0].eval()
        return model(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), None)[..., :257]
