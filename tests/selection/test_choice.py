"""What each method chooses, by hand and against properties that must hold."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from selection.choice import METHODS, ChoiceOptions, check_method, choose
from selection.scoring import Score
from tests.selection.material import score


def scores(n: int = 200, seed: int = 0) -> list[Score]:
    rng = random.Random(seed)
    made = []
    for number in range(n):
        plateau, edge = rng.random(), rng.random()
        made.append(
            score(
                f"id-{number}",
                harmful=rng.choice([True, False, None]),
                category=rng.choice("abc"),
                plateau=plateau,
                edge=edge,
                cliff=plateau - edge,
                refused=rng.choice([True, False]),
                judged=rng.choice([True, False, None]),
                loss=rng.choice([None, rng.random()]),
                n_tokens=rng.randint(50, 400),
            )
        )
    return made


def ids(choice: Any) -> list[str]:
    return [score.id for score in choice.scores]


RANKED = {
    "cliff": lambda s: -s.cliff,
    "edge": lambda s: s.edge,
    "plateau": lambda s: -s.plateau,
    "loss": lambda s: -s.loss if s.loss is not None else float("inf"),
}


@pytest.mark.parametrize("method", RANKED)
def test_ranked_methods_take_the_first(method: Any) -> None:
    made = scores()
    expected = [s.id for s in sorted(made, key=RANKED[method])][:20]
    assert ids(choose(made, ChoiceOptions(method, count=20))) == expected
    assert ids(choose(made, ChoiceOptions(method, fraction=0.1))) == expected


@pytest.mark.parametrize("method", RANKED)
def test_a_threshold_takes_all_beyond_it(method: Any) -> None:
    made = scores()
    values = [getattr(s, method) for s in made if getattr(s, method) is not None]
    threshold = sorted(values)[len(values) // 2]
    found = choose(made, ChoiceOptions(method, threshold=threshold))
    side = [v for v in values if (v <= threshold if method == "edge" else v >= threshold)]
    assert len(found.scores) == len(side) and found.asked is None
    assert all(getattr(s, method) in side for s in found.scores)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [0, 1])
def test_the_order_of_the_pool_does_not_matter_and_the_seed_does(method: Any, order: int) -> None:
    made = [score(s.id, **{f: getattr(s, f) for f in ("refused", "judged", "n_tokens")}, loss=1.0) for s in scores()]
    shuffled = random.Random(order).sample(made, len(made))
    one, again = (choose(m, ChoiceOptions(method, count=15, seed=4)) for m in (made, shuffled))
    # All values are equal, so ties decide everything.
    assert ids(one) == ids(again)
    assert ids(one) != ids(choose(made, ChoiceOptions(method, count=15, seed=5)))


@pytest.mark.parametrize("method", METHODS)
def test_budgets_are_equal(method: Any) -> None:
    made = scores(1000)
    found = choose(made, ChoiceOptions(method, fraction=0.017))
    assert found.asked == len(found.scores) == len(set(ids(found))) == 17
    assert len(found.reasons) == 17


def test_filters() -> None:
    made = scores()
    for method, field in (("keyword", "refused"), ("judge", "judged")):
        found = choose(made, ChoiceOptions(method, count=200))  # type: ignore[arg-type]
        assert set(ids(found)) == {s.id for s in made if getattr(s, field) is False}
        assert found.eligible == len(found.scores) < found.asked == 200  # type: ignore[operator]


def test_random_draws_are_uniform() -> None:
    made = scores(50)
    drawn = Counter(id for seed in range(400) for id in ids(choose(made, ChoiceOptions("random", count=5, seed=seed))))
    # 40 expected of each, with a standard deviation of 6.
    assert len(drawn) == 50 and all(15 <= count <= 70 for count in drawn.values())


@given(st.integers(0, 1000), st.integers(1, 80))
def test_lengths_match_those_of_the_choice_by_cliff(seed: int, count: int) -> None:
    made = scores(120, seed)
    by_cliff = sorted(s.n_tokens or 0 for s in choose(made, ChoiceOptions(count=count)).scores)
    matched = sorted(s.n_tokens or 0 for s in choose(made, ChoiceOptions("length", count=count, seed=seed)).scores)
    assert len(matched) == len(by_cliff) == count
    assert by_cliff[0] <= matched[0] and matched[-1] <= by_cliff[-1]
    # Within a bin of a tenth of the choice, the two distributions cannot part by more than that.
    width = -(-count // min(10, count)) + 1
    for place in by_cliff:
        below = [sum(length < place for length in lengths) for lengths in (matched, by_cliff)]
        at_most = [sum(length <= place for length in lengths) for lengths in (matched, by_cliff)]
        assert below[0] <= at_most[1] + width and at_most[0] >= below[1] - width


def test_matched_by_length_is_not_the_choice_by_cliff() -> None:
    made = scores(400)
    overlap = set(ids(choose(made, ChoiceOptions(count=40)))) & set(
        ids(choose(made, ChoiceOptions("length", count=40)))
    )
    assert len(overlap) < 15


def test_who_cannot_be_chosen() -> None:
    made = [
        score("good", harmful=None),
        score("open", cliff=None, plateau=None, edge=None, unscorable="thinking unclosed"),
        score("benign", harmful=False, outcome="benign"),
        score("refused", harmful=False, answered=False, refused=True),
        score("given", harmful=False, answered=False, refused=True, given=True),
    ]
    found = choose(made, ChoiceOptions(count=9))
    assert set(ids(found)) == {"good", "benign"}
    assert found.left_out == {"thinking unclosed": 1, "benign without an answer to train towards": 2}
    assert set(ids(choose(made, ChoiceOptions(count=9), target="pool"))) == {"good", "benign", "given"}
    found = choose(made, ChoiceOptions(count=9, harmful_only=True))
    assert ids(found) == ["good"] and found.left_out == {"labelled benign": 3, "thinking unclosed": 1}


def test_spread() -> None:
    made = [score(f"{category}{n}", category=category, cliff=1 - n / 100) for category in "ab" for n in range(20)]
    made += [score(f"c{n}", category="c", cliff=0.1) for n in range(2)]
    found = choose(made, ChoiceOptions(count=12, spread=True))
    assert Counter(s.category for s in found.scores) == {"a": 5, "b": 5, "c": 2}
    assert {s.category for s in choose(made, ChoiceOptions(count=12)).scores} == {"a", "b"}


def test_near_duplicates_make_room_for_the_next() -> None:
    prompts = {"a": "How do I pick a lock?", "b": "how do I pick a lock", "c": "What is the capital of France?"}
    made = [score("b", cliff=0.5), score("a", cliff=0.9), score("c", cliff=0.1)]
    found = choose(made, ChoiceOptions(count=2, deduplicate=0.9), prompt_of=prompts.__getitem__)
    assert ids(found) == ["a", "c"] and found.near_duplicates == 1
    assert ids(choose(made, ChoiceOptions(count=2))) == ["a", "b"]


def test_prompts_are_asked_for_only_as_far_as_needed() -> None:
    asked: list[str] = []
    made = scores(300)

    def prompt_of(id: str) -> str:
        asked.append(id)
        return f"{id} {id} {id}"

    found = choose(made, ChoiceOptions(count=5, deduplicate=1.0), prompt_of=prompt_of)
    assert ids(found) == asked


def test_reasons() -> None:
    made = [score("a", cliff=0.93, plateau=0.98, edge=0.05, judged=False, loss=2.3456, n_tokens=77)]
    said = {method: choose(made, ChoiceOptions(method, count=1)).reasons[0] for method in METHODS}
    assert said == {
        "cliff": "cliff 0.93: plateau 0.98, edge 0.05",
        "edge": "edge 0.05: cliff 0.93, plateau 0.98",
        "plateau": "plateau 0.98: cliff 0.93, edge 0.05",
        "loss": "loss 2.35 nats a token",
        "random": "at random",
        "keyword": "answered, by keywords; at random among these",
        "judge": "answered, by the judge; at random among these",
        "length": "at random among rollouts as long (77 tokens)",
    }


def test_budget() -> None:
    assert ChoiceOptions(fraction=0.017).budget(40_000) == 680
    assert ChoiceOptions(fraction=0.017).budget(10) == 1
    assert ChoiceOptions(count=700).budget(10) == 700
    assert ChoiceOptions(threshold=0.5).budget(10) is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "give one of fraction, count and threshold, found 0 of them"),
    ({"fraction": 0.1, "count": 3}, "found 2 of them"),
    ({"fraction": 0.0}, "fraction must be above 0 and at most 1"),
    ({"fraction": 1.7}, "fraction must be above 0 and at most 1, found 1.7"),
    ({"count": 0}, "count must be at least 1"),
    ({"method": "random", "threshold": 0.5}, "threshold: random has no score"),
    ({"threshold": 0.5, "spread": True}, "spread: it goes with a fraction or a count"),
    ({"method": "length", "count": 1, "spread": True}, "spread: .* not with the method length"),
    ({"count": 1, "deduplicate": 1.5}, "deduplicate must be above 0 and at most 1"),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=[says for _, says in BAD])
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        ChoiceOptions(**options)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(CliffscopeError, match="method 'best': expected one of cliff, random"):
        check_method("best")


def test_nothing_to_choose_says_why() -> None:
    made = [score("a", unscorable="thinking unclosed"), score("b", cliff=0.3)]
    with pytest.raises(CliffscopeError, match=r"nothing to choose by cliff: 0 of 1 .*\(1 thinking unclosed\)\."):
        choose(made[:1], ChoiceOptions(count=1))
    with pytest.raises(CliffscopeError, match=r"1 of 2 examples .* lower the threshold"):
        choose(made, ChoiceOptions(threshold=0.9))
    with pytest.raises(CliffscopeError, match="method judge: the scores hold no judge's verdict"):
        choose(made, ChoiceOptions("judge", count=1))
    with pytest.raises(CliffscopeError, match="method loss: the scores hold no losses"):
        choose(made, ChoiceOptions("loss", count=1))
    with pytest.raises(CliffscopeError, match="nothing to choose by length"):
        choose(made[:1], ChoiceOptions("length", count=1))
    with pytest.raises(CliffscopeError, match="deduplicate: give prompt_of"):
        choose(made, ChoiceOptions(count=1, deduplicate=0.5))
