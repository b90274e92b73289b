"""Settings of all tests: offline, seeded by each test, shapes in signatures checked at run time."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest

from tests import shapes

# Before anything of the packages is imported.
PACKAGES = ["interp", "probes", "interventions", "circuits", "selection", "cliffbench", "report"]
shapes.install(PACKAGES)

# How long an example takes tells how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "tests", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

# Imports make hundreds of thousands of objects that stay; looking through them for garbage is a third of their time.
gc.disable()

LONGEST = (
    "tests/test_demo.py",
    "tests/notebooks/",
    "tests/docs/",
    "tests/browser/",
    "tests/cli/test_heads.py",
    "tests/cli/test_select.py",
    "tests/interp/organisms/test_behaviour.py",
    "tests/interp/organisms/test_training.py",
    "tests/cliffbench/",
    "tests/probes/test_nulls.py",
    "tests/selection/evaluation/test_run.py",
    "tests/interventions/latents/",
    "tests/selection/repair/",
    "tests/interventions/masks/",
    "tests/cli/",
    "tests/circuits/",
)
"""Files and folders that take minutes, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: begun last, it would keep one process busy while the others have ended."""

    def place(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but no longer sought among what the imports have made."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the processes of a run find what another one has made: see shared.py."""
    from tests.shared import FOLDER

    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[FOLDER] = str(tmp_path_factory.getbasetemp().parent)
