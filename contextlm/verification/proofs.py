"""All the proofs on one folder, one model in memory after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from contextlm.inference.huggingface_subject import foreign_code, twin
from contextlm.inference.open_subject import subject
from contextlm.inference.predictions import open_gate
from contextlm.inference.subject import Subject
from contextlm.verification.batching import batch_invariance, padding_invariance
from contextlm.verification.causality import causality
from contextlm.verification.decoding import cached_decoding
from contextlm.verification.exported_files import certified_logits, exported_files
from contextlm.verification.proof import ROUNDING, Proof
from contextlm.verification.random_texts import random_ids
from contextlm.verification.tensor_parallel import tensor_parallel

Say = Callable[[str], None]


def proofs(
    path: str | Path,
    *,
    trust_remote_code: bool = False,
    over_processes: Callable[[Subject], list[Proof]] = tensor_parallel,
    say: Say = print,
) -> Iterator[Proof]:
    """Prove or refute, one claim after the other.

    Gates are opened to 1 first: a head behind a gate near 0 is invisible, and so would be its faults.

    Args:
        path: a checkpoint of ours or a Hugging Face folder.
        trust_remote_code: run the code of the folder in place of ours.
        over_processes: the proof that starts processes.
        say: told each step.

    Raises:
        UserError: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        say(f"opening {path}")
        examined = stack.enter_context(subject(path, in_fp32=True))
        if examined.trainer is None:
            yield from exported_files(examined.folder)
            if trust_remote_code:
                examined = foreign_code(examined)
            yield from certified_logits(examined)
        stack.enter_context(open_gate(examined.model))
        say("causality")
        yield from causality(examined)
        yield from batch_invariance(examined)
        decoder = examined
        if examined.trainer is not None:
            say("the same model in transformers, which has the cache")
            decoder = twin(examined.trainer)
            yield _same_logits(examined, decoder)
        say("decoding with a cache, padding")
        yield from cached_decoding(decoder)
        yield from padding_invariance(decoder)
        say("two tensor-parallel processes")
        yield from over_processes(examined)


def _same_logits(ours: Subject, theirs: Subject) -> Proof:
    """The twin that is examined for its cache is the trainer's model."""
    length = min(ours.num_positions, 4 * max(1, ours.chunk_size) + 3)
    ids_BS = random_ids(ours, 2, length, seed=4)
    expected, found = ours.logits(ids_BS).float(), theirs.logits(ids_BS).float()
    worst = (expected - found).abs().max().item() / expected.abs().max().item()
    return Proof("the model in transformers is the trainer's", worst, ROUNDING, f"2 x {length} tokens")
