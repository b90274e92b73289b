"""Run-time checks of signatures under pytest: beartype, but for names imported for type checkers alone.

And jaxtyping's import hook without what makes it slow: it binds the arguments of every call, to tell the shapes in it
from those outside, and compiles anew whatever other library is imported by a module of ours. Here only a function with
shapes in its signature is wrapped so; any other is checked by beartype alone.
"""

import functools
import typing
from collections.abc import Callable, Iterable
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any
from unittest.mock import patch

import jaxtyping
import jaxtyping._import_hook as import_hook
from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def install(packages: Iterable[str]) -> None:
    """Checks all functions of packages, which must not have been imported yet."""
    jaxtyping.jaxtyped = _shapes_checked
    import_hook._JaxtypingLoader.get_code = _own_code_only
    import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
    jaxtyping.install_import_hook(list(packages), f"{__name__}.typechecked")


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype with the hints that cannot be resolved at run time left out."""
    hints = function.__annotations__
    for name in [name for name, hint in hints.items() if not _resolves(hint, function.__globals__)]:
        del hints[name]
    return typing.cast(Callable[..., Any], _check(function))


def _shapes_checked(thing: Any = None, *, typechecker: Any) -> Any:
    """What the import hook calls on each class and function."""
    if thing is None:
        return lambda thing: _shapes_checked(thing, typechecker=typechecker)
    if isinstance(thing, type) or not hasattr(thing, "__annotations__"):
        return _jaxtyped(thing, typechecker=typechecker)
    if any(_has_shapes(hint, thing.__globals__) for hint in thing.__annotations__.values()):
        return _jaxtyped(thing, typechecker=typechecker)
    return typechecker(thing)


def _has_shapes(hint: Any, names: dict[str, Any]) -> bool:
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        try:
            hint = eval(hint, names)
        except (NameError, AttributeError, TypeError):
            return "[" in hint  # perhaps; if it cannot be resolved later either, it is not checked
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    if typing.get_origin(hint) is typing.Literal:
        return False
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return any(_has_shapes(part, names) for part in parts)


def _own_code_only(loader: Any, name: str) -> CodeType | None:
    """A module's code, with the hook's own name of compiled files for it alone and not for what it imports."""
    cache = functools.partial(import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", cache):
        return typing.cast("CodeType | None", SourceFileLoader.get_code(loader, name))


def _resolves(hint: Any, names: dict[str, Any]) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    # Methods are decorated alone, and do not know their class.
    if hint is typing.Self:
        return False
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        try:
            eval(hint, names)
        except (NameError, AttributeError, TypeError):
            return False
        return True
    # A protocol that cannot be checked by isinstance.
    if getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False):
        return False
    return all(_resolves(part, names) for part in typing.get_args(hint) if not isinstance(part, list | tuple))
