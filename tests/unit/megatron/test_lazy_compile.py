"""A process starts without a compiler (contextlm/megatron/lazy_compile.py and adamw.py)."""

from __future__ import annotations

import pytest
import torch

from tests.cli.programs import run

COMPILERS = ("torch._dynamo", "torch._inductor")
BUILT = """
import torch
from contextlm.config.schema import ParallelConfig
from contextlm.parallel import runtime
with runtime.start(ParallelConfig()):
    from contextlm.megatron.adamw import FusedAdamW
    import contextlm.training.train
    optimizer = FusedAdamW([torch.nn.Parameter(torch.zeros(2))])
    optimizer.load_state_dict(optimizer.state_dict())
"""


def loaded(code: str) -> str:
    """Which compilers a process of its own has imported after `code`."""
    done = run(
        "-W", "ignore", "-c", f"import sys\n{code}\nprint([name for name in {COMPILERS} if name in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_model_and_optimizer_import_none():
    assert loaded(BUILT) == "[]"


@pytest.mark.full
def test_megatron_core_itself_imports_both():
    """The control: a newer one that does not would need no mend."""
    assert loaded("import megatron.core") == str(list(COMPILERS))


def test_compiled_at_the_first_call_and_once(monkeypatch):
    from contextlm.megatron import lazy_compile

    compiled = []

    def compiler(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    with lazy_compile.at_first_call():

        @torch.compile
        def double(x: int) -> int:
            """Twice."""
            return 2 * x

        assert torch.compile is not compiler
    assert torch.compile is compiler and compiled == [] and double.__doc__ == "Twice."
    assert (double(2), double(3), len(compiled)) == (4, 6, 1)
