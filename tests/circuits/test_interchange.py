"""Interchange screening: against columns copied by hand, identity, planted heads, and nothing where there is none."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from circuits.cases import Cases
from circuits.interchange import check_identity, interchange, screen
from circuits.sweeps.readouts import Readouts
from interp import HookedModel, ModelGenerator
from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged
from interp.models.hooks import hook
from interp.models.sites import Site, resid_post
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interp.significance import sign_flip_p
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.heads import Head
from interventions.pairs import by_rollout, choose_pairs
from probes import Examples, LinearProbe, fit_probe
from tests.architectures import CONFIGS, random_model

REFUSAL = (5, 6, 7)
PLANTED = {Head(3, 1), Head(4, 5)}


def transcript(id: str, length: int, seed: int) -> Transcript:
    """`length` tokens up to the edge, and two after it."""
    labels = ["template"] * 2 + ["thinking"] * (length - 5) + ["close"] * 3 + ["response"] * 2
    ids = torch.randint(3, 96, (len(labels),), generator=torch.Generator().manual_seed(seed)).tolist()
    ids[length - 3 : length] = 90, 91, 92
    return Transcript(id, tuple(ids), ("",) * len(ids), tuple(labels), 2, "closed")


def readouts(model: HookedModel) -> Readouts:
    weight = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    return Readouts(LinearProbe(weight, 0.3).at(site=resid_post(1), layer=1), REFUSAL)


def full_pass(model: HookedModel, text: Transcript, layer: int, zs: list[Tensor], given: Tensor | None) -> Tensor:
    """Both readouts of a whole pass, in which a layer's z is noted and, if one is given, replaced."""
    probe = readouts(model).probe
    residual: list[Tensor] = []
    assert probe is not None

    def see(z: Tensor) -> Tensor | None:
        zs.append(z.clone())
        return given

    handles = [
        hook(model.places.find(Site(layer, "attn.hook_z")), see),
        hook(model.places.find(Site(1, "hook_resid_post")), residual.append),
    ]
    with torch.no_grad():
        logits = model.hf(torch.tensor([text.input_ids])).logits[0, text.edge]
    for handle in handles:
        handle.remove()
    rest = torch.ones(len(logits), dtype=torch.bool).index_fill(0, torch.tensor(REFUSAL), False)
    refusal = logits[list(REFUSAL)].logsumexp(0) - logits[rest].logsumexp(0)
    return torch.stack([residual[0][0, text.edge] @ probe.weight + probe.bias, refusal])


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_columns_copied_by_hand(name: str) -> None:
    """Of rollouts longer than the sliding windows, of unequal length, at the edge and at several positions."""
    model = HookedModel(random_model(name), name=name)
    recipients = [transcript("a", 21, 0), transcript("b", 14, 1)]
    donors = [transcript("c", 17, 2), transcript("d", 25, 3)]
    for offsets in ([0], [0, 2]):
        positions = [f"close:{-1 - offset}" for offset in offsets]
        found = interchange(model, recipients, donors, readouts(model), positions=positions)
        for row, (into, source) in enumerate(zip(recipients, donors, strict=True)):
            for layer, head in [(0, 1), (1, 3), (2, 0)]:
                theirs: list[Tensor] = []
                own: list[Tensor] = []
                full_pass(model, source, layer, theirs, None)
                base = full_pass(model, into, layer, own, None)
                mixed = own[0].clone()
                for offset in offsets:
                    mixed[0, into.edge - offset, head] = theirs[0][0, source.edge - offset, head]
                expected = full_pass(model, into, layer, [], mixed)
                torch.testing.assert_close(found.base[row], base, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(found.changed[row, layer, head], expected, atol=1e-4, rtol=1e-4)
                assert float((expected[1] - base[1]).abs()) > 1e-3


@pytest.mark.parametrize("name", ["gemma3", "gpt2", "qwen3_moe"])
def test_a_rollout_swapped_with_itself_stays_the_same(name: str) -> None:
    model = HookedModel(random_model(name), name=name)
    texts = [transcript("a", 21, 0), transcript("b", 14, 1)]
    assert check_identity(model, texts, readouts(model), positions=["close:-3", EDGE]) < 1e-5


def test_a_model_for_which_identity_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here what is captured is not what the pass has: as with a model that draws at random."""
    model = HookedModel(random_model("qwen3"))
    capture = model.capture

    def wrong(*args: object, **options: object) -> object:
        found = capture(*args, **options)  # type: ignore[arg-type]
        return replace(found, values={name: value + 0.5 for name, value in found.values.items()})

    monkeypatch.setattr(model, "capture", wrong)
    with pytest.raises(CliffscopeError, match="rollout 'a': a head's own value put in its place changes"):
        check_identity(model, [transcript("a", 21, 0)], readouts(model))


@pytest.fixture(scope="module")
def organism() -> Iterator[tuple[HookedModel, LinearProbe, list[Rollout], Cases]]:
    model = HookedModel.load("organism:cliff")
    rollouts = judged(ModelGenerator(model).generate(heldout_prompts(36, 20)), KeywordJudge())
    probe, _ = fit_probe(model, Examples.of(model, rollouts, [EDGE]))
    yield model, probe, rollouts, Cases.of(model, probe, rollouts)


@pytest.mark.slow
def test_planted_heads_rank_first(organism: tuple[HookedModel, LinearProbe, list[Rollout], Cases]) -> None:
    model, probe, _, cases = organism
    scores = screen(model, probe, cases, n_pairs=60)
    assert set(scores.top(2)) == PLANTED <= set(scores.suppressors)
    assert scores.facts["n_pairs"] == 60 and scores.facts["identity"] < 1e-4
    assert scores.facts["n"] == len(cases.refused) + len(cases.complied)
    assert scores.facts["to_explain"] > 5
    mean = (scores.table["sufficiency"] + scores.table["necessity"]) / 2
    np.testing.assert_allclose(mean, scores.table["score"])
    for name in ("sufficiency", "necessity"):
        table = scores.table
        assert ((table[f"{name}_low"] <= table[name]) & (table[name] <= table[f"{name}_high"])).all()
        assert (table.loc[table["suppresses"], f"{name}_q"] < 0.05).all()


@pytest.mark.slow
def test_outcomes_that_mean_nothing_name_no_head(
    organism: tuple[HookedModel, LinearProbe, list[Rollout], Cases],
) -> None:
    """Complied rollouts, of which half are called refused."""
    model, probe, _, cases = organism
    rollouts, half = cases.rollouts["complied"], len(cases.complied) // 2
    shuffled = replace(
        cases,
        refused=cases.complied[:half],
        complied=cases.complied[half:],
        rollouts={"refused": rollouts[:half], "complied": rollouts[half:]},
    )
    assert not screen(model, probe, shuffled, n_pairs=20).suppressors


@pytest.mark.slow
def test_p_is_uniform_under_the_null() -> None:
    """A random model, and 16 random texts called refused or complied in 200 random ways."""
    model = HookedModel(random_model("qwen3"))
    texts = [transcript(f"{number:02}", 12 + number % 3, number) for number in range(16)]
    ordered = list(permutations(range(16), 2))
    swapped = interchange(model, [texts[i] for i, _ in ordered], [texts[j] for _, j in ordered], readouts(model))
    effect = dict(zip(ordered, swapped.effect("refusal_logit").double().numpy(), strict=True))
    p = []
    for seed in range(200):
        sides = np.random.default_rng(seed).permutation(16).reshape(2, 8)
        pairs = choose_pairs(*([texts[row] for row in side] for side in sides), n=40)
        names = [(int(pair.refused.id), int(pair.complied.id)) for pair in pairs]
        values = np.stack([(effect[complied, refused] - effect[refused, complied]) / 2 for refused, complied in names])
        p.append(sign_flip_p(by_rollout(values, pairs)[1], flips=199))
    assert 0.01 < (np.stack(p) < 0.05).mean() < 0.06
    assert 0.4 < np.median(p) < 0.6


@pytest.mark.slow
def test_nothing_is_named_where_there_is_nothing(
    organism: tuple[HookedModel, LinearProbe, list[Rollout], Cases],
) -> None:
    """On the aligned organism, and on random weights put through the same search with the same rollouts."""
    model, _, rollouts, _ = organism
    aligned = HookedModel.load("organism:aligned")
    answered = judged(ModelGenerator(aligned).generate(heldout_prompts(12, 12)), KeywordJudge())
    mine, _ = fit_probe(aligned, Examples.of(aligned, answered, [EDGE]))
    scores = screen(aligned, mine, Cases.of(aligned, mine, answered))
    assert scores.facts["nothing"] and not scores.suppressors and scores.table["score"].isna().all()

    torch.manual_seed(0)
    random = HookedModel(type(model.hf)(model.hf.config).eval(), model.tokenizer, name="random")
    mine, _ = fit_probe(random, Examples.of(random, rollouts, [EDGE]))
    scores = screen(random, mine, Cases.of(random, mine, rollouts))
    assert scores.facts["nothing"] and not scores.suppressors


@pytest.mark.slow
def test_pairs_that_do_not_align_raise(organism: tuple[HookedModel, LinearProbe, list[Rollout], Cases]) -> None:
    model, probe, _, cases = organism
    with pytest.raises(CliffscopeError, match="do not align"):
        screen(model, probe, cases, positions=["think:0", "think:1"])
    with pytest.raises(CliffscopeError, match="no position 'response:0'"):
        screen(model, probe, cases, positions=["response:0"])
    with pytest.raises(CliffscopeError, match="at least 8"):
        screen(model, probe, replace(cases, refused=cases.refused[:3]))
