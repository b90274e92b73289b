"""Sets of heads exchanged: against the interchange of one head, and all of them make the donor."""

import pytest
import torch

from circuits.exchange import Exchange
from circuits.interchange import interchange
from circuits.sweeps.readouts import REFUSAL_LOGIT, Readouts
from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from interventions.heads import Head
from tests.circuits.material import organism, organism_rollouts

N = 6


def sides() -> tuple[list[Transcript], list[Transcript]]:
    """Some refused and as many complied rollouts of the organism."""
    model = organism("cliff")
    found: dict[str, list[Transcript]] = {"refused": [], "complied": []}
    for rollout in organism_rollouts("cliff"):
        if rollout.outcome in found and len(found[rollout.outcome]) < N:
            found[rollout.outcome].append(model.transcripts().build(rollout))
    return found["refused"], found["complied"]


def test_one_head_is_an_interchange() -> None:
    model = organism("cliff")
    refused, complied = sides()
    readouts = Readouts(refusal_tokens=Readouts.of(model).refusal_tokens)
    expected = interchange(model, complied, refused, readouts).effect(REFUSAL_LOGIT)
    exchange = Exchange(model, complied, refused)
    heads = [Head(4, 5), Head(3, 1), Head(0, 0), Head(5, 7)]
    found = exchange.of([], *([head] for head in heads))
    for row, head in enumerate(heads, start=1):
        torch.testing.assert_close(found[row] - found[0], expected[:, head.layer, head.head], atol=2e-3, rtol=1e-3)


def test_all_heads_make_the_donor_and_its_own_values_change_nothing() -> None:
    model = organism("cliff")
    refused, complied = sides()
    every = [Head(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    exchange, back = Exchange(model, complied, refused), Exchange(model, refused, complied)
    none, whole = exchange.of([], every)
    torch.testing.assert_close(whole, back.of([])[0], atol=2e-3, rtol=1e-3)
    same = Exchange(model, complied, complied).of([], every[:20], every)
    for row in same:
        torch.testing.assert_close(row, none, atol=2e-3, rtol=1e-3)


def test_sets_may_differ_between_rollouts_and_batches_do_not_matter() -> None:
    model = organism("cliff")
    refused, complied = sides()
    masks = torch.rand(2, N, model.n_layers, model.n_heads, generator=torch.Generator().manual_seed(0)) < 0.3
    whole = Exchange(model, complied, refused).logits(2, lambda rows, number: masks[number, list(rows)])
    small = Exchange(model, complied, refused, batch_tokens=1).logits(2, lambda rows, number: masks[number, list(rows)])
    torch.testing.assert_close(whole, small, atol=2e-3, rtol=1e-3)
    for row in range(N):
        heads = [Head(*place) for place in masks[0, row].nonzero().tolist()]
        alone = Exchange(model, complied[row : row + 1], refused[row : row + 1]).of(heads)
        torch.testing.assert_close(alone[0, 0], whole[0, row], atol=2e-3, rtol=1e-3)


def test_what_does_not_fit_is_refused() -> None:
    refused, complied = sides()
    with pytest.raises(CliffscopeError, match="one donor a recipient, found 6, 5"):
        Exchange(organism("cliff"), complied, refused[:5])
    with pytest.raises(CliffscopeError, match=r"9\.0"):
        Exchange(organism("cliff"), complied, refused).of([Head(9, 0)])
