"""The mean loss of a segment against one unpadded pass a transcript."""

import math

import pytest
import torch

from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from selection import loss
from selection.loss import mean_loss
from tests.circuits.material import organism, organism_rollouts


def by_hand(model: HookedModel, transcript: Transcript, segment: str) -> float:
    ids = torch.tensor([transcript.input_ids])
    with torch.no_grad():
        logits = model.hf(ids).logits.double().log_softmax(-1)[0]
    places = transcript.indices(segment)
    return -sum(float(logits[place - 1, transcript.input_ids[place]]) for place in places) / len(places)


@pytest.mark.parametrize("segment", ["thinking", "close", "response"])
@pytest.mark.parametrize("values", [loss._VALUES, 40_000])
def test_it_is_the_mean_of_each_token(segment: str, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_VALUES", values)
    model = organism("cliff")
    transcripts = model.transcripts().build_all(organism_rollouts("cliff")[:5] + organism_rollouts("cliff")[70:75])
    found = mean_loss(model, transcripts, segment, batch_tokens=600)
    assert found == pytest.approx([by_hand(model, t, segment) for t in transcripts], rel=1e-3, abs=1e-5)


def test_what_is_not_there_has_no_loss() -> None:
    model = organism("cliff")
    made = [Rollout("a", "How?", "I think", None), organism_rollouts("cliff")[0], Rollout("b", "How?", "I think", "")]
    transcripts = model.transcripts().build_all(made)
    found = mean_loss(model, transcripts)
    assert math.isnan(found[0]) and math.isnan(found[2])
    assert found[1] == pytest.approx(by_hand(model, transcripts[1], "response"), rel=1e-3)
    assert mean_loss(model, []) == []
