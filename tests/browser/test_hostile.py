"""Texts that would like to be markup stay texts: in prompts, answers, tokens, names of models, heads and files.

The check is itself checked: the same page with one of its escapes turned off must fail it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, PackageLoader
from playwright.sync_api import expect

import report.page
import report.text
from report.page import write_report
from tests.browser.conftest import OpenTab, Tab
from tests.browser.run_folder import Made, Words, make_rollouts, whole, write_run

pytestmark = pytest.mark.slow

IMAGE = '<img src=x onerror="window.pwned=1">'
MARKUP = (
    "<script>window.pwned=1;alert(1)</script>",
    "</script><script>window.pwned=1</script>",
    "</SCRIPT ><img src=x onerror=window.pwned=1>",
    IMAGE,
    "<svg/onload=window.pwned=1><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    '<a href="javascript:window.pwned=1">a</a> [a](javascript:window.pwned=1)',
    "<!-- <script> --!><script>window.pwned=1</script>",
    "<!--<script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "</title></textarea></noscript></template><script>window.pwned=1</script>",
    '" onmouseover="window.pwned=1" autofocus onfocus="window.pwned=1" x="',
    "' onmouseover='window.pwned=1' autofocus onfocus='window.pwned=1' x='",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<object data='javascript:window.pwned=1'></object><embed src='javascript:window.pwned=1'>",
    "<form action='javascript:window.pwned=1'><button autofocus>a</button></form>",
    "<base href='https://example.org/'><meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<link rel=stylesheet href='https://example.org/a.css'><style>*{display:none}</style>",
    "{{7*7}} {% raw %} ${7*7} #{7*7} <%= 7*7 %>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#60;img src=x onerror=window.pwned=1&#62;",
    "$\\href{javascript:window.pwned=1}{x}$ \\u003cscript\\u003e",
    '\\"};window.pwned=1;//',
)
"""Each is shown as it is."""

INVISIBLE = "\u202e\u202c\u2066\u2069\u200f\u2028\u2029\ufeff\u200b\x00\x1b\x7f\u0085\U000e0041"
STRANGE = (
    "\u202egnp.exe\u202c \u2066turned\u2069 \u200fright",
    "a\u2028b\u2029c\u0085d\ufeffe\u200bf",
    "nul\x00 escape\x1b[31m delete\x7f tag\U000e0041",
    "half a pair \ud800 and \udfff",
    "__proto__",
    "constructor",
    "../../etc/passwd%2e#?&=+",
)
"""What acts without being seen is written out; names that objects have already are names."""

FOREIGN = "img, iframe, object, embed, base, link, form:not(#filters), svg[onload], animate, a[href^='javascript:' i]"
HANDLERS = ("onerror", "onload", "onmouseover", "onfocus", "onbegin", "autofocus", "srcdoc")


def hostile_rollouts() -> list[Made]:
    """Sixteen good ones, then every bad text in every place of its own rollout."""
    good = make_rollouts(16)
    bad = [
        Made(text, text, f"Thinking {text} of it.", f"Here it is: {text}", good[n % 8].outcome, text, text)
        for n, text in enumerate(MARKUP)
    ]
    # Half a surrogate pair cannot stand in Parquet, in which the ids are too.
    strange = [
        Made(
            whole(text),
            text,
            f"Thinking {text} of it.",
            f"Here it is: {text}",
            "complied",
            text,
        )
        for text in STRANGE
    ]
    return good + bad + strange


def hostile_words() -> Words:
    return Words(
        model=f"model {MARKUP[1]} {STRANGE[0]}",
        evidence=f"Cliff: {MARKUP[0]} {MARKUP[3]}",
        command=f"cliffscope demo --out '{MARKUP[10]}' {MARKUP[1]}",
        head="{layer}.{head}" + IMAGE,
        variant=IMAGE.replace('"', "'"),  # a file's name
    )


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("hostile") / "run", hostile_rollouts(), hostile_words())


@pytest.fixture(scope="module")
def hostile_report(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    told = write_report(hostile_run, out)
    assert told["rollouts"] == len(hostile_rollouts()) and not told["broken"]
    return out


def signs(tab: Tab) -> set[str]:
    """What in the page shows that a text was taken for markup: `executed`, `elements`, `handlers`, …; best is none."""
    page = tab.page
    found = {
        "executed": page.evaluate("typeof window.pwned !== 'undefined'") or bool(tab.dialogs),
        "elements": page.locator(FOREIGN).count() > 0,
        "handlers": page.locator(", ".join(f"[{name}]" for name in HANDLERS)).count() > 0,
        "scripts": page.evaluate("[...document.scripts].some(s => s.type === '' && s.textContent.includes('pwned'))"),
        "computed": "4949" in page.evaluate("document.body.textContent.replaceAll(' ', '')"),
        "requests": bool(tab.foreign),
        "errors": bool(tab.problems),
    }
    return {name for name, is_so in found.items() if is_so}


OPEN_ROWS = """async () => {
    let opened = 0;
    for (const button of document.querySelectorAll("#rollouts tbody tr button")) {
        const id = button.closest("tr").dataset.id;
        document.getElementById("sides").replaceChildren();
        button.click();
        while (document.querySelector("#sides .token") === null) await new Promise(go => setTimeout(go, 5));
        for (const token of document.querySelectorAll("#sides .token")) {
            token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
        }
        if (document.getElementById("rollout-title").textContent === id) opened += 1;
    }
    return opened;
}"""
"""Opens every rollout of the table's page with what stands beside it, and points at each of its tokens."""


def look_everywhere(tab: Tab) -> None:
    """Lets figures be drawn, filters, and opens every rollout."""
    page = tab.page
    page.locator("#rollouts tbody tr").first.wait_for()
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
    page.select_option("#outcome", "complied")
    page.select_option("#outcome", "")
    expect(page.locator("#count")).to_have_text(re.compile(f"^{len(hostile_rollouts())} of"))
    opened = page.evaluate(OPEN_ROWS)
    while page.locator("#page-on").is_enabled():
        page.click("#page-on")
        opened += page.evaluate(OPEN_ROWS)
    assert opened == len(hostile_rollouts())


def test_every_hostile_text_stays_a_text(open_tab: OpenTab, hostile_report: Path) -> None:
    tab = open_tab(hostile_report)
    look_everywhere(tab)
    assert signs(tab) == set()


def test_without_its_policy_the_page_is_as_safe(
    open_tab: OpenTab, hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        report.page, "_policy", lambda *scripts: "default-src * 'unsafe-inline' 'unsafe-eval' data: blob:"
    )
    out = tmp_path / "report.html"
    write_report(hostile_run, out)
    tab = open_tab(out)
    look_everywhere(tab)
    assert signs(tab) == set()


def test_hostile_texts_are_there_to_be_read(open_tab: OpenTab, hostile_report: Path) -> None:
    page = open_tab(hostile_report).page
    page.select_option("#sort", "id 1")
    titles = page.locator("#rollouts thead button").all_inner_texts()
    shown: dict[str, dict[str, str]] = {}
    while True:
        rows = page.locator("#rollouts tbody tr").evaluate_all(
            "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
        )
        shown |= {cells[0]: dict(zip(titles, cells, strict=True)) for cells in rows}
        if not page.locator("#page-on").is_enabled():
            break
        page.click("#page-on")
    for text in MARKUP:
        assert text in shown and shown[text]["category"] == shown[text]["prompt"] == text
    assert "__proto__" in shown and "constructor" in shown
    for text in (MARKUP[1], "__proto__", "constructor"):
        page.fill("#search", text)
        expect(page.locator("#rollouts tbody tr").first).to_contain_text(text)
        page.locator("#rollouts tbody tr button").first.click()
        expect(page.locator("#rollout-title")).to_have_text(text)
        page.locator("#sides .token").first.wait_for()
        page.uncheck("#spaces")
        words = (
            page.locator("#sides .side").first.locator(".token").evaluate_all("t => t.map(x => x.textContent).join('')")
        )
        assert f"Here it is: {text}" in words
    whole = page.evaluate("document.documentElement.textContent")
    assert not [f"U+{ord(char):04X}" for char in INVISIBLE if char in whole]
    assert "⟦U+202E⟧gnp.exe" in page.locator("h1").inner_text()
    assert MARKUP[0] in page.locator("#verdict").inner_text()
    assert MARKUP[1] in page.locator("#provenance .command code").inner_text()


Break = Callable[[pytest.MonkeyPatch], None]


def _template_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    def template() -> Any:
        raw = Environment(loader=PackageLoader("report", "templates"), autoescape=False, trim_blocks=True)
        return raw.get_template("report.html.jinja")

    monkeypatch.setattr(report.page, "_template", template)


def _data_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.text, "_IN_SCRIPT", {})


def _elements_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    asset = report.page._asset

    def as_markup(name: str) -> str:
        return asset(name).replace("made.textContent = text", "made.innerHTML = text")

    assert as_markup("data.js") != asset("data.js")
    monkeypatch.setattr(report.page, "_asset", as_markup)


BREAKS: dict[str, Break] = {"template": _template_raw, "data": _data_raw, "elements": _elements_raw}


@pytest.mark.parametrize("escape", BREAKS)
def test_with_an_escape_turned_off_the_check_fails(
    open_tab: OpenTab, hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, escape: str
) -> None:
    BREAKS[escape](monkeypatch)
    monkeypatch.setattr(
        report.page, "_policy", lambda *scripts: "default-src * 'unsafe-inline' 'unsafe-eval' data: blob:"
    )
    out = tmp_path / "report.html"
    write_report(hostile_run, out)
    tab = open_tab(out, faulty=True)
    tab.page.wait_for_timeout(500)  # an image that does not load says so a little later
    assert "executed" in signs(tab)


@pytest.mark.parametrize("escape", BREAKS)
def test_with_an_escape_turned_off_the_policy_still_stops_scripts(
    open_tab: OpenTab, hostile_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, escape: str
) -> None:
    BREAKS[escape](monkeypatch)
    out = tmp_path / "report.html"
    write_report(hostile_run, out)
    tab = open_tab(out, faulty=True)
    tab.page.wait_for_timeout(500)
    found = signs(tab)
    assert "executed" not in found and found & {"elements", "handlers", "errors"}


def test_a_rollout_by_another_name_does_not_break_the_address(open_tab: OpenTab, hostile_report: Path) -> None:
    page = open_tab(hostile_report).page
    for id in ("../../etc/passwd%2e#?&=+", MARKUP[3]):
        page.fill("#search", id)
        row = page.locator("#rollouts tbody tr", has_text=id).first
        row.locator("button").click()
        expect(page.locator("#rollout-title")).to_have_text(id)
        address = page.url.split("#", 1)[1]
        other = open_tab(hostile_report, f"#{address}").page
        expect(other.locator("#rollout-title")).to_have_text(id)


def test_the_run_is_as_hostile_as_it_says(hostile_run: Path) -> None:
    rows = [json.loads(line) for line in (hostile_run / "rollouts.jsonl").read_text(encoding="ascii").splitlines()]
    texts = {row["prompt"] for row in rows}
    assert set(MARKUP) | set(STRANGE) <= texts
    assert replace(hostile_words(), variant="").model.startswith("model </script>")
    assert [path.name for path in hostile_run.glob("rollouts-*.jsonl")] == [
        "rollouts-<img src=x onerror='window.pwned=1'>.jsonl"
    ]
