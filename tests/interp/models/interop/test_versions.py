"""Tested versions are declared once, a version outside them warns once, and a missing library is named."""

import importlib.metadata
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from interp.errors import CliffscopeError
from interp.models.interop import versions
from interp.models.interop.versions import TESTED, UntestedVersionWarning, require
from tests.interp.models.interop.material import hooked

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No warning has been given yet, before and after."""
    versions._warn_if_untested.cache_clear()
    yield
    versions._warn_if_untested.cache_clear()


def test_the_project_asks_for_what_was_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, wanted in (
        ("transformer_lens", project["dependencies"]),
        ("nnsight", project["optional-dependencies"]["nnsight"]),
    ):
        tested = TESTED[name]
        above = f"{tested.below[0]}.{tested.below[1]}".removesuffix(".0")
        assert f"{tested.distribution}>={tested.first[0]}.{tested.first[1]},<{above}" in wanted


def test_what_is_installed_was_tested() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in sorted(TESTED):
            require(name)


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        ("0.7.9", False),
        ("0.8", True),
        ("0.8.3", True),
        ("0.8.0rc1", True),
        ("0.9.0", False),
        ("1.0", False),
        ("2", False),
    ],
)
def test_versions_outside_the_range_warn_once(version: str, tested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda distribution: version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            hooked("llama").as_nnsight()
    told = [warning for warning in caught if issubclass(warning.category, UntestedVersionWarning)]
    assert len(told) == (0 if tested else 1)
    if told:
        assert f"nnsight {version} was not tested" in str(told[0].message)
        assert "nnsight>=0.8,<0.9" in str(told[0].message)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", None)
    with pytest.raises(
        CliffscopeError, match=r"nnsight cannot be imported .*pip install 'cliffscope\[nnsight\]'"
    ) as told:
        hooked("llama").as_nnsight()
    assert "\n" not in str(told.value)
