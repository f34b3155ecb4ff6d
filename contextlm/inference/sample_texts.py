"""A few texts that a checkpoint writes when it is given nothing: each begins as a new document."""

from __future__ import annotations

from pathlib import Path

from contextlm.inference.huggingface_subject import twin
from contextlm.inference.open_subject import subject
from contextlm.inference.sampling import continuation


def sample_texts(folder: Path, number: int, num_tokens: int) -> list[str]:
    """`number` texts of at most `num_tokens` tokens from the newest checkpoint of a run; the draws have seeds 1, 2, ...

    Raises:
        UserError: there is no checkpoint, or its model never learned how a document begins.
    """
    with subject(folder) as examined:
        ends = examined.document_ends
        # If they matter to layers only the trainer's model knows them.
        if examined.trainer is not None and ends is not None and not ends.matter_to_layers:
            examined = twin(examined.trainer)
        decode = examined.tokenizer.decode
        return [
            decode(list(continuation(examined, [], max_new_tokens=num_tokens, temperature=0.8, seed=seed)))
            for seed in range(1, number + 1)
        ]
