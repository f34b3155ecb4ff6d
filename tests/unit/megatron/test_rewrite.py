"""Replacing pieces of a function's source: in place, exactly, or not at all."""

from __future__ import annotations

import functools
import traceback

import pytest

from contextlm.megatron.rewrite import SourceChanged, rewrite


def test_code_is_replaced_in_place():
    def greet(name, mark="!"):
        return "hello " + name + mark

    imported_elsewhere = greet
    rewrite(greet, {'"hello "': ('"good evening "', 1)})
    assert imported_elsewhere is greet
    assert imported_elsewhere("Ada") == "good evening Ada!"
    assert greet("Ada", mark="?") == "good evening Ada?"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_piece_that_occurs_another_number_of_times_is_refused(count):
    def twice():
        return "a" + "a"

    with pytest.raises(SourceChanged, match=r"twice: expected '\"a\"' \d time\(s\), found 2"):
        rewrite(twice, {'"a"': ('"b"', count)})
    assert twice() == "aa"


def test_nothing_changes_where_one_of_several_pieces_is_missing():
    def answer():
        return 6 * 7

    with pytest.raises(SourceChanged, match="not there"):
        rewrite(answer, {"6": ("5", 1), "not there": ("", 1)})
    assert answer() == 42
    rewrite(answer, {"6": ("5", 1)})
    assert answer() == 35


def test_the_same_edit_again_changes_nothing():
    def count():
        return [1]

    for _ in range(2):
        rewrite(count, {"[1]": ("[1] + [1]", 1)})
    assert count() == [1, 1]


def test_other_edits_later_are_refused():
    def pair():
        return 1, 2

    rewrite(pair, {"1": ("3", 1)})
    with pytest.raises(AssertionError, match="give all edits in one call"):
        rewrite(pair, {"2": ("4", 1)})
    assert pair() == (3, 2)


def test_zero_argument_super_and_closures():
    offset = 100

    class Base:
        def value(self):
            return 1

    class Derived(Base):
        def value(self):
            return super().value() + 10 + offset

    rewrite(Derived.value, {"+ 10": ("+ 20", 1)})
    assert Derived().value() == 121
    assert Base().value() == 1


def test_a_closure_keeps_its_variables_alive():
    def make():
        total = 0

        def add(amount):
            nonlocal total
            total += amount
            return total

        return add

    add = make()
    assert add(5) == 5
    rewrite(add, {"total += amount": ("total += 2 * amount", 1)})
    assert add(5) == 15


def test_class_methods_and_decorated_functions():
    def loud(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args).upper()

        return wrapper

    class Speaker:
        @classmethod
        def name(cls):
            return cls.__name__ + " a"

        @loud
        def word(self):
            return "quiet"

    rewrite(Speaker.name, {'" a"': ('" b"', 1)})
    rewrite(Speaker.word, {'"quiet"': ('"silent"', 1)})
    assert Speaker.name() == "Speaker b"
    assert Speaker().word() == "SILENT"


def test_tracebacks_still_point_at_the_source():
    def fail():
        unused = "a"
        raise ValueError(unused)

    rewrite(fail, {'"a"': ('"b"', 1)})
    with pytest.raises(ValueError, match="b") as error:
        fail()
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert last.filename == __file__
    assert last.line == "raise ValueError(unused)"
