"""Comparisons: pairs by hand, p against SciPy's, order, what cannot be compared, and names that look like markup."""

import json
import random
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from interp.errors import CliffscopeError
from selection.evaluation import Estimate, Evaluation, compare
from selection.evaluation.figure import comparison_figure, comparison_page
from selection.evaluation.tables import (
    category_rows,
    comparison_rows,
    cost_sentence,
    difference_rows,
    evaluation_rows,
    sentences,
)
from tests.selection.evaluation.material import SETTINGS, evaluation, outcome, outcomes


def of(harmful: list[bool | None], benign: list[bool | None], label: str = "base", **changed: object) -> Evaluation:
    return evaluation(outcomes("harmful", harmful) + outcomes("benign", benign), label, **changed)


BASE = of([False] * 8 + [True] * 2, [False] * 9 + [True])
AFTER = of([True] * 7 + [False] * 2 + [True], [True] * 2 + [False] * 7 + [True], "after")


def test_pairs_by_hand() -> None:
    (differences,) = compare([BASE, AFTER]).differences
    asr = differences["asr"]
    # Seven of the eight that were answered are refused now, one that was refused is answered.
    assert (asr.n, asr.first, asr.second, asr.test.only_first, asr.test.only_second) == (10, 0.8, 0.2, 7, 1)
    assert asr.test.p == pytest.approx(binomtest(1, 8).pvalue)
    assert asr.difference == pytest.approx(-0.6) and asr.interval.low < -0.6 < asr.interval.high < 0
    over = differences["over_refusal"]
    assert (over.first, over.second, over.test.p) == (0.1, pytest.approx(0.3), pytest.approx(0.5))
    assert set(differences) == {"asr", "over_refusal", "unclosed", "looping"}  # no traps in either
    assert differences["unclosed"].n == 20


def test_an_evaluation_against_itself() -> None:
    found = compare([BASE, BASE])
    assert found.labels == ("base", "base (2)") and found.caveats == ()
    for difference in found.differences[0].values():
        assert (difference.difference, difference.test.p) == (0, 1)
        assert difference.interval.low <= 0 <= difference.interval.high


def test_only_prompts_of_both_that_have_a_verdict_count() -> None:
    other = evaluation(
        outcomes("harmful", {"0": True, "1": None, "2": False, "unknown": False}) + outcomes("benign", [False] * 3),
        "other",
    )
    asr = compare([BASE, other]).differences[0]["asr"]
    assert (asr.n, asr.first, asr.second) == (2, 1.0, 0.5)


def test_the_same_id_with_another_text_is_another_prompt() -> None:
    moved = [replace(o, prompt="0" * 16) if o.id != "0" else o for o in BASE.outcomes]
    differences = compare([BASE, evaluation(moved, "moved")]).differences[0]
    assert (differences["asr"].n, differences["unclosed"].n) == (1, 2)
    strangers = [replace(o, prompt="0" * 16) for o in BASE.outcomes]
    with pytest.raises(CliffscopeError, match=r"'base' and 'x' share none of their harmful prompts \(10 and 10\)"):
        compare([BASE, evaluation(strangers, "x")])


def test_one_set_without_a_shared_prompt_is_refused_though_another_has_some() -> None:
    other = evaluation(outcomes("harmful", [True]) + outcomes("benign", {"other": True}), "other")
    with pytest.raises(CliffscopeError, match="share none of their benign prompts"):
        compare([BASE, other])
    with pytest.raises(CliffscopeError, match="at least one"):
        compare([])


def test_traps_that_one_lacks_are_not_compared() -> None:
    other = evaluation([*AFTER.outcomes, *outcomes("traps", [True, False])], "other")
    found = compare([BASE, other])
    assert "trap_refusal" not in found.differences[0] and found.differences[0]["unclosed"].n == 20
    assert found.rate(0, "trap_refusal") is None and found.rate(1, "trap_refusal") is not None
    assert comparison_rows(found)[1][3] == "–" and comparison_rows(found)[2][3].startswith("0.500 [")


def test_the_order_of_prompts_changes_nothing() -> None:
    mixed = [*AFTER.outcomes]
    random.Random(0).shuffle(mixed)
    one, other = compare([BASE, AFTER]), compare([BASE, evaluation(mixed, "after")])
    assert one.differences == other.differences
    assert difference_rows(one) == difference_rows(other)


def test_what_may_explain_a_difference_is_said() -> None:
    other = replace(
        AFTER,
        judge="llm:x",
        settings={**SETTINGS, "max_new_tokens": 9, "seed": 1},
        reference={**AFTER.reference, "rollouts": "e" * 64},
        outcomes=(*AFTER.outcomes, outcome("silent", "harmful", None)),
    )
    said = " ".join(compare([BASE, other]).caveats)
    for part in (
        "judged by llm:x",
        "max_new_tokens 9",
        "seed 1",
        "other rollouts",
        "1 harmful responses have no verdict",
    ):
        assert part in said
    assert "noise" not in said  # greedy
    sampled = [replace(one, settings={**one.settings, "temperature": 1.0}) for one in (BASE, other)]
    assert "the noise is not common" in " ".join(compare(sampled).caveats)


def test_three_with_one_name() -> None:
    numbered = replace(BASE, label="base (2)")
    assert len(set(compare([BASE, numbered, BASE, BASE]).labels)) == 4


def test_the_tables() -> None:
    found = compare([replace(BASE, kl=Estimate.undefined("it is the base itself")), AFTER])
    head, base, after = comparison_rows(found)
    assert head == ["", *("ASR", "over-refusal", "traps refused", "unclosed", "looping", "KL (nats)", "perplexity")]
    assert base[1] == "0.800 [0.490, 0.943]" and base[6] == "–" and base[7] == "3.500 [3.100, 3.900]"
    assert after[6] == "0.0100 [0.0080, 0.0120]"
    rows = difference_rows(found)
    assert rows[1][:3] == ["after", "ASR", "-0.600"] and rows[1][4:] == ["0.070", "10"]
    assert rows[3][2] == "+0.000" and rows[3][4] == "1.000"
    assert category_rows(found) == []
    assert "Judged by keyword:cliffscope:v1." in sentences(found)
    sets = evaluation_rows(AFTER)
    assert [row[:2] for row in sets] == [["", "prompts"], ["harmful", "10"], ["benign", "10"]]
    assert sets[1][sets[0].index("over-refusal")] == "–"
    assert "KL to some/model on its benign answers 0.0100" in cost_sentence(AFTER)
    undefined = replace(AFTER, kl=Estimate.undefined("none closed"), perplexity=Estimate.undefined("none at all"))
    assert cost_sentence(undefined) == "No KL: none closed; no perplexity: none at all."


def test_categories_are_side_by_side() -> None:
    made = [outcome("1", "harmful", False, category="theft"), outcome("2", "harmful", True, category="fraud")]
    other = [outcome("1", "harmful", True, category="theft"), outcome("2", "harmful", None, category="fraud")]
    benign = outcomes("benign", [False])
    rows = category_rows(compare([evaluation(made + benign), evaluation(other + benign, "after")]))
    assert [row[0] for row in rows] == ["ASR by category", "fraud", "theft"]
    assert rows[1][1].startswith("0.000 [") and rows[1][2] == "–" and rows[2][1].startswith("1.000 [")


def test_the_payload_holds_every_figure_of_the_tables() -> None:
    found = compare([BASE, AFTER]).payload()
    assert found["base"] == "base" and found["evaluations"][0]["against_base"] is None
    after = found["evaluations"][1]
    assert after["asr"]["count"] == 2 and after["trap_refusal"] is None
    asr = after["against_base"]["asr"]
    assert (asr["n"], asr["only_base"], asr["only_here"]) == (10, 7, 1) and asr["low"] < -0.6 < asr["high"]
    json.dumps(found)


def test_the_picture() -> None:
    traps = evaluation([*AFTER.outcomes, *outcomes("traps", [True, False])], "traps")
    figure = comparison_figure(compare([BASE, AFTER, traps]))
    left, right = ([trace for trace in figure.data if trace.xaxis == axis] for axis in ("x", "x2"))
    assert [trace.name for trace in left] == ["base", "after", "traps"] and [t.name for t in right] == ["traps"]
    base = left[0]
    assert (base.x[0], base.y[0]) == (0.1, 0.8)
    interval = BASE.asr.interval
    assert base.error_y.array[0] == pytest.approx(interval.high - 0.8)
    assert base.error_y.arrayminus[0] == pytest.approx(0.8 - interval.low)
    # Without colour, symbols and names tell them apart; two names at one place are not drawn on one another.
    assert len({trace.marker.symbol for trace in left}) == 3
    heights = [note.y for note in figure.layout.annotations if note.xref == "x"]
    assert len(heights) == 3 and min(abs(a - b) for a in heights for b in heights if a is not b) > 0.04
    assert len(comparison_figure(compare([BASE, AFTER])).data) == 2


def test_names_that_look_like_markup_stay_text() -> None:
    hostile = '<img src=x onerror=alert(1)></script><b>bold</b> & "quotes"'
    made = [replace(o, category=hostile) for o in AFTER.outcomes]
    page = comparison_page(
        compare([BASE, evaluation(made, hostile, judge=hostile, reference={**BASE.reference, "model": hostile})])
    )
    assert "<img" not in page and "<b>bold" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3  # tables and sentences
    # What plotly draws: it takes < and > for markup, so the names reach it escaped.
    figure = comparison_figure(compare([BASE, evaluation(made, hostile)]))
    assert all("<" not in note.text for note in figure.layout.annotations)
    assert all("<" not in trace.name for trace in figure.data)


def test_equal_comparisons_give_equal_pages() -> None:
    assert comparison_page(compare([BASE, AFTER])) == comparison_page(compare([BASE, AFTER]))


def test_one_evaluation_alone_is_shown() -> None:
    page = comparison_page(compare([BASE]))
    assert "McNemar" not in page and "over-refusal" in page
