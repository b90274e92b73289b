"""Heads ranked by how much refusal returns when each alone is ablated: the exact sweep over complied rollouts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation import Scope, ablation_sweep
from circuits.cases import Cases, to_explain
from circuits.head_scores import HeadScores
from circuits.sweeps.readouts import PROBE_LOGIT, REFUSAL_LOGIT, Readouts, edge_refusal_logits
from interp.models.capture import BATCH_TOKENS
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def score_ablation(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    *,
    scope: Scope = "from-edge",
    gamma: float = 0.0,
    means: Float[Tensor, "layer head d_head"] | None = None,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> HeadScores:
    """Heads by the rise of the refusal logit, in nats, when each alone is ablated in complied rollouts.

    What there is to explain is how far the refusal logit of complied rollouts falls short: see
    `circuits.cases.to_explain`. Columns of the table's own: `effect_refusal`, the mean rise of the refusal logit, which
    is the score; `effect_probe`, that of the probe's logit.

    Args:
        model: The model.
        probe: Its logit is read besides.
        cases: The rollouts.
        scope: Heads ablated at all positions, or from the edge on.
        gamma: What is kept of a head's output.
        means: What takes the place of the rest: mean outputs over reference rollouts; zero if not given.
        seed: Of bootstrap and permutation.
        batch_tokens: Most tokens of a pass.
        advance: Told how many rollouts more are done.

    Raises:
        CliffscopeError: As `ablation_sweep` does.
    """
    facts: dict[str, Any] = {"scope": scope, "gamma": gamma, "means": means is not None, "probe_site": probe.site}
    if cases.nothing is not None:
        return HeadScores.nothing("ablation", model, cases.nothing, facts)
    readouts = Readouts.of(model, probe)
    sweep = ablation_sweep(
        model,
        cases.complied,
        readouts,
        scope=scope,
        gamma=gamma,
        means=means,
        batch_tokens=batch_tokens,
        advance=advance,
    )
    rise = sweep.effect(REFUSAL_LOGIT).double().numpy()
    complied = sweep.base[:, sweep.readouts.index(REFUSAL_LOGIT)]
    return HeadScores.of(
        "ablation",
        model,
        rise,
        to_explain=to_explain(complied, refused_logits(model, cases, readouts, batch_tokens)),
        clusters=cases.prompts("complied"),
        columns={
            "effect_probe": sweep.effect(PROBE_LOGIT).double().numpy().mean(0),
            "effect_refusal": rise.mean(0),
        },
        facts={**facts, "refusal_logit_complied": float(complied.mean())},
        seed=seed,
    )


def refused_logits(
    model: "HookedModel", cases: Cases, readouts: Readouts, batch_tokens: int = BATCH_TOKENS
) -> Float[Tensor, "refused"]:
    """The refusal logits at the edge of the refused rollouts; empty if there are none."""
    if not cases.refused:
        return torch.empty(0)
    return edge_refusal_logits(model, cases.refused, readouts.refusal_tokens or (), batch_tokens)
