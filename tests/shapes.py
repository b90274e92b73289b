"""Run-time checks of signatures under pytest: beartype, but for names imported for type checkers alone."""

import typing
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype with the hints that cannot be resolved at run time left out."""
    hints = function.__annotations__
    for name in [name for name, hint in hints.items() if not _resolves(hint, function.__globals__)]:
        del hints[name]
    return typing.cast(Callable[..., Any], _check(function))


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
