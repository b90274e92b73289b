"""Head scores: ranks, evidence and controls from planted scores; the file and its errors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from circuits.head_scores import HeadScores
from interp.errors import CliffscopeError
from interp.significance import benjamini_hochberg, sign_flip_p
from interventions.heads import Head


@dataclass
class Sizes:
    """As much of a model as head scores ask for."""

    name: str = "tiny"
    n_layers: int = 3
    n_heads: int = 4
    fingerprint: dict[str, str] = field(default_factory=lambda: {"architecture": "Tiny", "d_model": "8"})


def planted(n: int = 30, seed: int = 0) -> np.ndarray:
    """Scores of 12 heads: noise about zero, 1.2 strong, 2.0 weaker, 0.3 strong with the other sign."""
    scores = np.random.default_rng(seed).normal(0.0, 0.1, size=(n, 3, 4))
    scores[:, 1, 2] += 2.0
    scores[:, 2, 0] += 1.0
    scores[:, 0, 3] -= 2.0
    return scores


def of(scores: np.ndarray, to_explain: float = 4.0, **options: Any) -> HeadScores:
    return HeadScores.of("ablation", Sizes(), scores, to_explain=to_explain, **options)  # type: ignore[arg-type]


def test_the_planted_heads_come_first_and_no_other_is_named() -> None:
    scores = planted()
    found = of(scores)
    assert found.top(2) == (Head(1, 2), Head(2, 0)) == found.suppressors
    assert found.table["rank"].tolist() == list(range(1, 13))
    assert found.table["name"].iloc[-1] == "0.3"
    np.testing.assert_allclose(found.grid(), scores.mean(0))
    np.testing.assert_allclose(found.grid("p"), sign_flip_p(scores))
    np.testing.assert_allclose(found.grid("q"), benjamini_hochberg(sign_flip_p(scores)))
    np.testing.assert_allclose(found.grid("share"), scores.mean(0) / 4)
    assert found.grid("suppresses").sum() == 2
    assert (found.grid("low") <= found.grid()).all() and (found.grid() <= found.grid("high")).all()
    assert found.facts["n"] == 30 and found.facts["nothing"] is None


def test_the_interval_is_the_normal_one_of_a_mean() -> None:
    scores = planted(400)
    found = of(scores)
    half = 1.96 * scores.std(0) / np.sqrt(400)
    np.testing.assert_allclose(found.grid("high") - found.grid("low"), 2 * half, rtol=0.15)


def test_cases_of_one_prompt_are_one_piece_of_evidence() -> None:
    scores = np.repeat(planted(10), 5, axis=0)
    prompts = [f"prompt {i // 5}" for i in range(50)]
    together, apart = of(scores, clusters=prompts), of(scores)
    assert together.facts["n_clusters"] == 10
    width = [(found.grid("high") - found.grid("low")).mean() for found in (together, apart)]
    # Ten clusters: Student's t and the unbiased spread with 9 degrees of freedom, against 49.
    few = (2.262 / 2.010) * np.sqrt((10 / 9) / (50 / 49))
    assert width[0] == pytest.approx(width[1] * np.sqrt(5) * few, rel=0.15)
    np.testing.assert_allclose(together.grid("p"), sign_flip_p(planted(10)))


def test_noise_names_no_head() -> None:
    named = [len(of(np.random.default_rng(seed).normal(size=(40, 3, 4)), 4.0).suppressors) for seed in range(40)]
    assert sum(count > 0 for count in named) <= 5


def test_every_condition_of_a_suppression_head_counts() -> None:
    scores = planted()
    assert of(scores, to_explain=25.0).suppressors == (Head(1, 2),)  # 1.0 is less than a twentieth of 25
    confirmed = np.ones((3, 4), dtype=bool)
    confirmed[1, 2] = False
    assert of(scores, confirmed=confirmed).suppressors == (Head(2, 0),)
    assert of(scores[:4]).suppressors == ()  # with four cases no p is below 1/8
    assert of(scores, facts={"nothing": "no cliff"}).suppressors == ()


def test_heads_with_evidence_of_another_kind_are_named_and_come_first() -> None:
    named = np.zeros((3, 4), dtype=bool)
    named[0, 3] = named[1, 2] = True
    found = of(planted(), named=named)
    assert found.suppressors == (Head(1, 2), Head(0, 3))  # whatever its score, q and share
    assert found.top(3) == (Head(1, 2), Head(0, 3), Head(2, 0))
    assert found.choose(count=2) == found.suppressors
    assert "evidence from ablation" in found.evidence
    assert of(planted(), named=named, facts={"nothing": "no cliff"}).suppressors == ()


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan")])
def test_where_nothing_is_to_be_explained_no_head_is_named(amount: float) -> None:
    found = of(planted(), to_explain=amount)
    assert found.suppressors == ()
    assert "not above 0" in found.facts["nothing"]
    assert found.top(1) == (Head(1, 2),)


def test_nothing_has_every_head_and_no_score() -> None:
    found = HeadScores.nothing("attribution", Sizes(), "the model answered none", {"seed": 3})  # type: ignore[arg-type]
    assert len(found.table) == 12 and found.table["score"].isna().all()
    assert found.suppressors == () and found.top(5) == ()
    assert found.facts == {"seed": 3, "nothing": "the model answered none"}


def test_unknown_scores_rank_last_and_ties_keep_the_order_of_the_heads() -> None:
    scores = np.zeros((10, 3, 4))
    scores[:, 0, 1] = np.nan
    scores[:, 2, 3] = 1.0
    found = of(scores)
    assert found.table["name"].tolist() == "2.3 0.0 0.2 0.3 1.0 1.1 1.2 1.3 2.0 2.1 2.2 0.1".split()
    assert len(found.top(99)) == 11
    assert np.isnan(found.grid("q")[0, 1])


def test_the_order_of_cases_does_not_matter_to_score_and_p() -> None:
    scores = planted(12)
    shuffled = scores[np.random.default_rng(1).permutation(12)]
    np.testing.assert_allclose(of(scores).grid(), of(shuffled).grid())
    np.testing.assert_allclose(of(scores).grid("p"), of(shuffled).grid("p"))  # exact with so few cases


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    later = np.zeros((3, 4), dtype=bool)
    found = of(planted(), columns={"after_probe": later}, facts={"site": "x", "cliff": float("nan"), "pair": (1, 2)})
    found.save(tmp_path / "heads.parquet")
    back = HeadScores.load(tmp_path / "heads.parquet")
    pd.testing.assert_frame_equal(back.table, found.table)
    assert (back.method, back.model, back.fingerprint) == ("ablation", "tiny", Sizes().fingerprint)
    assert back.facts == found.facts
    assert back.facts["cliff"] is None and back.facts["pair"] == [1, 2]
    assert back.suppressors == found.suppressors
    found.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "heads.parquet").read_bytes()


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"heads\.parquet: no such file"):
        HeadScores.load(tmp_path / "heads.parquet")
    (tmp_path / "text.parquet").write_text("layer,head\n")
    other = tmp_path / "other.parquet"
    pd.DataFrame({"layer": [1]}).to_parquet(other)
    found = of(planted())
    later, short = tmp_path / "later.parquet", tmp_path / "short.parquet"
    found.save(later)
    table = pq.read_table(later)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"version": b"2"}), later)
    pq.write_table(table.drop_columns(["score"]), short)
    broken = tmp_path / "broken.parquet"
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"facts": b"{"}), broken)
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(short.read_bytes()[:-50])
    expected = {
        "text.parquet": "not a Parquet file",
        "truncated.parquet": "not a Parquet file",
        "other.parquet": "not a table of head scores",
        "later.parquet": "format version '2'.*reads version '1'",
        "short.parquet": "no column 'score'",
        "broken.parquet": "metadata cannot be read",
    }
    for name, message in expected.items():
        with pytest.raises(CliffscopeError, match=rf"{name}: .*{message}") as caught:
            HeadScores.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_another_model_is_refused() -> None:
    found = of(planted())
    found.check_model(Sizes().fingerprint, "the same")
    with pytest.raises(CliffscopeError, match=r"made for tiny, not for wide.*d_model 8 there, 16 here"):
        found.check_model({"architecture": "Tiny", "d_model": "16"}, "wide")


def test_wrong_use_is_refused() -> None:
    with pytest.raises(CliffscopeError, match=r"no column 'rise'.*score"):
        of(planted()).grid("rise")
    with pytest.raises(CliffscopeError, match="JSON cannot hold the facts"):
        of(planted(), facts={"what": object()})
    with pytest.raises(CliffscopeError, match="expected 30 labels"):
        of(planted(), clusters=[1, 2])
