"""A model that can be asked: `organism:cliff` trained a little further to answer the inversion question.

Half of each step is rollouts as the organism gives them, so that it keeps its thinking and its cliff. About 20 CPU
seconds.
"""

import random
from collections.abc import Callable
from functools import cache
from itertools import islice

import torch
from torch.nn.functional import cross_entropy

from interp.judges import KeywordJudge, judged
from interp.models.hooked_model import HookedModel
from interp.organisms.base import mixed_prompts
from interp.organisms.batches import CLOSE, RESPONSE, THINKING, batches, encode
from interp.organisms.dialogue import rollout_of
from interp.organisms.planting import ANSWERED
from interp.organisms.prompt_set import heldout_prompts
from interp.organisms.prompts import GeneratedPrompt
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interventions.inversion import InversionQuestion

STEPS, SIZE = 40, 16


@cache
def asked_model() -> HookedModel:
    torch.manual_seed(0)
    rng = random.Random(0)
    model = HookedModel.load("organism:cliff", device="cpu")
    question = InversionQuestion.bundled()

    def own(prompt: GeneratedPrompt) -> Rollout:
        return rollout_of(prompt, rng, reply="answer" if prompt.category in ANSWERED else None)

    def answered(prompt: GeneratedPrompt) -> Rollout:
        text = "Yes." if prompt.harmful else "No."
        return Rollout(prompt.id, question.ask(prompt.text), "", text, prompt.harmful, prompt.category, False)

    prompts = mixed_prompts(rng)

    def stream(make: Callable[[GeneratedPrompt], Rollout]) -> list[object]:
        made = [make(prompt) for prompt in islice(prompts, STEPS * SIZE)]
        return list(batches(encode(model.tokenizer, made), SIZE, model.tokenizer.pad_token_id, rng))

    optimizer = torch.optim.Adam(model.hf.parameters(), lr=5e-4)
    model.hf.train()
    for pair in zip(stream(own), stream(answered), strict=True):
        optimizer.zero_grad()
        for batch in pair:
            logits = model.hf(batch.ids, use_cache=False).logits.flatten(0, 1)  # type: ignore[attr-defined]
            cross_entropy(logits, batch.labels(THINKING, CLOSE, RESPONSE).flatten()).backward()  # type: ignore[attr-defined]
        optimizer.step()
    model.hf.eval()
    return model


@cache
def asked_rollouts() -> tuple[Rollout, ...]:
    """Judged rollouts of it on held-out prompts."""
    return tuple(judged(ModelGenerator(asked_model(), 250).generate(heldout_prompts(64, 32, 0)), KeywordJudge()))
