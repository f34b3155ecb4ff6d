"""Every option has exactly one class for the case that a continued run has it otherwise."""

from __future__ import annotations

from collections import Counter

from contextlm.config.fields import all_fields
from contextlm.config.option_changes import CLASSES
from contextlm.config.resume_checks import allowed_names, allowed_problems
from contextlm.config.schema import CheckpointConfig


def test_every_option_has_one_class_and_every_class_has_options_that_exist() -> None:
    """A new option needs a line in option_changes.py."""
    classified = Counter(name for _, _, names in CLASSES for name in names)
    assert classified == Counter(list(all_fields()))


def test_leave_is_given_in_any_spelling() -> None:
    given = CheckpointConfig(allow_changed_options=("adam-beta2", "hidden_dropout", "--bf16"))
    assert allowed_problems(given) == [] and allowed_names(given) == {"adam_beta2", "hidden_dropout", "bf16"}
