"""Which versions of TransformerLens and nnsight the tests ran with, in one place."""

import importlib
import importlib.metadata
import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from interp.errors import CliffscopeError


class UntestedVersionWarning(UserWarning):
    """A library has a version that the tests did not run with."""


@dataclass(frozen=True)
class Tested:
    """Versions of a library.

    Attributes:
        distribution: What pip calls it.
        first: The first that was tested.
        below: The first that was not.
        install: What to install to have it.
    """

    distribution: str
    first: tuple[int, int]
    below: tuple[int, int]
    install: str

    def __contains__(self, version: str) -> bool:
        major, minor, *_ = (*version.split("."), "0")
        return self.first <= (int(major), int(minor)) < self.below

    def __str__(self) -> str:
        first, below = (f"{major}.{minor}" for major, minor in (self.first, self.below))
        return f"{self.distribution}>={first},<{below}"


TESTED = {
    "transformer_lens": Tested("transformer-lens", (3, 9), (4, 0), "cliffscope"),
    "nnsight": Tested("nnsight", (0, 8), (0, 9), "cliffscope[nnsight]"),
}
"""By the name that is imported; pyproject.toml asks for the same."""


def require(name: str) -> ModuleType:
    """A library, imported; warns once if its version was not tested.

    Raises:
        CliffscopeError: If it is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        tested = TESTED[name]
        raise CliffscopeError(
            f"{tested.distribution} cannot be imported ({error}); install it: pip install '{tested.install}'."
        ) from error
    _warn_if_untested(name)
    return module


@cache
def _warn_if_untested(name: str) -> None:
    tested = TESTED[name]
    version = importlib.metadata.version(tested.distribution)
    if version not in tested:
        warnings.warn(
            f"{tested.distribution} {version} was not tested with this version of cliffscope, which knows {tested}: "
            "compare some numbers before you rely on it.",
            UntestedVersionWarning,
            stacklevel=4,
        )
