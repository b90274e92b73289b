"""Ranking latents: every figure by hand, planted latents found, shuffled labels and an untrained SAE as controls."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import roc_auc_score

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interventions.latents import LatentScores, rank_latents, untrained_like
from interventions.latents.loading import at_site
from interventions.latents.permutation import permute_labels
from interventions.latents.scores import COLUMNS, Cases, score_cases
from tests.interventions.latents.material import (
    OPTIONS,
    SITE,
    organism,
    organism_rollouts,
    random_sae,
    ranked,
    trained,
    training_rollouts,
)

WIDTH = OPTIONS.width


def groups(rollouts: tuple[Rollout, ...]) -> tuple[list[Rollout], np.ndarray]:
    """The refused and the complied rollouts, and their labels."""
    kept = [rollout for rollout in rollouts if rollout.outcome in ("refused", "complied")]
    return kept, np.array([rollout.outcome == "refused" for rollout in kept]).astype(int)


def latents_at(rollouts: list[Rollout], position: str | int) -> np.ndarray:
    """Read by hand: one text at a time, one token, one encode."""
    model, found = organism("cliff"), []
    for rollout in rollouts:
        h = model.capture([model.transcripts().build(rollout)], [SITE], [position])[SITE][0]
        found.append(trained().sae.encode(h)[0].numpy())
    return np.stack(found)


@pytest.mark.slow
def test_latents_of_the_trained_sae_separate_rollouts_that_it_was_not_ranked_on() -> None:
    scores = ranked()
    best = scores.table.iloc[0]
    assert best["separates"] and best["q"] < 0.01 and best["worst"] > 0.5
    rollouts, labels = groups(organism_rollouts("cliff"))
    seen = {rollout.prompt for rollout in training_rollouts()}
    assert not seen & {rollout.prompt for rollout in rollouts}
    area = roc_auc_score(labels, latents_at(rollouts, "close:-1")[:, int(best["latent"])])
    assert max(area, 1 - area) >= 0.95
    assert (area > 0.5) == (best["sign"] == 1)


def test_the_table_has_a_row_for_each_latent() -> None:
    table = ranked().table
    assert tuple(table.columns) == COLUMNS and len(table) == WIDTH
    assert sorted(table["latent"]) == list(range(WIDTH)) and list(table["rank"]) == list(range(1, WIDTH + 1))
    assert set(table["sign"]) == {1, -1}
    assert ranked().separating == tuple(table.loc[table["separates"], "latent"])


@pytest.mark.slow
def test_every_figure_by_hand() -> None:
    rollouts, labels = groups(training_rollouts()[:60])
    scores = rank_latents(organism("cliff"), trained(), training_rollouts()[:60], test_fraction=0, shuffles=99)
    values = latents_at(rollouts, "close:-1")
    positive, negative = values[labels == 1], values[labels == 0]
    assert scores.facts["positive"] == len(positive) and scores.facts["negative"] == len(negative)
    for _, row in scores.table.iterrows():
        mine, theirs = positive[:, row["latent"]], negative[:, row["latent"]]
        assert row["frequency_positive"] == pytest.approx((mine > 0).mean(), abs=1e-9)
        assert row["frequency_negative"] == pytest.approx((theirs > 0).mean(), abs=1e-9)
        assert row["difference"] == pytest.approx(row["sign"] * ((mine > 0).mean() - (theirs > 0).mean()), abs=1e-9)
        assert row["mean_positive"] == pytest.approx(mine.mean(), abs=1e-4)
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, values[:, row["latent"]]), abs=0.02)
        spread = math.sqrt(
            (mine.var(ddof=1) * (len(mine) - 1) + theirs.var(ddof=1) * (len(theirs) - 1)) / (len(labels) - 2)
        )
        if spread > 1e-3:
            assert row["effect"] == pytest.approx((mine.mean() - theirs.mean()) / spread, rel=1e-2, abs=1e-2)
        assert math.isnan(row["q"]) == (not (values[:, row["latent"]] > 0).any())


def test_the_share_of_ordinary_tokens_by_hand() -> None:
    model, rollouts = organism("cliff"), training_rollouts()
    benign = [rollout for rollout in rollouts if rollout.harmful is False]
    fired, n = np.zeros(WIDTH), 0
    for transcript in model.transcripts().build_all(benign):
        h = model.capture([transcript], [SITE], list(range(1, len(transcript))))[SITE][0]
        fired += (trained().sae.encode(h) > 0).sum(0).numpy()
        n += len(h)
    table = ranked().table.set_index("latent").sort_index()
    np.testing.assert_allclose(table["generic_share"], fired / n, atol=1e-4)
    assert ranked().facts["ordinary_tokens"] == n
    assert (table["generic"] == (table["generic_share"] > 0.02)).all() and 0 < table["generic"].sum() < WIDTH
    assert not (table["separates"] & table["generic"]).any()


def test_segments_and_pooling() -> None:
    model, rollouts = organism("cliff"), training_rollouts()[:40]
    kept, labels = groups(rollouts)
    expected = {"max": [], "mean": []}
    for rollout in kept:
        transcript = model.transcripts().build(rollout)
        places = [*transcript.indices("close"), transcript.position("inst")]
        f = trained().encode(model.capture([transcript], [SITE], places)[SITE][0])
        expected["max"].append(f.max(0).values.numpy())
        expected["mean"].append(f.mean(0).numpy())
    for pool, values in expected.items():
        scores = rank_latents(
            model, trained(), rollouts, at=["close", "inst"], pool=pool, test_fraction=0, shuffles=1, batch_tokens=500
        )
        table = scores.table.set_index("latent").sort_index()
        np.testing.assert_allclose(table["mean_positive"], np.stack(values)[labels == 1].mean(0), atol=1e-4)
        np.testing.assert_allclose(table["mean_negative"], np.stack(values)[labels == 0].mean(0), atol=1e-4)


def test_held_out_prompts_are_not_ranked_by() -> None:
    scores = rank_latents(organism("cliff"), trained(), training_rollouts(), test_fraction=0.4, shuffles=9)
    assert scores.table["auroc_held_out"].notna().all()
    top = scores.table.iloc[0]
    assert 0.9 < max(top["auroc_held_out"], 1 - top["auroc_held_out"])
    assert ranked().table["auroc_held_out"].isna().all()


def test_shuffled_labels_make_no_claims() -> None:
    rollouts, labels = groups(training_rollouts())
    values = latents_of_all(rollouts)
    named = []
    for seed in range(10):
        shuffled = np.random.default_rng(seed).permutation(labels)
        table, permuted = score_cases(cases(values, shuffled), np.zeros(WIDTH), shuffles=999, seed=seed)
        named.append(int(table["separates"].sum()))
        best = (table["auroc"] - 0.5).abs().max() + 0.5
        assert permuted.best.min() - 0.1 < best < permuted.best.max() + 0.1
    assert sum(count > 0 for count in named) <= 2
    # Where the labels are true, there are claims.
    assert score_cases(cases(values, labels), np.zeros(WIDTH), shuffles=999, seed=0)[0]["separates"].any()


def latents_of_all(rollouts: list[Rollout]) -> np.ndarray:
    model = organism("cliff")
    h = model.capture(model.transcripts().build_all(rollouts), [SITE], ["close:-1"])[SITE][:, 0]
    return trained().encode(h).numpy()


def cases(values: np.ndarray, labels: np.ndarray, **changed: object) -> Cases:
    n = len(labels)
    made = Cases(values, labels, [str(i) for i in range(n)], [None] * n, np.ones(n, dtype=bool))
    return replace(made, **changed)


def test_planted_latents_are_found_by_their_worst_category() -> None:
    generator = np.random.default_rng(0)
    labels = np.array([1] * 30 + [0] * 30)
    categories = ["a", "b", "c"] * 20
    values = np.zeros((60, 6), dtype=np.float32)
    values[:30, 0] = 1 + generator.random(30)  # everywhere in the positive group
    values[[i for i in range(30) if categories[i] != "c"], 1] = 2.0  # not in category c
    values[30:, 2] = 1 + generator.random(30)  # the negative group
    values[:, 3] = generator.random(60) + labels  # always active, more strongly in the positive group
    values[:, 4] = generator.random(60) < 0.5  # chance
    shares = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    table, _ = score_cases(cases(values, labels, categories=categories), shares, shuffles=999, seed=0)
    rows = table.set_index("latent")
    assert set(table["latent"][:2]) == {0, 2} == set(table.loc[table["separates"], "latent"])
    assert rows["worst"].to_dict() == pytest.approx({0: 1, 1: 0, 2: 1, 3: 0, 4: rows["worst"][4], 5: 0})
    assert rows["worst_category"][1] == "c" and rows["difference"][1] == pytest.approx(2 / 3)
    assert rows["sign"][2] == -1 and rows["auroc"][2] == 0 and rows["auroc"][3] > 0.95
    assert math.isnan(rows["p"][5]) and rows["q"][4] > 0.05 > rows["q"][3]
    flagged, _ = score_cases(cases(values, labels, categories=categories), shares + 0.03, shuffles=99, seed=0)
    assert flagged["generic"].all() and not flagged["separates"].any()


def test_a_category_is_compared_with_itself_where_both_groups_have_it() -> None:
    labels = np.array([1] * 6 + [0] * 6)
    categories = ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3
    values = np.zeros((12, 1), dtype=np.float32)
    values[:6] = 1.0
    values[6:9] = 0.5  # the negative ones of category a have it too
    table, _ = score_cases(cases(values, labels, categories=categories), np.zeros(1), shuffles=9, seed=0)
    assert table["worst"][0] == 0 and table["worst_category"][0] == "a" and table["difference"][0] == 0.5
    # Too few of b to compare with: all of the other group.
    categories[9:] = ["c"] * 3
    table, _ = score_cases(cases(values, labels, categories=categories), np.zeros(1), shuffles=9, seed=0)
    assert table["worst"][0] == 0
    categories[6:9] = ["c"] * 3
    table, _ = score_cases(cases(values, labels, categories=categories), np.zeros(1), shuffles=9, seed=0)
    assert table["worst"][0] == 0.5


def test_repeated_rollouts_of_a_prompt_are_no_more_evidence() -> None:
    generator = np.random.default_rng(1)
    labels = np.array([1] * 8 + [0] * 8)
    values = (generator.normal(size=(16, 5)) + labels[:, None]).astype(np.float32)
    prompts = [str(i) for i in range(16)]
    once, _ = score_cases(cases(values, labels, prompts=prompts), np.zeros(5), shuffles=999, seed=0)
    again = cases(
        np.repeat(values, 5, 0), np.repeat(labels, 5), prompts=list(np.repeat(prompts, 5)), categories=[None] * 80
    )
    often, _ = score_cases(again, np.zeros(5), shuffles=999, seed=0)
    assert once.set_index("latent")["p"].to_dict() == often.set_index("latent")["p"].to_dict()
    apart, _ = score_cases(replace(again, prompts=[str(i) for i in range(80)]), np.zeros(5), shuffles=999, seed=0)
    assert apart["p"].median() < once["p"].median()


def test_p_is_that_of_all_labellings() -> None:
    generator = np.random.default_rng(2)
    labels = np.array([1] * 4 + [0] * 5)
    values = np.round(generator.normal(size=(9, 12)) + 0.8 * labels[:, None], 1)  # with ties
    found = permute_labels(values, labels, shuffles=20_000, seed=0)
    for latent in range(12):
        column = values[:, latent]
        ranks = scipy.stats.rankdata(column)
        centre = 4 * ranks.mean()
        seen = abs(ranks[labels == 1].sum() - centre)
        every = [abs(sum(ranks[list(chosen)]) - centre) >= seen - 1e-9 for chosen in combinations(range(9), 4)]
        assert found.p[latent] == pytest.approx(np.mean(every), abs=0.02)
    assert found.best.shape == (20_000,) and (found.best >= 0.5).all() and (found.best <= 1).all()
    again = permute_labels(values, labels, shuffles=20_000, seed=0)
    assert np.array_equal(again.p, found.p)


def test_the_untrained_control_is_as_sparse() -> None:
    model = organism("cliff")
    batch = model.transcripts().build_all(training_rollouts()[:20])
    h = model.capture(batch, [SITE], list(range(1, 40)))[SITE].flatten(0, 1)
    h = h + 0.01 * torch.randn(h.shape, generator=torch.Generator().manual_seed(0))  # else many tokens are equal
    shares = (trained().encode(h) > 0).float().mean(0).numpy()
    shares[:2] = 0.0, 1.0
    control = untrained_like(trained(), h, shares, seed=0)
    found = (control.encode(h) > 0).float().mean(0).numpy()
    np.testing.assert_allclose(found, shares, atol=2 / len(h))
    assert not np.array_equal(control.encode(h), untrained_like(trained(), h, shares, seed=1).encode(h))
    rows = control.sae.W_dec
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(WIDTH))
    assert (rows @ rows.T - torch.eye(WIDTH)).abs().max() < 0.6  # random, not learned


def test_an_untrained_sae_separates_too() -> None:
    """The honest null: at the edge of the organism random directions separate almost as well."""
    facts = ranked().facts
    assert facts["untrained"]["best_auroc"] > 0.9
    assert facts["trained"]["best_auroc"] > facts["shuffled"]["best_auroc_95"] + 0.2
    assert facts["untrained"]["best_auroc"] > facts["shuffled"]["best_auroc_95"]
    assert "An untrained SAE separates as well" in ranked().evidence


def test_an_sae_of_another_place_is_told_by_its_reconstruction() -> None:
    model = organism("cliff")
    sae = random_sae(d_in=128, d_sae=64, hook_name=SITE, model_name="organism:cliff")
    scores = rank_latents(model, at_site(model, sae), training_rollouts()[:60], shuffles=9)
    assert "it may be of another model" in scores.evidence and "may be of another" not in ranked().evidence
    assert "no latent alone among" in scores.evidence and "no latent alone among" not in ranked().evidence


def test_a_direction_points_to_the_positive_group() -> None:
    scores, latents = ranked(), trained()
    rows = scores.table[scores.table["separates"]]
    for row in rows.to_dict("records"):
        found = scores.direction(latents, row["latent"], kind="refusal")
        towards = 1 if row["mean_positive"] > row["mean_negative"] else -1
        torch.testing.assert_close(found.vector, towards * latents.sae.W_dec[row["latent"]] / found_norm(row["latent"]))
        apart = abs(row["mean_positive"] - row["mean_negative"]) * found_norm(row["latent"])
        assert found.scale == pytest.approx(apart, rel=1e-5) and found.kind == "refusal"
    with pytest.raises(CliffscopeError, match="ranks another SAE"):
        scores.direction(at_site(organism("cliff"), random_sae(d_in=128, hook_name=SITE)), 1)
    silent = int(scores.table.loc[scores.table["p"].isna(), "latent"].iloc[0])
    with pytest.raises(CliffscopeError, match="as active in both groups"):
        scores.direction(latents, silent)


def found_norm(latent: int) -> float:
    return float(trained().sae.W_dec[latent].norm())


def test_saved_and_read_back(tmp_path: Path) -> None:
    scores = ranked()
    scores.save(tmp_path / "latents.parquet")
    again = LatentScores.load(tmp_path / "latents.parquet")
    assert again.table.equals(scores.table) and again.facts == scores.facts
    again.check_model(organism("cliff").fingerprint, "organism:cliff")
    with pytest.raises(CliffscopeError, match="rank the latents of this model"):
        again.check_model({**organism("cliff").fingerprint, "d_model": "64"}, "another")
    with pytest.raises(CliffscopeError, match=f"no latent {WIDTH} in the table"):
        again.row(WIDTH)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"contrast": "good-bad"}, "contrast 'good-bad': expected one of"),
        ({"at": "somewhere"}, "position 'somewhere': not a position"),
        ({"pool": "sum"}, "pool 'sum': expected one of max, mean"),
        ({"shuffles": 0}, "at least 1 shuffle"),
        ({"test_fraction": 1.0}, "share from 0 to below 1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        rank_latents(organism("cliff"), trained(), training_rollouts(), **options)


def test_rollouts_that_cannot_be_ranked_by() -> None:
    refused = [rollout for rollout in training_rollouts() if rollout.outcome != "complied"]
    with pytest.raises(CliffscopeError, match="none answered a harmful prompt"):
        rank_latents(organism("cliff"), trained(), refused)


def test_without_benign_rollouts_nothing_is_known_of_ordinary_tokens() -> None:
    harmful = [rollout for rollout in training_rollouts() if rollout.harmful]
    scores = rank_latents(organism("cliff"), trained(), harmful, shuffles=99)
    assert scores.table["generic_share"].isna().all() and not scores.table["generic"].any()
    assert scores.facts["ordinary_tokens"] == 0
    benign = [rollout for rollout in training_rollouts() if not rollout.harmful]
    given = rank_latents(organism("cliff"), trained(), harmful, generic=benign, shuffles=99, test_fraction=0)
    mine = given.table.set_index("latent").sort_index()["generic_share"]
    np.testing.assert_allclose(mine, ranked().table.set_index("latent").sort_index()["generic_share"])
