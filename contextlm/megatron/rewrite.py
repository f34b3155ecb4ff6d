"""Replace literal pieces of a megatron-core function, in place, or fail loudly.

The function object stays the same and only its `__code__` changes, so modules that imported the function
by name see the mend too. Every piece must occur exactly as often as the mend was written for: a newer
megatron-core stops here, with the name of the function, and not later with a wrong number.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

_REWRITTEN = "_contextlm_rewritten"


class SourceChanged(RuntimeError):
    """A megatron-core function is not the one that a mend was written for."""


def rewrite(function: Callable[..., Any], edits: Mapping[str, tuple[str, int]]) -> None:
    """Apply `edits` to the source of `function` and install the result in place.

    Args:
        function: a function, method or classmethod, decorated or not.
        edits: piece of source -> (replacement, number of times the piece must occur).

    Raises:
        SourceChanged: a piece does not occur that often; nothing was changed.
    """
    plain = inspect.unwrap(getattr(function, "__func__", function))
    assert isinstance(plain, FunctionType)
    done = plain.__dict__.setdefault(_REWRITTEN, set())
    wanted = {piece: edit for piece, edit in edits.items() if piece not in done}
    if not wanted:
        return
    assert not done, f"{plain.__qualname__} was rewritten before: give all edits in one call"
    lines, first_line = inspect.getsourcelines(plain)
    source = textwrap.dedent("".join(lines))
    for piece, (replacement, count) in wanted.items():
        found = source.count(piece)
        if found != count:
            raise SourceChanged(
                f"{plain.__module__}.{plain.__qualname__}: expected {piece!r} {count} time(s), found {found}; "
                "this mend was written for megatron-core 0.16.1: check whether the mend is still needed"
            )
        source = source.replace(piece, replacement)
    plain.__code__ = _compile(source, first_line, plain)
    done.update(wanted)


def _compile(source: str, first_line: int, original: FunctionType) -> CodeType:
    """The code object of the function in `source`, with the closure variables of `original`."""
    tree = ast.parse(source)
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    ast.increment_lineno(tree, first_line - 1)
    # An enclosing function that has the closure's names as arguments turns them into free variables again
    # (`__class__` of a zero-argument super() among them).
    names = [ast.arg(arg=name) for name in original.__code__.co_freevars]
    enclosing = ast.parse("def enclosing(): pass").body[0]
    assert isinstance(enclosing, ast.FunctionDef)
    enclosing.args.args, enclosing.body = names, [definition]
    module = compile(
        ast.fix_missing_locations(ast.Module(body=[enclosing], type_ignores=[])),
        original.__code__.co_filename,
        "exec",
    )
    outer = _nested_code(module, "enclosing")
    code = _nested_code(outer, original.__code__.co_name)
    assert code.co_freevars == original.__code__.co_freevars
    return code


def _nested_code(code: CodeType, name: str) -> CodeType:
    """The code object called `name` among the constants of `code`."""
    return next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)
