"""Training by sae-lens' trainer: on which tokens, from which seed, and what is written down of it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import sae_lens
import torch

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interp.transcripts.positions import SEGMENTS
from interventions.latents import Latents, TrainingOptions, load_latents, train_latents
from interventions.latents.loading import at_site
from interventions.latents.reconstruction import reconstruction
from interventions.latents.tokens import TokenBatches, token_places
from tests.interventions.latents.material import (
    OPTIONS,
    SITE,
    organism,
    organism_rollouts,
    random_sae,
    trained,
    training_rollouts,
)

QUICK = TrainingOptions(width=32, steps=6, batch=64, k=4)


def transcripts(n: int = 6) -> list[Transcript]:
    return organism("cliff").transcripts().build_all(training_rollouts()[:n])


def rows(values: torch.Tensor) -> list[tuple[float, ...]]:
    """A set of activations, whatever their order; rounded, since batches differ in the arithmetic's order."""
    return sorted(tuple(round(x, 3) + 0.0 for x in row) for row in values[:, :6].tolist())


def by_hand(batch: list[Transcript], segments: tuple[str, ...]) -> torch.Tensor:
    """The same activations, one text at a time."""
    model, found = organism("cliff"), []
    for transcript in batch:
        places = [i for i, label in enumerate(transcript.labels) if label in segments and i != 0]
        if places:
            found.append(model.capture([transcript], [SITE], places)[SITE][0])
    return torch.cat(found)


@pytest.mark.parametrize("segments", [SEGMENTS, ("thinking",), ("close", "response")])
@pytest.mark.parametrize("buffer", [100_000, 150])
def test_each_token_of_the_segments_comes_once_a_round(segments: tuple[str, ...], buffer: int) -> None:
    batch = transcripts()
    expected = by_hand(batch, segments)
    batches = TokenBatches(organism("cliff"), batch, SITE, segments, size=1, buffer=buffer, batch_tokens=300)
    assert batches.n_tokens == len(expected)
    first, second = (torch.cat(list(islice(batches, len(expected)))) for _ in range(2))
    assert rows(first) == rows(expected) == rows(second)
    assert not torch.allclose(first, second)  # in another order


def test_the_first_token_is_never_among_them() -> None:
    for transcript in transcripts():
        assert token_places(transcript) == list(range(1, len(transcript)))
        assert transcript.tokens[0] == "<|bos|>"


def test_batches_carry_over_what_is_left_of_a_buffer() -> None:
    batch = transcripts()
    batches = TokenBatches(organism("cliff"), batch, SITE, SEGMENTS, size=64, buffer=150, seed=3)
    shapes = {tuple(part.shape) for part in islice(batches, 40)}
    assert shapes == {(64, 128)}
    again = TokenBatches(organism("cliff"), batch, SITE, SEGMENTS, size=64, buffer=150, seed=3)
    fresh = TokenBatches(organism("cliff"), batch, SITE, SEGMENTS, size=64, buffer=150, seed=3)
    other = TokenBatches(organism("cliff"), batch, SITE, SEGMENTS, size=64, buffer=150, seed=4)
    assert torch.equal(next(again), next(fresh)) and not torch.equal(next(fresh), next(other))


@pytest.mark.parametrize("architecture", ["batchtopk", "standard", "topk"])
def test_a_seed_is_all_the_chance_there_is(architecture: str) -> None:
    options = replace(QUICK, architecture=architecture)
    rollouts = training_rollouts()[:12]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = train_latents(organism("cliff"), rollouts, SITE, options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert train_latents(organism("cliff"), rollouts, SITE, options).digest == one.digest
    assert train_latents(organism("cliff"), rollouts, SITE, replace(options, seed=1)).digest != one.digest


def test_what_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    model, rollouts, steps = organism("cliff"), training_rollouts()[:12], []
    latents = train_latents(model, rollouts, "blocks.-4.hook_resid_post", QUICK, advance=lambda: steps.append(1))
    assert len(steps) == QUICK.steps and latents.site == "blocks.2.hook_resid_post"
    # No progress bar, no log, no folder of its own.
    assert capfd.readouterr() == ("", "") and list((tmp_path / "work").iterdir()) == []
    facts = latents.facts
    assert facts["tokens"] + facts["held_out"]["tokens"] == sum(len(t) - 1 for t in transcripts(12))
    assert facts["rollouts"]["count"] == 12 and facts["segments"] == list(SEGMENTS)
    other = [*rollouts[:-1], replace(rollouts[-1], response="Something else.")]
    changed = train_latents(model, other, SITE, QUICK).facts["rollouts"]
    assert changed["sha256"] != facts["rollouts"]["sha256"]
    metadata = latents.sae.cfg.metadata
    assert metadata.hook_name == SITE and metadata.model_name == "organism:cliff" and metadata.prepend_bos is True
    assert metadata.context_size == max(map(len, transcripts(12)))


def test_all_heads_of_a_layer(tmp_path: Path) -> None:
    model, site = organism("cliff"), "blocks.3.attn.hook_z"
    latents = train_latents(model, training_rollouts()[:12], site, QUICK)
    latents.save(tmp_path)
    value = model.capture(transcripts(3), [site], [4, 9])[site].flatten(0, 1)
    plain = sae_lens.SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(plain.encode(value), latents.encode(value), atol=1e-6, rtol=0)
    torch.testing.assert_close(load_latents(model, str(tmp_path)).encode(value), latents.encode(value))


@pytest.mark.slow
def test_training_learns_to_render_prompts_that_it_did_not_see() -> None:
    model = organism("cliff")
    unseen = model.transcripts().build_all(organism_rollouts("cliff")[:40])
    places = [token_places(transcript) for transcript in unseen]
    found = reconstruction(model, trained(), unseen, places)
    assert found.explained > 0.7
    assert abs(found.l0 - OPTIONS.k) < 2
    # By hand, on all tokens at once.
    h, latents = by_hand(unseen, SEGMENTS), trained()
    residue = (h - latents.sae(h)).square().sum() / (h - h.mean(0)).square().sum()
    assert found.explained == pytest.approx(1 - float(residue), abs=1e-4)
    assert found.l0 == pytest.approx(float((latents.encode(h) > 0).sum(1).float().mean()), rel=1e-4)
    untrained = at_site(model, random_sae(d_in=128, d_sae=256, hook_name=SITE, model_name="organism:cliff"))
    assert reconstruction(model, untrained, unseen, places).explained < 0


def _rollouts(n: int) -> Iterator[Rollout]:
    for rollout in training_rollouts()[:n]:
        yield replace(rollout, prompt="the same for all")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"architecture": "dense"}, "architecture 'dense': expected one of batchtopk, topk, standard"),
        ({"width": 0}, "width: expected at least 1, found 0"),
        ({"k": 33}, "33 latents cannot be active at once among 32"),
        ({"lr": 0.0}, "expected a rate above 0"),
        ({"lr": float("nan")}, "expected a rate above 0"),
        ({"segments": ("thoughts",)}, "segment 'thoughts': expected one of system"),
        ({"segments": ()}, "segments: none is given"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        replace(QUICK, **options)


def test_rollouts_that_cannot_be_trained_on() -> None:
    model = organism("cliff")
    with pytest.raises(CliffscopeError, match="1 different prompts; an SAE is trained on some"):
        train_latents(model, list(_rollouts(4)), SITE, QUICK)
    with pytest.raises(CliffscopeError, match=r"tokens of the segments close to train on, fewer than one step's 64"):
        train_latents(model, training_rollouts()[:4], SITE, replace(QUICK, segments=("close",)))
    with pytest.raises(CliffscopeError, match="There is no layer 6"):
        train_latents(model, training_rollouts()[:4], "blocks.6.hook_resid_post", QUICK)


def test_training_that_diverges_is_said() -> None:
    with pytest.raises(CliffscopeError, match="NaN or infinite; lower the learning rate"):
        train_latents(organism("cliff"), training_rollouts()[:6], SITE, replace(QUICK, lr=1e18))


def test_the_type_of_the_result() -> None:
    assert isinstance(trained(), Latents) and trained().n_latents == OPTIONS.width and trained().d_in == 128
    # What sae-lens trains with a batch's top k, it saves with a threshold for each token alone.
    assert trained().sae.cfg.architecture() == "jumprelu"
