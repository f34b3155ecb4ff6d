"""What only the ranks together can tell, right after they have met: the network, and the memory of each device."""

from __future__ import annotations

from contextlm.byte_words import size
from contextlm.config.schema import Config
from contextlm.errors import UserError, tell_warnings
from contextlm.parallel.layout import Layout
from contextlm.parallel.runtime import Runtime
from contextlm.preflight import collectives, memory
from contextlm.preflight.host_checks import Passed


def check(config: Config, passed: Passed, process: Runtime, layout: Layout) -> None:
    """Look, and say in one line what the whole preflight has found. Collective.

    Raises:
        Fault: ranks do not hear each other, on every rank that can still be told.
        UserError: it does not fit, on every rank.
    """
    heard = collectives.check(process, layout)
    shares = memory.shares(config, passed.tokenizer.vocab_size, process, layout)
    if problems := memory.problems(shares):
        raise UserError(*problems)
    tell_warnings(memory.warnings(shares))
    fullest = max(shares, key=lambda share: share.peak / share.there)
    words = [*passed.words, f"memory about {size(fullest.peak)} of {size(fullest.there)}"]
    if heard is not None:
        words.append(f"all-reduce over {heard.num_ranks} ranks {heard.seconds * 1000:.1f} ms")
    if process.rank == 0:
        print(f"preflight: {', '.join(words)}", flush=True)
