"""`--help` and docs/options.md: every option, how it may be typed and what it means."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from contextlm.config import parse
from contextlm.config.fields import Field, all_fields
from contextlm.config.flags import PROGRAM_FLAGS, read_flags
from contextlm.config.help import help_sections, help_text
from contextlm.config.options_page import options_page
from contextlm.config.values import from_flag

ROOT = Path(__file__).resolve().parents[3]
FIELDS = all_fields()


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for field in FIELDS.values():
        assert text.count(f"\n  {field.flag} ") == 1
    for name in PROGRAM_FLAGS:
        assert f"\n  --{name}" in text
    assert " ".join(text.split()).count("default: ") == len(FIELDS)
    assert "default: 1234]" in text and "--context-fusion {gated,gated_channel,add,norm_add}" in text


def test_an_example_is_given_where_default_and_choices_are_none():
    """One rule for all, so that no head of an option is without a value and none says what its default says."""

    def needs(field: Field) -> bool:
        return field.kind is not bool and field.choices is None and not field.default

    assert [name for name, field in FIELDS.items() if needs(field) != (field.example is not None)] == []


@pytest.mark.parametrize("field", [field for field in FIELDS.values() if field.kind is not bool], ids=lambda f: f.name)
def test_what_the_head_of_an_option_shows_may_be_typed(field):
    reading = read_flags([field.flag, *field.sample.split()], FIELDS)
    assert reading.problems == []
    from_flag(field, reading.fields[field.name], field.flag)


@pytest.mark.parametrize("section", help_sections(FIELDS), ids=lambda section: section.name)
def test_the_example_of_a_section_may_be_typed(section):
    reading = read_flags(section.example.split(), FIELDS)
    assert reading.problems == [] and reading.warnings == {}
    for name, raw in reading.fields.items():
        from_flag(FIELDS[name], raw, name)


def test_the_page_is_what_the_code_says():
    page = (ROOT / "docs" / "options.md").read_text()
    assert page == options_page(), "run python -m contextlm.config.options_page > docs/options.md"
    assert all(re.search(rf"\n- `{field.flag}\s", page) for field in FIELDS.values())


@pytest.mark.parametrize("flag", ["--help", "--dry-run", "--print-config"])
def test_what_starts_nothing_imports_nothing_heavy(flag):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['pretrain_contextlm.py', '{flag}', '--model', 'contextlm-gpt2-124m']\n"
        "try:\n    runpy.run_path('pretrain_contextlm.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(shown.stdout.splitlines()[-1].split())
    assert "contextlm.config.help" in imported  # the control: modules are seen
    assert imported & {"torch", "numpy", "megatron", "transformers", "matplotlib", "rich", "asyncio"} == set()
    assert ("yaml" in imported) == (flag != "--help")


def test_help_fits_a_terminal():
    assert max(map(len, help_text(FIELDS).splitlines())) <= 110
