"""What `--help` says of every option, generated from the tree; `options_page.py` says the same in Markdown.

The head of an option is the option as it may be typed: with its choices, else with its example, else with its default.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from typing import NamedTuple

from contextlm.config.fields import Field, sections, typed
from contextlm.config.flags import PROGRAM_FLAGS
from contextlm.config.presets import preset_names
from contextlm.config.values import expected

_INDENT = " " * 6
_WIDTH = 100

# Options that are often given together.
_EXAMPLES = {
    "program": "--model contextlm-gpt2-124m --config run.yaml --world-size 8 --dry-run",
    "model": "--model gpt2-124m --seq-length 512 --hidden-dropout 0.1",
    "context": "--model gpt2-124m --context-chunk-size 4 --context-fusion norm_add",
    "parallel": "--tensor-model-parallel-size 2 --sequence-parallel --pipeline-model-parallel-size 2",
    "training": "--micro-batch-size 4 --global-batch-size 64 --train-iters 1000 --bf16",
    "optimizer": "--lr 6e-4 --min-lr 6e-5 --lr-warmup-iters 100",
    "data": "--data-path 0.7 data/a_text_document 0.3 data/b_text_document --split 98,2,0",
    "checkpoint": "--save runs/a --load runs/a --save-interval 100",
    "logging": "--log-interval 1 --output-dir runs/a",
}
_PROGRAM = {
    "model": "Start from a preset: " + ", ".join(preset_names()) + ".",
    "config": "Read fields from a YAML file; a saved config.yaml is one.",
    "data-args-path": "Read the words of --data-path from a file, where there are too many for a command line.",
    "data-config": "Read datasets and weights, of all splits or of each, from a YAML file; paths are relative to it.",
    "dry-run": "Describe the run (parameters, FLOPs, memory, layout) and start nothing; needs no data.",
    "preflight-only": "Look whether the run could begin: data, folders, disk, and under torchrun memory and network.",
    "print-config": "Print the resolved configuration as YAML for --config, and start nothing; needs no data.",
    "world-size": "Number of processes that a dry run is for; the smallest that fits if not given.",
    "help": "This text.",
}


class Entry(NamedTuple):
    """One option: how it may be typed, and what it means."""

    head: str
    text: str


class Section(NamedTuple):
    """Options that belong together: name, what they are about, one example, the options."""

    name: str
    title: str
    example: str
    entries: list[Entry]


def help_sections(fields: Mapping[str, Field]) -> list[Section]:
    """Every option, by section; those of the program first."""
    program = [
        Entry(f"--{name}" + (f" {example}" if example else ""), _PROGRAM[name])
        for name, example in PROGRAM_FLAGS.items()
    ]
    found = [Section("program", "Where values come from, and what is done.", _EXAMPLES["program"], program)]
    for name, section_class in sections().items():
        title = inspect.cleandoc(section_class.__doc__ or "").splitlines()[0]
        entries = [_entry(field) for field in fields.values() if field.section == name]
        found.append(Section(name, title, _EXAMPLES[name], entries))
    return found


def help_text(fields: Mapping[str, Field]) -> str:
    """The sections as plain text for a terminal."""
    blocks = [
        "Train GPT-2, Pythia, and both with ContextLM's context head.",
        "  torchrun --nproc-per-node N pretrain_contextlm.py [--model PRESET] [--config FILE.yaml] [flags]",
        "A flag wins over the YAML file, which wins over the preset. Flags are never abbreviated.",
    ]
    for section in help_sections(fields):
        lines = [f"{section.name}: {section.title}", f"  e.g. {section.example}"]
        blocks.append("\n".join([*lines, *(_paragraph(entry) for entry in section.entries)]))
    return "\n\n".join(blocks)


def _entry(field: Field) -> Entry:
    if field.kind is bool:
        default = "on" if field.default else "off"
        return Entry(f"{field.flag} / --no-{field.flag[2:]}", f"{field.help} [default: {default}]")
    value = "{" + ",".join(field.choices) + "}" if field.choices else field.sample
    takes = "" if field.choices or field.kind in (str, tuple) else f"{expected(field)}; "
    return Entry(f"{field.flag} {value}", f"{field.help} [{takes}default: {typed(field.default)}]")


def _paragraph(entry: Entry) -> str:
    head = entry.head if len(entry.head) < _WIDTH else entry.head.replace(",", ", ")
    return (
        textwrap.fill(head, _WIDTH, initial_indent="  ", subsequent_indent=_INDENT)
        + "\n"
        + textwrap.fill(entry.text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)
    )
