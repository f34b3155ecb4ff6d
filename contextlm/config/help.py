"""The text of `--help`, generated from the tree."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping

from contextlm.config.fields import Field, sections
from contextlm.config.presets import preset_names

_INDENT = " " * 6
_WIDTH = 100

_EXAMPLES = {
    "model": "--model gpt2-124m --seq-length 512 --hidden-dropout 0.1",
    "context": "--model gpt2-124m --context-chunk-size 4 --context-fusion norm_add",
    "parallel": "--tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 2",
    "training": "--micro-batch-size 4 --global-batch-size 64 --train-iters 1000 --bf16",
    "optimizer": "--lr 6e-4 --min-lr 6e-5 --lr-warmup-iters 100",
    "data": "--data-path 0.7 data/a_text_document 0.3 data/b_text_document --split 98,2,0",
    "checkpoint": "--save runs/a --load runs/a --save-interval 100",
    "logging": "--log-interval 1 --output-dir runs/a",
}


def help_text(fields: Mapping[str, Field]) -> str:
    """Every flag by section, with its sentence, choices and default, and one example each section."""
    blocks = [_program()]
    for section, section_class in sections().items():
        title = inspect.cleandoc(section_class.__doc__ or "").splitlines()[0]
        lines = [f"{section}: {title}", f"  e.g. {_EXAMPLES[section]}"]
        lines += [_entry(field) for field in fields.values() if field.section == section]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _program() -> str:
    return "\n".join(
        [
            "Train GPT-2, Pythia, and both with ContextLM's context head.",
            "",
            "  torchrun --nproc-per-node N pretrain_contextlm.py [--model PRESET] [--config FILE.yaml] [flags]",
            "",
            "A flag wins over the YAML file, which wins over the preset. Flags are never abbreviated.",
            "",
            _paragraph("--model PRESET", "Start from a preset: " + ", ".join(preset_names()) + "."),
            _paragraph("--config FILE.yaml", "Read fields from a YAML file; a saved config.yaml is one."),
            _paragraph(
                "--dry-run",
                "Describe the run (parameters, FLOPs, memory, layout) and start nothing; needs no data.",
            ),
            _paragraph("--world-size N", "Number of processes a dry run is for; the smallest that fits if not given."),
            _paragraph("--help", "This text."),
        ]
    )


def _entry(field: Field) -> str:
    if field.kind is bool:
        head = f"{field.flag} / --no-{field.flag[2:]}"
        default = "on" if field.default else "off"
    else:
        word = {int: "N", float: "X", tuple: "VALUE ..."}.get(field.kind, "TEXT")
        head = f"{field.flag} " + ("{" + ",".join(field.choices) + "}" if field.choices else word)
        default = " ".join(field.default) if field.kind is tuple else str(field.default)
        default = "none" if field.default in (None, ()) else default
    return _paragraph(head, f"{field.help} [default: {default}]")


def _paragraph(head: str, text: str) -> str:
    return f"  {head}\n" + textwrap.fill(
        text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False
    )
