"""Greedy tokens of the organism under an intervention: the same in Hugging Face, TransformerLens and nnsight."""

from collections.abc import Sequence

import pytest
import torch

from interp.models.generation import end_tokens
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Intervention
from interp.models.interop.nnsight import intervened
from interp.organisms.prompt_set import heldout_prompts
from interp.transcripts import Transcript
from interventions.head_ablation import MeanHeads, ScaleHeads
from interventions.head_values import HeadValues
from interventions.steering.along_direction import AblateDirection, AddDirection
from tests.circuits.material import organism, organism_rollouts
from tests.interp.models.interop.material import batch, direction

NEW = 110
"""Enough for the organism to think, close and answer."""


def prompts() -> list[Transcript]:
    model = organism("cliff")
    return [model.transcripts().prompt(prompt.text, prompt.id) for prompt in heldout_prompts(2, 1, 0)]


def interventions(model: HookedModel, name: str) -> list[Intervention]:
    site = "blocks.3.hook_resid_post"
    if name == "heads, from the edge on":
        return [ScaleHeads([(3, 1), (4, 5)], "from-edge")]
    if name == "mean of heads, in the thinking":
        references = [model.transcripts().build(r) for r in organism_rollouts("cliff")[:12]]
        values = HeadValues.of(model, references, [3])
        return [MeanHeads([(3, 1)], "thinking", values=values)]
    if name == "added at all tokens":
        return [AddDirection(direction(model, site), 0.4)]
    return [AddDirection(direction(model, site), 2.0, scope="response"), AblateDirection(direction(model, site, 1))]


def until_end(rows: list[list[int]], stop: Sequence[int]) -> list[list[int]]:
    return [row[: next((place for place, id in enumerate(row) if id in stop), len(row))] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["heads, from the edge on", "mean of heads, in the thinking", "added at all tokens", "in the response"]
)
def test_greedy_tokens_are_the_same(name: str) -> None:
    model = organism("cliff")
    texts, steps = prompts(), interventions(model, name)
    plain = model.generate(texts, max_new_tokens=NEW)
    with model.intervene(*steps):
        expected = model.generate(texts, max_new_tokens=NEW)
    assert expected != plain
    stop = end_tokens(model)
    ids, mask = batch(texts, "left")
    bridge = model.as_transformer_lens()
    hooks = model.as_transformer_lens_hooks(*steps, transcripts=texts)
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": stop[0], "verbose": False}
    for use_cache in (True, False) if name == "in the response" else (True,):
        with torch.no_grad(), bridge.hooks(fwd_hooks=hooks):
            found = bridge.generate(ids, attention_mask=mask, use_past_kv_cache=use_cache, **options)
        assert until_end(found[:, ids.shape[1] :].tolist(), stop) == expected
    lm = intervened(model.as_nnsight(), model, steps, texts)
    for _ in range(2 if name == "in the response" else 1):
        with torch.no_grad(), lm.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False) as tracer:
            found = tracer.result.save()
        assert until_end(found[:, ids.shape[1] :].tolist(), stop) == expected
