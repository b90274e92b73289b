"""Settings of all tests: offline, seeded by each test, shapes in signatures checked at run time."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis

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


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but no longer sought among what the imports have made."""
    gc.collect()
    gc.freeze()
    gc.enable()
