"""python benchmarks/fp8_loss.py --text "$(python -c 'import torch; print(torch.__path__[0])')" --train-iters 500

Does `--fp8-format hybrid --fp8-recipe tensorwise` learn as bf16 does? The same model on the same bytes of real text,
from each seed in bf16 and in 8 bits. Prints how far apart the losses are over the last iterations, beside what seeds
differ.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contextlm import atomic_files
from contextlm.config.fields import build
from contextlm.config.presets import preset
from contextlm.config.schema import Config
from contextlm.data.datasets import build_datasets
from contextlm.data.indexed_writer import IndexedWriter
from contextlm.data.tokenizers import build_tokenizer
from contextlm.parallel import runtime
from gpu_trainers import ours, released
from table import table

BYTES = 257
PRECISIONS: dict[str, dict[str, Any]] = {"bf16": {}, "fp8": {"fp8_format": "hybrid", "fp8_recipe": "tensorwise"}}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Losses in 8 bits beside bf16.", allow_abbrev=False, epilog=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="files, and folders of .py, .md and .txt")
    parser.add_argument("--model", default="contextlm-gpt2-124m", help="a preset [contextlm-gpt2-124m]")
    parser.add_argument("--num-layers", type=int, help="in place of the preset's")
    parser.add_argument("--hidden-size", type=int, help="in place of the preset's")
    parser.add_argument("--num-attention-heads", type=int, help="in place of the preset's")
    parser.add_argument("--seq-length", type=int, default=1024, help="bytes of a sample [1024]")
    parser.add_argument("--micro-batch-size", type=int, default=32, help="samples of an iteration [32]")
    parser.add_argument("--train-iters", type=int, default=500, help="of each run [500]")
    parser.add_argument("--last", type=int, default=100, help="iterations that are compared [100]")
    parser.add_argument("--lr", type=float, default=6e-4, help="after a tenth of warm-up [6e-4]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1234, 4321], help="of weights and order [1234 4321]")
    parser.add_argument("--output", type=Path, help="a JSON file for all losses")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all, print the table."""
    options = parser().parse_args(arguments)
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "text"
        num_bytes = write_text(data, options.text)
        configs = {
            f"{name}, seed {seed}": configuration(options, data, values | {"seed": seed})
            for seed in options.seeds
            for name, values in PRECISIONS.items()
        }
        parallel = next(iter(configs.values())).parallel
        process = stack.enter_context(runtime.start(parallel))
        # megatron-core is imported after the device was chosen.
        from contextlm.parallel.layout import model_parallel

        layout = stack.enter_context(model_parallel(parallel))
        found: dict[str, list[float]] = {}
        for name, config in configs.items():
            found[name] = losses(config, process, layout)
            print(f"{name}: {found[name][0]:.4f} at first, {found[name][-1]:.4f} at last", flush=True)
            if options.output is not None:
                atomic_files.write_json(options.output, found)
    print(f"\n{options.model} on {num_bytes / 1e6:.1f} MB of text, {options.train_iters} iterations of ", end="")
    print(f"{options.micro_batch_size} x {options.seq_length}; the last {options.last}")
    print(shown(found, options.seeds, options.last))


def write_text(prefix: Path, places: Sequence[Path]) -> int:
    """A dataset of bytes, a document for each file in a shuffled order; how many bytes."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    texts = sorted(
        file for file in files if file.is_file() and (file in places or file.suffix in (".py", ".md", ".txt"))
    )
    np.random.default_rng(0).shuffle(texts)
    total = 0
    with IndexedWriter(prefix, BYTES) as writer:
        for text in texts:
            content = np.frombuffer(text.read_bytes(), dtype=np.uint8)
            total += len(content)
            writer.add_document(np.append(content.astype(np.uint16), BYTES - 1))
    return total


def configuration(options: argparse.Namespace, data: Path, values: dict[str, Any]) -> Config:
    """One micro-batch an iteration, without validation."""
    chosen = preset(options.model)
    sizes = ("num_layers", "hidden_size", "num_attention_heads")
    given = {
        "seq_length": options.seq_length,
        "micro_batch_size": options.micro_batch_size,
        "global_batch_size": options.micro_batch_size,
        "train_iters": options.train_iters,
        "lr": options.lr,
        "lr_warmup_iters": options.train_iters // 10,
        "bf16": True,
        "data_path": (str(data),),
        "tokenizer_type": "ByteTokenizer",
        "vocab_size": None,
        "split": "100,0,0",
    }
    shape = {name: value for name in sizes if (value := getattr(options, name)) is not None}
    return build(chosen["model"] | chosen["optimizer"] | chosen.get("context", {}) | given | shape | values, None)


def losses(config: Config, process: Any, layout: Any) -> list[float]:
    """Of each iteration."""
    from contextlm.training.setup import setup

    tokenizer = build_tokenizer(config.data)
    built = setup(config, process, layout, tokenizer, build_datasets(config, tokenizer))
    with released(built) as run, ours(run) as step:
        found: list[Any] = [step() for _ in range(run.num_iterations)]
    return [float(loss) for loss in found]


def shown(found: dict[str, list[float]], seeds: Sequence[int], last: int) -> str:
    """Mean loss of each run, how far 8 bits are from bf16 of the same seed, and how far apart the seeds are."""
    means = {name: statistics.fmean(each[-last:]) for name, each in found.items()}
    rows, apart = [], []
    for seed in seeds:
        bf16, fp8 = (means[f"{name}, seed {seed}"] for name in PRECISIONS)
        apart.append(fp8 - bf16)
        rows.append((str(seed), f"{bf16:.4f}", f"{fp8:.4f}", f"{fp8 - bf16:+.4f}"))
    among = [means[f"bf16, seed {seed}"] for seed in seeds]
    return (
        f"{table(('seed', 'bf16', 'fp8', 'difference'), rows)}\n\n"
        f"8 bits: {statistics.fmean(apart):+.4f} in the mean; seeds in bf16: up to {max(among) - min(among):.4f} apart"
    )


if __name__ == "__main__":
    main()
