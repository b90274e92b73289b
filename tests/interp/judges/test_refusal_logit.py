"""The refusal logit of a model agrees with what the model goes on to say."""

import pytest
import torch

from interp.judges import KeywordJudge, RefusalLogitJudge, judged
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator


@pytest.mark.slow
def test_the_edge_says_what_the_organism_will_answer() -> None:
    torch.set_num_threads(1)
    model = HookedModel.load("organism:cliff", device="cpu")
    rollouts = judged(ModelGenerator(model).generate(heldout_prompts(40, 20)), KeywordJudge())
    by_edge = RefusalLogitJudge.of(model).judge(rollouts)
    assert {rollout.refused for rollout in rollouts} == {True, False}
    agree = sum(edge.refused == rollout.refused for edge, rollout in zip(by_edge, rollouts, strict=True))
    assert agree >= 0.95 * len(rollouts)
    # The same from the whole model's logits, one rollout at a time.
    judge = RefusalLogitJudge.of(model)
    for rollout, judgement in zip(rollouts[:5], by_edge, strict=False):
        transcript = model.transcripts().build(rollout)
        with torch.no_grad():
            logits = model.hf(torch.tensor([transcript.input_ids])).logits[0, transcript.edge]
        p = torch.softmax(logits, -1)[list(judge.token_ids)].sum()
        assert judgement.score is not None
        assert torch.logit(p).item() == pytest.approx(judgement.score, abs=1e-2)
