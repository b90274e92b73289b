"""The explorer of rollouts as its readers use it: sort, filter, open, jump to the edge, set beside, send on."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenTab
from tests.browser.run_folder import Made

READOUT = re.compile(r"token (\d+) of (\d+), (\w+)(, the edge)?: .* — refusal score ([\d.]+)")
HALF_A_DIGIT, HALF_A_STEP = 0.005, 0.002
"""The page shows two digits of scores that it holds to 1/254."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]


def worst_of(run: Path) -> pd.Series:
    """The rollout with the largest cliff, from the table itself."""
    cliffs = pd.read_parquet(run / "cliff.parquet")
    return cliffs.loc[cliffs["cliff"].idxmax()]


def ids_shown(page: Any) -> list[str]:
    return [str(id) for id in page.locator("#rollouts tbody tr").evaluate_all("rows => rows.map(r => r.dataset.id)")]


def count_shown(page: Any) -> int:
    return int(page.locator("#count").inner_text().split(" of ")[0].replace(",", ""))


def counted(page: Any, count: int) -> None:
    """Waits until so many rollouts are told."""
    expect(page.locator("#count")).to_have_text(re.compile(f"^{count} of"))


def opened(page: Any, id: str) -> None:
    """Waits until this rollout is open."""
    expect(page.locator("#rollout-title")).to_have_text(id)
    expect(page.locator("#rollout")).to_be_visible()


def all_ids(page: Any) -> list[str]:
    """Those of all pages of the table."""
    found = ids_shown(page)
    while page.locator("#page-on").is_enabled():
        page.click("#page-on")
        found += ids_shown(page)
    return found


def edge_of(run: Path, id: str, scores: str = "scores.parquet") -> tuple[int, float]:
    """Index and score of the last close token, from the table itself."""
    table = pd.read_parquet(run / scores)
    close = table[(table["id"] == id) & (table["segment"] == "close")].sort_values("token_index").iloc[-1]
    return int(close["token_index"]), float(close["score"])


def read_out(page: Any) -> tuple[int, float, bool]:
    """What the page says of the token in focus: its index, its score, whether it is the edge."""
    found = READOUT.fullmatch(page.locator("#readout").inner_text())
    assert found is not None, page.locator("#readout").inner_text()
    return int(found[1]) - 1, float(found[5]), found[4] is not None


def test_it_loads_alone(open_tab: OpenTab, report: Path) -> None:
    tab = open_tab(report)
    tab.page.locator("#rollouts tbody tr").first.wait_for()
    for plot in tab.page.locator(".plot:visible").all():  # figures are drawn when they come into view
        plot.scroll_into_view_if_needed()
        plot.locator("svg.main-svg").first.wait_for()
    assert tab.requests == [report.resolve().as_uri()]


def test_the_largest_cliff_is_the_first_row(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    order = pd.read_parquet(run / "cliff.parquet").sort_values("cliff", ascending=False)["id"].tolist()
    assert all_ids(page) == order
    page.select_option("#sort", "cliff 1")
    assert all_ids(page) == order[::-1]
    page.locator("#rollouts thead button", has_text="edge").click()
    assert ids_shown(page)[0] == pd.read_parquet(run / "cliff.parquet").set_index("id")["edge"].idxmax()
    assert page.locator("#rollouts thead th", has_text="edge").get_attribute("aria-sort") == "descending"


def test_the_worst_rollout_and_its_edge_are_two_clicks_away(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    page.locator("#rollouts tbody tr button").first.click()
    page.click("#to-edge")
    worst = worst_of(run)
    index, score = edge_of(run, worst["id"])
    assert page.locator("#rollout-title").inner_text() == worst["id"]
    shown, value, is_edge = read_out(page)
    assert (shown, is_edge) == (index, True)
    assert abs(value - score) <= HALF_A_DIGIT + HALF_A_STEP and abs(score - worst["edge"]) < 1e-6
    focused = page.evaluate(
        "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.dataset.at"
    )
    assert int(focused) == index
    facts = page.locator("#rollout-facts").inner_text()
    assert f"{worst['cliff']:.3f}" in facts and f"{worst['plateau']:.3f}" in facts


@pytest.mark.parametrize("outcome", ["complied", "refused", "benign", "benign_refused"])
def test_outcomes_filter(open_tab: OpenTab, report: Path, rollouts: list[Made], outcome: str) -> None:
    page = open_tab(report).page
    page.select_option("#outcome", outcome)
    wanted = {one.id for one in rollouts if one.outcome == outcome}
    counted(page, len(wanted))
    assert set(all_ids(page)) == wanted


def test_categories_and_texts_filter_together_and_reset(open_tab: OpenTab, report: Path, run: Path) -> None:
    page, rows = open_tab(report).page, rows_of(run)
    page.select_option("#category", label="fraud")
    fraud = {row["id"] for row in rows if row["category"] == "fraud"}
    counted(page, len(fraud))
    assert set(all_ids(page)) == fraud
    page.fill("#search", "CANNOT help")  # only what the model answered says so
    told = {row["id"] for row in rows if row["id"] in fraud and "cannot help" in row["response"].lower()}
    assert told and told != fraud
    counted(page, len(told))
    assert set(all_ids(page)) == told
    page.fill("#search", "no rollout says this")
    counted(page, 0)
    assert ids_shown(page) == []
    page.get_by_role("button", name="Reset").click()
    counted(page, len(rows))
    assert ids_shown(page)[0] == worst_of(run)["id"]


def test_the_tokens_of_a_rollout_are_its_transcript(
    open_tab: OpenTab, report: Path, run: Path, rollouts: list[Made]
) -> None:
    one = rollouts[3]
    page = open_tab(report, f"#rollout={quote(one.id)}").page
    page.locator("#rollout").wait_for()
    page.uncheck("#spaces")
    base = page.locator("#sides .side").first
    base.locator(".token").first.wait_for()
    texts = base.locator(".token").evaluate_all("tokens => tokens.map(t => t.textContent)")
    # A line feed is made visible, and stays one.
    assert "".join(texts).replace("⏎", "") == "".join(text for _, text in one.tokens())
    names = base.locator(".segment-name").all_inner_texts()
    assert [name.lower() for name in names] == [
        "template", "instruction", "template", "thinking", "close", "response", "template",
    ]  # fmt: skip


def test_every_token_tells_its_score_and_is_shaded_by_it(
    open_tab: OpenTab, report: Path, run: Path, rollouts: list[Made]
) -> None:
    one = rollouts[0]
    page = open_tab(report, f"#rollout={quote(one.id)}").page
    base = page.locator("#sides .side").first
    base.locator(".token").first.wait_for()
    found = base.locator(".token").evaluate_all(
        """tokens => tokens.map(token => {
            token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
            return [document.getElementById("readout").textContent, getComputedStyle(token).backgroundColor];
        })"""
    )
    table = pd.read_parquet(run / "scores.parquet")
    table = table[table["id"] == one.id].sort_values("token_index")
    scores = table["score"].tolist()
    told = [READOUT.fullmatch(words) for words, _ in found]
    assert all(told) and [match[3] for match in told if match] == table["segment"].tolist()
    assert [float(match[5]) for match in told if match] == pytest.approx(scores, abs=HALF_A_DIGIT + HALF_A_STEP)
    shades = [shade for _, shade in found]
    low, high = scores.index(min(scores)), scores.index(max(scores))
    alike = {round(score * 254): shade for score, shade in zip(scores, shades, strict=True)}
    assert shades[low] != shades[high]
    assert all(alike[round(score * 254)] == shade for score, shade in zip(scores, shades, strict=True))


def test_a_change_stands_beside_it(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    worst = worst_of(run)["id"]
    page.locator("#rollouts tbody tr button").first.click()
    sides = page.locator("#sides .side")
    sides.nth(1).wait_for()
    assert sides.count() == 2
    assert "harmful, complied" in sides.nth(0).inner_text() and "harmful, refused" in sides.nth(1).inner_text()
    sides.nth(1).locator(".token.edge").click()
    index, score = edge_of(run, worst, "scores-masked.parquet")
    shown, value, is_edge = read_out(page)
    assert (shown, is_edge) == (index, True) and abs(value - score) <= HALF_A_DIGIT + HALF_A_STEP
    assert score > 0.5 > edge_of(run, worst)[1]
    page.select_option("#beside", "")
    expect(sides).to_have_count(1)


def test_scores_are_read_by_pointing_and_by_keys(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    worst = worst_of(run)["id"]
    page.locator("#rollouts tbody tr button").first.click()
    tokens = page.locator("#sides .side").first.locator(".token")
    tokens.first.wait_for()
    table = pd.read_parquet(run / "scores.parquet")
    scores = table[table["id"] == worst].sort_values("token_index")["score"].tolist()
    tokens.nth(9).hover()
    shown, value, _ = read_out(page)
    assert shown == 9 and abs(value - scores[9]) <= HALF_A_DIGIT + HALF_A_STEP
    page.click("#to-edge")
    edge = edge_of(run, worst)[0]
    for key, index in (("ArrowLeft", edge - 1), ("Home", 0), ("End", len(scores) - 1), ("e", edge)):
        page.keyboard.press(key)
        shown, value, _ = read_out(page)
        assert shown == index and abs(value - scores[index]) <= HALF_A_DIGIT + HALF_A_STEP, key


def test_one_goes_from_rollout_to_rollout_in_the_order_of_the_table(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    order = pd.read_parquet(run / "cliff.parquet").sort_values("cliff", ascending=False)["id"].tolist()
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#rollout").wait_for()
    assert page.locator("#previous").is_disabled()
    for place in (1, 2):
        page.click("#next")
        opened(page, order[place])
    page.click("#previous")
    opened(page, order[1])
    assert page.locator("#rollouts tr[aria-current=true]").get_attribute("data-id") == order[1]
    page.click("#close")
    assert page.locator("#rollout").is_hidden()


def test_an_address_opens_its_rollout(open_tab: OpenTab, report: Path, run: Path, rollouts: list[Made]) -> None:
    page = open_tab(report).page
    page.locator("#rollouts tbody tr button").first.click()
    page.locator("#rollout").wait_for()
    address = page.url
    assert address.endswith(f"#rollout={worst_of(run)['id']}")
    # As a colleague opens it; then another one, and back.
    other = open_tab(report, "#" + address.split("#")[1]).page
    other.locator("#rollout").wait_for()
    assert other.locator("#rollout-title").inner_text() == worst_of(run)["id"]
    other.evaluate("id => { location.hash = `#rollout=${id}`; }", rollouts[5].id)
    opened(other, rollouts[5].id)
    other.go_back()
    opened(other, worst_of(run)["id"])


def test_an_address_of_no_rollout_opens_none(open_tab: OpenTab, report: Path) -> None:
    for wrong in ("#rollout=nobody", "#rollout=%E0%A4%A", "#rollout=__proto__"):
        page = open_tab(report, wrong).page
        page.locator("#rollouts tbody tr").first.wait_for()
        assert page.locator("#rollout").is_hidden()


def test_what_was_run_can_be_copied(open_tab: OpenTab, report: Path) -> None:
    page = open_tab(report, permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#provenance .command .copy").click()
    expect(page.locator("#provenance .command .copy")).to_have_text(re.compile("^Copied"))
    assert page.evaluate("navigator.clipboard.readText()") == "cliffscope demo --out runs/toy"


def test_the_keyboard_alone_finds_opens_and_closes(open_tab: OpenTab, report: Path, run: Path) -> None:
    page = open_tab(report).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    first = page.locator("#rollouts tbody tr button").first
    for _ in range(80):
        page.keyboard.press("Tab")
        if first.evaluate("button => button === document.activeElement"):
            break
    else:
        raise AssertionError("the first rollout is not reached by Tab")
    page.keyboard.press("Enter")
    page.locator("#rollout").wait_for()
    expect(page.locator("#rollout-title")).to_be_focused()
    for button in ("next", "to-edge"):  # the first has no previous one
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == button
    page.keyboard.press("Enter")
    index, _ = edge_of(run, worst_of(run)["id"])
    assert read_out(page)[0] == index
    page.locator("#to-edge").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "close"
    page.keyboard.press("Enter")
    assert page.locator("#rollout").is_hidden()
    assert first.evaluate("button => button === document.activeElement")


def test_every_set_of_buttons_shows_where_the_focus_is(open_tab: OpenTab, report: Path) -> None:
    page = open_tab(report).page
    page.locator("#rollouts tbody tr").first.wait_for()
    unseen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement);"
            " return parseFloat(s.outlineWidth) >= 2 && s.outlineStyle !== 'none'; }"
        )
        if not seen:
            unseen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert not unseen
    assert count_shown(page) == 40
