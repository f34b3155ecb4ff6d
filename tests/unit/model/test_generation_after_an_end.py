"""A model trained with documents apart continues a text as it was trained: from the last end of document on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from contextlm.errors import UserError
from contextlm.inference.sampling import continuation
from tests.small_configs import VOCAB_SIZE, small_config

EOD = 7
APART = {"reset_position_ids": True, "reset_attention_mask": True}


@pytest.fixture
def greedy(build):
    """Prompt and options -> the ten likeliest next tokens."""
    from contextlm.inference.opened import Opened
    from contextlm.inference.subject import from_checkpoint
    from contextlm.model.token_batch import DocumentEnds

    def greedy(prompt: list[int], **options: bool) -> list[int]:
        config = small_config(**options)
        tokenizer = SimpleNamespace(eod=EOD, vocab_size=VOCAB_SIZE)
        ends, device = DocumentEnds.of(config.data, tokenizer), torch.device("cpu")
        opened = Opened(Path(), config, {}, tokenizer, ends, build(config), device)
        with torch.no_grad():
            return list(continuation(from_checkpoint(opened), prompt, max_new_tokens=10, temperature=0))

    return greedy


def test_what_is_before_the_end_is_forgotten(greedy) -> None:
    before, after = [11, 12, 13, 14, 15, EOD], [21, 22, 23, 24, 25]
    alone = greedy(after)
    assert greedy([*before, *after], **APART) == greedy(after, **APART) == alone
    assert greedy([*before, *after]) != alone


def test_an_empty_prompt_begins_a_document(greedy) -> None:
    first, *others = greedy([], **APART)
    assert greedy([first], **APART)[:9] == others  # and does not see the end that stood in for it
    with pytest.raises(UserError, match="--prompt: empty, but the model was trained with --eod-mask-loss"):
        greedy([], **APART, eod_mask_loss=True)
