"""docs/options.md: what `--help` says, as a page.

python -m contextlm.config.options_page > docs/options.md
"""

from __future__ import annotations

import textwrap

from contextlm.config.fields import all_fields
from contextlm.config.help import Entry, Section, help_sections
from contextlm.config.option_changes import CLASSES

_WIDTH = 120
_HEAD = """\
# Every option

What `python pretrain_contextlm.py --help` says, as a page; `python -m contextlm.config.options_page` prints it anew. A
flag wins over the YAML file (`--config`), which wins over the preset (`--model`). In YAML, the option `--num-layers` is
the key `num_layers` of its section, `model`.

Megatron-LM's options that are not here are in [megatron_flags.yaml](../contextlm/config/megatron_flags.yaml), each with
what becomes of it: ignored with a warning where it asks for what is always so, else refused with reason and remedy.
"""


_CHANGES = """\
## Options that change when a run is continued

A run that continues a checkpoint shows which of its options are not the checkpoint's, before it reads a tensor.
"""


def options_page() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_section(section) for section in help_sections(all_fields())), _changes()])


def _changes() -> str:
    """What a changed option means for a run that is continued; those of the last class are all the others."""
    *classes, (rest, meaning, _) = CLASSES
    items = [f"- {kind} ({what}): " + " ".join(f"`{_flag(name)}`" for name in names) for kind, what, names in classes]
    return "\n".join([_CHANGES, *map(_filled, items), f"- {rest} ({meaning}): every other option"]) + "\n"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _section(section: Section) -> str:
    entries = "\n".join(_item(entry) for entry in section.entries)
    return f"## {section.name}\n\n{section.title}\n\n    {section.example}\n\n{entries}\n"


def _item(entry: Entry) -> str:
    return _filled(f"- `{entry.head}`: {entry.text}")


def _filled(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


if __name__ == "__main__":
    print(options_page(), end="")
