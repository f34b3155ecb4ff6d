"""What a conversion needs of memory: one model, one file of weights, and the programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.programs import run

PROGRAMS_GB, FILE_GB, LARGEST_GB = 1.0, 0.25, 12
START = """
import resource
from contextlm.config.fields import build
from contextlm.config.presets import preset

def config(name):
    return build({key: value for part in preset(name).values() for key, value in part.items()}, name)

def peak():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""
MAKE = """
from pathlib import Path
import tokenizers
from contextlm.data.huggingface_tokenizer import HuggingFaceTokenizer
from contextlm.inference.opened import built
whole = config("contextlm-gpt2-124m")
words = tokenizers.Tokenizer(tokenizers.models.WordLevel({{f"w{{i}}": i for i in range(whole.model.vocab_size)}}, "w1"))
words.save("{folder}/tokenizer.json")
tokenizer = HuggingFaceTokenizer(Path("{folder}/tokenizer.json"), "w0")
with built(whole, tokenizer.vocab_size) as (model, layout, _):
    from contextlm.checkpoints.weights_checkpoint import save_weights
    save_weights(model, layout, whole, tokenizer, Path("{folder}/ours"), {{}})
"""
EXPORT = """
from contextlm.interop.export_huggingface import export
export("{folder}/ours", "{folder}/theirs", int({file_gb} * 1e9), print)
peak()
"""
IMPORT = """
from contextlm.config.schema import DataConfig
from contextlm.interop.import_huggingface import import_model
import_model("{folder}/theirs", "{folder}/back", DataConfig(), print)
peak()
"""


@pytest.mark.full
def test_memory_is_what_the_formula_says(tmp_path: Path) -> None:
    """Measured for 124M; by the same formula the largest preset stays below 12 GB."""
    from contextlm.analysis.parameters import count_parameters
    from contextlm.config.resolve import parse

    def gigabytes(preset: str) -> float:
        config = parse(["--model", preset, "--dry-run"], {}).config
        return 4 * count_parameters(config, config.model.vocab_size).total / 1e9

    places = {"folder": tmp_path, "file_gb": FILE_GB}
    made = run("-c", START + MAKE.format(**places))
    assert made.returncode == 0, made.stderr
    for code in (EXPORT, IMPORT):
        done = run("-c", START + code.format(**places))
        assert done.returncode == 0, done.stderr
        peak = float(done.stdout.split()[-1])
        assert peak < gigabytes("contextlm-gpt2-124m") + FILE_GB + PROGRAMS_GB, peak
    assert gigabytes("contextlm-gpt2-1.5b") + 1 + PROGRAMS_GB < LARGEST_GB
