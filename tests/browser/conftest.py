"""A real browser for the pages that the project writes: Chromium without a window, on `file:` addresses only.

Set CLIFFSCOPE_CHROMIUM to a program to use that one, and CLIFFSCOPE_SCREENSHOTS to a folder to keep the pictures.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from report.page import write_report
from tests.browser.run_folder import Made, make_rollouts, write_run

PROGRAM = "CLIFFSCOPE_CHROMIUM"
NEEDED = "CLIFFSCOPE_NEEDS_BROWSER"
"""Where this is set, as in `.ci/run`, a missing browser is a failure."""
PICTURES = "CLIFFSCOPE_SCREENSHOTS"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL = ("file:", "data:", "blob:", "about:")
PATIENCE = 20_000
"""Milliseconds: a page that is right needs far fewer, but the machine may be busy."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


def find_chromium() -> str | None:
    """The program to run, if there is one."""
    given = os.environ.get(PROGRAM)
    names = NAMES if given is None else (given,)
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


def without_browser(environment: os._Environ[str] | dict[str, str]) -> None:
    """Skips the test; where nobody would see that it was skipped, fails it."""
    given = environment.get(PROGRAM)
    what = "Chromium is not installed" if given is None else f"{PROGRAM}={given} is no program"
    words = f"{what}: install it (Debian: apt-get install chromium), or set {PROGRAM} to its path."
    if environment.get(NEEDED, "").lower() in ("", "0", "false"):
        pytest.skip(words)
    pytest.fail(f"{words} With {NEEDED} set the browser's tests must run.", pytrace=False)


@dataclass
class Tab:
    """An open page, and what it did that it should not.

    Attributes:
        page: The page.
        problems: Errors on its console or of its scripts.
        requests: Addresses that it asked for.
        dialogs: What it showed in a dialog.
    """

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dialog)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    @property
    def foreign(self) -> list[str]:
        """Addresses outside the file."""
        return [url for url in self.requests if not url.startswith(LOCAL)]

    @property
    def faults(self) -> list[str]:
        return [*self.problems, *self.foreign, *self.dialogs]


OpenTab = Callable[..., Tab]


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One browser for all tests of this folder, closed behind the last: its event loop would be in others' way."""
    program = find_chromium()
    if program is None:
        without_browser(os.environ)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def open_tab(browser: Any) -> Iterator[OpenTab]:
    """Opens a file in a fresh page; afterwards no page may have complained or asked for anything outside itself."""
    opened: list[tuple[Tab, Any, bool]] = []

    def open_file(path: Path, hash: str = "", *, faulty: bool = False, width: int = 1400, **options: Any) -> Tab:
        options = {"viewport": {"width": width, "height": 900}, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        # Nothing is there, and a page that wants to go there stays; it is told among the requests.
        context.route(re.compile("^(http|ws)s?:"), lambda route: route.fulfill(status=204))
        tab = Tab(context.new_page())
        tab.watch()
        opened.append((tab, context, faulty))
        tab.page.goto(path.resolve().as_uri() + hash)
        return tab

    yield open_file
    faults = [fault for tab, _, faulty in opened if not faulty for fault in tab.faults]
    for _, context, _ in opened:
        context.close()
    assert not faults


@pytest.fixture(scope="session")
def rollouts() -> list[Made]:
    return make_rollouts(40, thinking_words=120)


@pytest.fixture(scope="session")
def run(rollouts: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    return write_run(tmp_path_factory.mktemp("run") / "run", rollouts)


@pytest.fixture(scope="session")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, in a folder of its own: it needs nothing beside it."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(run, out)
    return out


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go."""
    kept = os.environ.get(PICTURES)
    folder = Path(kept) if kept else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
