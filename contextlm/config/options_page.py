"""docs/options.md: what `--help` says, as a page.

python -m contextlm.config.options_page > docs/options.md
"""

from __future__ import annotations

import textwrap

from contextlm.config.fields import all_fields
from contextlm.config.help import Entry, Section, help_sections

_WIDTH = 120
_HEAD = """\
# Every option

What `python pretrain_contextlm.py --help` says, as a page; `python -m contextlm.config.options_page` prints it anew. A
flag wins over the YAML file (`--config`), which wins over the preset (`--model`). In YAML, the option `--num-layers` is
the key `num_layers` of its section, `model`.

Megatron-LM's options that are not here are in [megatron_flags.yaml](../contextlm/config/megatron_flags.yaml), each with
what becomes of it: ignored with a warning where it asks for what is always so, else refused with reason and remedy.
"""


def options_page() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_section(section) for section in help_sections(all_fields()))])


def _section(section: Section) -> str:
    entries = "\n".join(_item(entry) for entry in section.entries)
    return f"## {section.name}\n\n{section.title}\n\n    {section.example}\n\n{entries}\n"


def _item(entry: Entry) -> str:
    return textwrap.fill(
        f"- `{entry.head}`: {entry.text}",
        _WIDTH,
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


if __name__ == "__main__":
    print(options_page(), end="")
