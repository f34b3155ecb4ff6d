"""Which rows the compiler reads once (contextlm/model/whole_rows.py); that a GPU's kernels do so is for tests/gpu."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import sympy
from torch._inductor import config
from torch._inductor.choices import InductorChoices
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.sizevars import SizeVarAllocator
from torch._inductor.virtualized import V

from contextlm.model.whole_rows import WholeRows, has_place, read_rows_once


def is_read_once(choices: type[InductorChoices], columns: int, hint: ReductionHint = ReductionHint.INNER) -> bool:
    features = SimpleNamespace(
        get_reduction_hint=lambda: hint, reduction_numel=sympy.Integer(columns), numel=sympy.Integer(4096)
    )
    with V.set_graph_handler(SimpleNamespace(sizevars=SizeVarAllocator())):
        return bool(choices.should_use_persistent_reduction(features, False))


@pytest.mark.parametrize(
    ("columns", "stock", "ours"),
    [(768, True, True), (1024, True, True), (1600, False, True), (2048, False, True), (2049, False, False)],
)
def test_rows(columns, stock, ours):
    assert is_read_once(InductorChoices, columns) == stock
    assert is_read_once(WholeRows, columns) == ours


def test_columns_are_left_as_they_are():
    assert not is_read_once(WholeRows, 1600, ReductionHint.OUTER)


@pytest.mark.parametrize(("there", "then"), [(None, WholeRows), (InductorChoices, InductorChoices)])
def test_it_is_applied_and_nobody_elses_choice_replaced(there, then):
    if not has_place():
        read_rows_once()  # and nothing happens
        return
    # Both put back what is there now.
    with config.patch(inductor_choices_class=there), V.set_choices_handler(InductorChoices()):
        read_rows_once()
        assert config.inductor_choices_class is type(V.choices) is then
