"""The vocabulary that training would have, for what only plans it: a tokenizer is read where one is given.

Without one nothing is imported: numpy and the tokenizers' libraries are most of the time that a plan takes.
"""

from __future__ import annotations

from contextlm.config.schema import Config


def given_vocab_size(config: Config) -> int | None:
    """The size of the tokenizer's vocabulary; None where no tokenizer is given.

    Raises:
        UserError: it cannot be read.
    """
    if config.data.tokenizer_type is None:
        return None
    from contextlm.data.tokenizers import build_tokenizer

    return build_tokenizer(config.data, config.model.vocab_size).vocab_size
