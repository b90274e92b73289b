"""Python files that add methods or mechanisms of one's own to the bench."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from interp.errors import CliffscopeError


def load_additions(paths: Sequence[Path]) -> None:
    """Runs files, each once in a process: what they put among the methods or mechanisms is there afterwards.

    Raises:
        CliffscopeError: If a file is missing or fails.
    """
    for path in paths:
        name = f"cliffbench_addition_{abs(hash(str(path.resolve())))}"
        if name in sys.modules:
            continue
        if not path.is_file():
            raise CliffscopeError(f"{path}: no such file.")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise CliffscopeError(f"{path}: not a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise CliffscopeError(f"{path}: {type(error).__name__}: {error}") from error
