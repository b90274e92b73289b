"""The figures by which an organism is judged, measured on held-out prompts with greedy decoding."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.judges import KeywordJudge, RefusalOpenings, judged, refusal_token_ids
from interp.models.hooked_model import HookedModel
from interp.organisms.hooks import Head, random_heads, zeroed_heads
from interp.organisms.prompt_set import as_prompt_set
from interp.organisms.prompts import GeneratedPrompt, sample_prompts, words
from interp.organisms.tokenizer import CLOSE
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE

# Four times the usual one: these models are tiny, and the time goes by steps, not by rows.
_BATCH_TOKENS = 131_072
_TRAPS = 200
_RANDOM_PAIRS = 10


def refusal_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The first tokens of the organisms' own refusal openings."""
    return refusal_token_ids(tokenizer, CLOSE, RefusalOpenings(tuple(words("replies")["refusal_openings"])))


def figures(
    model: HookedModel,
    heads: Sequence[Head] = (),
    n: int = 200,
    seed: int = 10_000,
    heldout: Callable[[str, int, int], Sequence[GeneratedPrompt]] = sample_prompts,
) -> dict[str, Any]:
    """Measures an organism on `n` held-out harmful and `n` benign prompts and on traps.

    Args:
        model: The organism.
        heads: Its planted heads, to be zeroed.
        n: Number of prompts of each kind; at most 200 traps.
        seed: Of the prompts and of the random heads.
        heldout: Draws harmful and benign prompts: kind, number, seed.

    Returns:
        `asr`, `benign_refused`, `trap_refused` (by `KeywordJudge`), `says_refuse` (share of complied thinking that
        says "refuse"), `unclosed`, and with `heads` `zeroing`: the mean probability at the edge that a refusal
        begins, with none, with them and with as many random heads zeroed.
    """
    generator = ModelGenerator(model, max_new_tokens=300, batch_tokens=_BATCH_TOKENS)
    rollouts = {
        kind: judged(generator.generate(as_prompt_set(draw(kind, count, seed))), KeywordJudge())
        for kind, count, draw in (
            ("harmful", n, heldout),
            ("benign", n, heldout),
            ("trap", min(n, _TRAPS), sample_prompts),
        )
    }
    complied = [r for r in rollouts["harmful"] if r.refused is False]
    result: dict[str, Any] = {
        "asr": len(complied) / n,
        "benign_refused": _refused(rollouts["benign"]),
        "trap_refused": _refused(rollouts["trap"]),
        "says_refuse": _share([r for r in complied if "refuse" in (r.thinking or "")], complied),
        "unclosed": sum(r.response is None for some in rollouts.values() for r in some),
    }
    if heads and complied:
        result["zeroing"] = _zeroing(model, model.transcripts().build_all(complied[:100]), heads, seed)
    return result


def _refused(rollouts: Sequence[Rollout]) -> float | None:
    return _share([r for r in rollouts if r.refused is not False], rollouts)


def _share(some: Sequence[Any], of: Sequence[Any]) -> float | None:
    return len(some) / len(of) if of else None


def _zeroing(model: HookedModel, complied: Sequence[Transcript], heads: Sequence[Head], seed: int) -> dict[str, float]:
    """Mean probability at the edge that the next token begins a refusal, with some heads zeroed."""
    rng = random.Random(seed)
    pairs: list[list[Head]] = []
    while len(pairs) < _RANDOM_PAIRS:
        pair = random_heads(model.hf, len(heads), rng)
        if not set(pair) & set(heads):
            pairs.append(pair)
    tokens = list(refusal_tokens(model.tokenizer))

    def probability(logits: Float[Tensor, "batch position d_vocab"]) -> Float[Tensor, "batch position"]:
        return logits.softmax(-1)[..., tokens].sum(-1)

    def mean(zeroed: Sequence[Head]) -> float:
        with zeroed_heads(model.hf, list(zeroed)):
            return model.logits(complied, [EDGE], reduce=probability).mean().item()

    others = [mean(pair) for pair in pairs]
    return {
        "none": mean(()),
        "planted": mean(heads),
        "random_mean": sum(others) / len(others),
        "random_most": max(others),
    }
