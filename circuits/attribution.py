"""Heads ranked by what they write against refusing, and confirmed by ablating them.

Steps (Yin et al. 2025, arXiv 2510.06036):
1. The contribution of every head along the probe's direction at the edge, from one forward pass over each rollout
   (`circuits.contributions` states what makes it exact). The score is minus the mean over complied rollouts.
2. What there is to explain is the mean fall of the probe's log-odds between plateau and edge, in the same unit.
3. A departure from the paper: what a head writes is not yet what it does. A suppression head must also raise the
   refusal logit when it alone is ablated at the edge, by the exact sweep, tested over rollouts with a q below 0.05.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from circuits.ablation import ablation_sweep
from circuits.cases import Cases
from circuits.contributions import contributions
from circuits.head_scores import MAX_Q, HeadScores
from circuits.sweeps.readouts import REFUSAL_LOGIT, Readouts
from interp.models.capture import BATCH_TOKENS
from interp.significance import benjamini_hochberg, sign_flip_p
from interp.transcripts.positions import EDGE
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript


def attribute(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> HeadScores:
    """Heads by their contribution against the probe's direction at the edge of complied rollouts.

    Columns of the table's own: `contribution_complied`, `contribution_refused` and `contribution_benign`, the mean
    contributions along the probe's unit direction (NaN without such rollouts); `after_probe`, whether the head lies
    behind the probe, whose logit it cannot change; `effect`, the mean rise of the refusal logit when the head alone is
    ablated at the edge of complied rollouts, and `effect_q`.

    Args:
        model: The model.
        probe: Reads the residual stream or the final norm's output.
        cases: The rollouts.
        seed: Of bootstrap and permutation.
        batch_tokens: Token budget of a batch.
        advance: Told how many rollouts more are done in the sweep, which takes longest.

    Raises:
        CliffscopeError: As `contributions` and `ablation_sweep` do.
    """
    facts: dict[str, Any] = {"probe_site": probe.site, "probe_layer": probe.layer, "position": EDGE}
    facts |= {f"n_{name}": len(getattr(cases, name)) for name in ("complied", "refused", "benign")}
    if cases.no_fall is not None or cases.cliff is None:
        return HeadScores.nothing("attribution", model, cases.no_fall or "no cliff was measured", facts)
    found = contributions(model, probe, cases.complied, batch_tokens=batch_tokens)
    written = found.heads.double().numpy()
    sweep = ablation_sweep(model, cases.complied, Readouts.of(model), batch_tokens=batch_tokens, advance=advance)
    effects = sweep.effect(REFUSAL_LOGIT).double().numpy()
    prompts = cases.prompts("complied")
    effect, effect_q = effects.mean(0), benjamini_hochberg(sign_flip_p(effects, clusters=prompts, seed=seed))
    after_probe = np.arange(model.n_layers)[:, None].repeat(model.n_heads, 1) >= found.n_attentions
    return HeadScores.of(
        "attribution",
        model,
        -written,
        to_explain=float(cases.cliff.of("complied", "fall").mean()) / found.length,
        clusters=prompts,
        confirmed=(effect > 0) & (effect_q < MAX_Q),
        columns={
            "contribution_complied": written.mean(0),
            "contribution_refused": _mean(model, probe, cases.refused, batch_tokens),
            "contribution_benign": _mean(model, probe, cases.benign, batch_tokens),
            "after_probe": after_probe,
            "effect": effect,
            "effect_q": effect_q,
        },
        facts={**facts, "completeness_error": float(found.error.max())},
        seed=seed,
    )


def _mean(
    model: "HookedModel", probe: LinearProbe, transcripts: "Sequence[Transcript]", batch_tokens: int
) -> Float[np.ndarray, "layer head"]:
    """The mean contributions over rollouts; NaN if there are none."""
    if not transcripts:
        return np.full((model.n_layers, model.n_heads), np.nan)
    return contributions(model, probe, transcripts, batch_tokens=batch_tokens).heads.double().mean(0).numpy()
