"""The card of an exported folder says what its reader would otherwise do wrong."""

from __future__ import annotations

from typing import Any

import pytest

from contextlm.interop.model_card import model_card
from tests.small_configs import small_config

PARITY = {"max_abs_difference": 0.0, "relative_difference": 0.0}


@pytest.mark.parametrize(
    ("values", "is_said"), [({}, False), ({"reset_attention_mask": True}, True), ({"reset_position_ids": True}, True)]
)
def test_a_model_that_read_one_document_at_a_time(values: dict[str, Any], is_said: bool) -> None:
    card = model_card("out", "contextlm", small_config(**values), {}, PARITY)
    assert ("one document at a time" in card) == is_said
