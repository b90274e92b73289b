"""Where there is no browser the tests are skipped with advice, and on CI they fail; what a page does wrong is seen."""

import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import NAMES, NEEDED, PROGRAM, OpenTab, find_chromium, without_browser


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_browser_is_looked_for_by_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRAM, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_chromium() is None
    named = program(tmp_path, NAMES[2])
    assert find_chromium() == str(named)
    mine = program(tmp_path, "mine")
    monkeypatch.setenv(PROGRAM, str(mine))
    assert find_chromium() == str(mine)
    monkeypatch.setenv(PROGRAM, str(tmp_path / "none"))
    assert find_chromium() is None


def test_without_one_tests_are_skipped_with_advice_and_where_one_is_needed_they_fail() -> None:
    for quiet in ({}, {NEEDED: ""}, {NEEDED: "false"}):
        with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
            without_browser(quiet)
    for loud in ({NEEDED: "true"}, {NEEDED: "1"}):
        with pytest.raises(pytest.fail.Exception, match="must run"):
            without_browser(loud)
    with pytest.raises(pytest.skip.Exception, match=f"{PROGRAM}=nowhere is no program"):
        without_browser({PROGRAM: "nowhere"})


@pytest.mark.parametrize(
    ("there", "root", "installs"), [(True, True, False), (False, True, True), (False, False, True)]
)
def test_ci_installs_a_browser_where_there_is_none(tmp_path: Path, there: bool, root: bool, installs: bool) -> None:
    """`.ci/run` with every program that it calls replaced by one that writes down how it was called."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "bash").symlink_to("/bin/bash")
    for name in ("make", "apt-get", "sudo", "env", *(["chromium"] if there else [])):
        passes_on = '[ "$1" = -n ] && shift; exec "$@"' if name == "sudo" else ""
        if name == "env":
            passes_on = 'shift; exec "$@"'
        script = f'#!/bin/bash\necho "{name} $* needed=${NEEDED}" >> "{tmp_path}/calls"\n{passes_on}\n'
        program(bin, name).write_text(script, encoding="utf-8")
    program(bin, "id").write_text(f"#!/bin/bash\necho {0 if root else 1000}\n", encoding="utf-8")
    (bin / "dirname").symlink_to("/usr/bin/dirname")
    run = Path(__file__).parents[2] / ".ci" / "run"
    subprocess.run(["/bin/bash", str(run)], env={"PATH": str(bin)}, check=True, capture_output=True)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[-1] == "make test needed=1"
    installed = [call for call in calls if call.startswith("apt-get install") and " chromium " in call]
    assert bool(installed) == installs
    assert any(call.startswith("sudo -n ") for call in calls) == (installs and not root)


def test_what_a_page_does_wrong_is_seen(open_tab: OpenTab, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><img src='https://example.org/a.png'>"
        "<script>console.error('bad'); alert('hello'); throw new Error('worse');</script>",
        encoding="utf-8",
    )
    tab = open_tab(page, faulty=True)
    assert tab.foreign == ["https://example.org/a.png"] and tab.dialogs == ["hello"]
    assert any("bad" in problem for problem in tab.problems) and any("worse" in problem for problem in tab.problems)
