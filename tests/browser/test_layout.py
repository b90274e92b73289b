"""The page at three widths, dark and light, and on paper; its pictures are kept for people to look at."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenTab

WIDTHS = {"phone": 360, "tablet": 820, "desktop": 1400}


def draw_all(page: Any) -> None:
    """Has every figure drawn that is to be seen."""
    page.locator("#rollouts tbody tr").first.wait_for()
    for plot in page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        plot.locator("svg.main-svg").first.wait_for()
    page.evaluate("scrollTo(0, 0)")


def too_wide(page: Any) -> list[str]:
    """What makes the page scroll sideways: elements that stick out and are in no box that scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            const boxed = (e) => e.closest(".scroll, .tokens, .plot") !== null && !e.matches(".scroll, .tokens, .plot");
            return [...document.querySelectorAll("body *")]
                .filter(e => e.getBoundingClientRect().right > width + 1 && !boxed(e))
                .map(e => e.outerHTML.slice(0, 120)).concat(`${document.documentElement.scrollWidth} > ${width}`);
        }"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out(open_tab: OpenTab, report: Path, pictures: Path, width: str, scheme: str) -> None:
    page = open_tab(report, width=WIDTHS[width], color_scheme=scheme).page
    draw_all(page)
    assert too_wide(page) == []
    page.screenshot(path=pictures / f"report-{width}-{scheme}.png", full_page=True)
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#sides .token").first.wait_for()
    page.click("#to-edge")
    assert too_wide(page) == []
    picture = pictures / f"rollout-{width}-{scheme}.png"
    page.locator("#rollout").screenshot(path=picture)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(("width", "height"), [(360, 640), (820, 600), (1400, 800)])
def test_the_edge_is_in_view_after_the_jump(open_tab: OpenTab, report: Path, width: int, height: int) -> None:
    page = open_tab(report, viewport={"width": width, "height": height}, reduced_motion="reduce").page
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#sides .token").first.wait_for()
    page.click("#to-edge")
    edge = page.locator("#sides .side").first.locator(".token.edge")
    expect(edge).to_be_in_viewport()
    # Seen, not only inside the window: neither scrolled out of its box nor behind what sticks to the bottom.
    hit = edge.evaluate(
        """token => {
            const box = token.getBoundingClientRect();
            return document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2) === token;
        }"""
    )
    assert hit and "the edge" in page.locator("#readout").inner_text()


def test_buttons_are_large_enough_for_a_finger(open_tab: OpenTab, report: Path) -> None:
    page = open_tab(report, width=WIDTHS["phone"], has_touch=True).page
    page.locator("#rollouts tbody tr button").first.tap()
    page.locator("#sides .token").first.wait_for()
    heights = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input[type=search]")]
            .filter(e => e.offsetParent !== null)
            .map(e => [Math.round(e.getBoundingClientRect().height), e.id || e.textContent])"""
    )
    assert len(heights) > 20
    assert [entry for entry in heights if entry[0] < 24] == []  # WCAG 2.2, target size (minimum)


def test_it_prints(open_tab: OpenTab, report: Path, pictures: Path) -> None:
    page = open_tab(report).page
    draw_all(page)
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#sides .token").first.wait_for()
    paper = pictures / "report.pdf"
    page.pdf(path=paper, format="A4", print_background=True)
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-")
    sheets = max(int(count) for count in re.findall(rb"/Count (\d+)", content))
    assert 2 <= sheets <= 12
    page.emulate_media(media="print")
    for hidden in ("nav", "#filters", ".pager", "#rollouts", ".buttons", "button.copy"):
        assert page.locator(f"{hidden}:visible").count() == 0, hidden
    for shown in ("#verdict h2", "#trajectories .plot", "#rollout-title", "#sides .token", "#provenance table"):
        assert page.locator(shown).first.is_visible(), shown


def test_without_scripts_it_says_what_it_lacks(open_tab: OpenTab, report: Path) -> None:
    page = open_tab(report, java_script_enabled=False).page
    expect(page.locator("noscript p")).to_contain_text("need JavaScript")
    assert "Cliff: over the complied rollouts" in page.locator("#verdict").inner_text()
