"""Interchange screening: which heads carry the difference between refusing and complying, in both directions.

For pairs of a refused and a complied rollout, aligned at named positions, and for every head alone:

- sufficiency: the refused rollout's z is put into the complied run; how far the refusal logit rises,
- necessity: the complied rollout's z is put into the refused run; how far the refusal logit falls.

The score is the mean of the two over all pairs. After "How alignment routes" (arXiv 2604.04385), with departures: the
measure is the refusal logit, not the likelihood of one opening; positions are aligned by name; and each rollout's swap
with itself, which must change nothing, is checked first. What a swap finds is a head that carries the difference.
Whether it suppresses refusal in the one rollout or brings it about in the other, only its ablation tells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.cases import Cases, to_explain
from circuits.head_scores import MAX_Q, HeadScores
from circuits.sweeps.effects import SweepEffects
from circuits.sweeps.readouts import PROBE_LOGIT, REFUSAL_LOGIT, Readouts
from circuits.sweeps.tail import sweep_tail
from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS, token_indices
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.pairs import N_PAIRS, AlignedPair, by_rollout, choose_pairs
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

N_CHECKED = 4
"""Pairs whose rollouts are first swapped with themselves."""


def interchange(
    model: "HookedModel",
    recipients: Sequence[Transcript],
    donors: Sequence[Transcript],
    readouts: Readouts,
    *,
    positions: Sequence[str | int] = (EDGE,),
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> SweepEffects:
    """The readouts at each recipient's edge when one head's z at the positions is its donor's, for every head alone.

    Args:
        model: The model; interventions that are active on it act.
        recipients: Whose passes are changed.
        donors: Whose z is put there, one a recipient. Whether they align is not asked: see `interventions.pairs`.
        readouts: What to read.
        positions: Names or token indices as in `Transcript.position`; what follows an edge is cut off before.
        batch_tokens: Token budget of a pass.
        advance: Told how many recipients more are done.

    Raises:
        CliffscopeError: If a transcript lacks a position or an edge; and as `sweep_tail` does.
    """
    sources = list(dict.fromkeys(donors))
    row_of = {source: row for row, source in enumerate(sources)}
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(model.n_layers)]
    values = model.capture([source.until_edge() for source in sources], sites, positions, batch_tokens=batch_tokens)
    cut = [recipient.until_edge() for recipient in recipients]
    index = token_indices(cut, positions)
    start = index.amin(1)

    def replace(row: int, layer: int, z: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "pos head d_head"]:
        new = z.clone()
        new[index[row] - start[row]] = values[sites[layer]][row_of[donors[row]]].to(z)
        return new

    return sweep_tail(model, cut, readouts, replace, start=start.tolist(), batch_tokens=batch_tokens, advance=advance)


def screen(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    *,
    n_pairs: int = N_PAIRS,
    positions: Sequence[str | int] = (EDGE,),
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> HeadScores:
    """Heads by the mean of sufficiency and necessity over pairs of a refused and a complied rollout.

    A head is confirmed if it is causal in both directions: each is above 0 with a q below `MAX_Q`. Pairs that share a
    rollout are not independent: intervals and p are over rollouts, not pairs (`interventions.pairs.by_rollout`), and by
    prompt. Columns of the table's own: `sufficiency` and `necessity`, each with `_low`, `_high`, `_p` and `_q`, and
    `probe_score`, the same mean for the probe's logit.

    Args:
        model: The model.
        probe: Its logit is read besides.
        cases: The rollouts.
        n_pairs: Different pairs; all there are if there are fewer.
        positions: Where values are interchanged: at all of them at once.
        seed: Of the choice of pairs, bootstrap and permutation.
        batch_tokens: Token budget of a pass.
        advance: Told how many pairs more are done in one of the two directions.

    Raises:
        CliffscopeError: If there are too few rollouts, a pair does not align, a swap of a rollout with itself changes
            something, or the probe does not fit the model.
    """
    facts: dict[str, Any] = {"positions": [str(position) for position in positions], "probe_site": probe.site}
    if cases.nothing is not None:
        return HeadScores.nothing("interchange", model, cases.nothing, facts)
    pairs = choose_pairs(cases.refused, cases.complied, n=n_pairs, positions=positions, seed=seed)
    readouts = Readouts.of(model, probe)
    refused, complied = [pair.refused for pair in pairs], [pair.complied for pair in pairs]
    few = [*refused[:N_CHECKED], *complied[:N_CHECKED]]
    identity = check_identity(model, few, readouts, positions=positions, batch_tokens=batch_tokens)
    both = [
        interchange(model, into, source, readouts, positions=positions, batch_tokens=batch_tokens, advance=advance)
        for into, source in ((complied, refused), (refused, complied))
    ]
    facts |= {"n_pairs_asked": n_pairs, "identity": identity}
    return score_pairs(model, pairs, both[0], both[1], prompts_by_id(cases), facts=facts, seed=seed)


def score_pairs(
    model: "HookedModel",
    pairs: Sequence[AlignedPair],
    into_complied: SweepEffects,
    into_refused: SweepEffects,
    prompt: Mapping[str, str],
    *,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> HeadScores:
    """The table of `screen`, from what was read of its pairs.

    Args:
        model: The model.
        pairs: The pairs.
        into_complied: What the refused rollouts' z does in the complied runs, pair by pair.
        into_refused: The reverse.
        prompt: The prompt of each rollout, by id.
        facts: For the table.
        seed: Of bootstrap and permutation.
    """
    sufficiency, necessity = into_complied.effect(REFUSAL_LOGIT), -into_refused.effect(REFUSAL_LOGIT)
    probe_score = (into_complied.effect(PROBE_LOGIT) - into_refused.effect(PROBE_LOGIT)).mean(0) / 2

    def scores(values: Tensor, **more: Any) -> HeadScores:
        names, of_rollouts = by_rollout(values.double().numpy(), pairs)
        gap = to_explain(into_complied.base[:, -1], into_refused.base[:, -1])
        clusters = [prompt[name] for name in names]
        return HeadScores.of("interchange", model, of_rollouts, to_explain=gap, clusters=clusters, seed=seed, **more)

    columns: dict[str, Float[np.ndarray, "layer head"]] = {}
    confirmed = np.ones((model.n_layers, model.n_heads), dtype=bool)
    for name, values in (("sufficiency", sufficiency), ("necessity", necessity)):
        alone = scores(values)
        columns |= {name: alone.grid(), **{f"{name}_{key}": alone.grid(key) for key in ("low", "high", "p", "q")}}
        confirmed &= (alone.grid() > 0) & (alone.grid("q") < MAX_Q)
    return scores(
        (sufficiency + necessity) / 2,
        confirmed=confirmed,
        columns={**columns, "probe_score": probe_score.double().numpy()},
        facts={**(facts or {}), "n_pairs": len(pairs)},
    )


def prompts_by_id(cases: Cases) -> dict[str, str]:
    """The prompt of each harmful rollout."""
    return {
        transcript.id: prompt
        for transcripts, outcome in ((cases.refused, "refused"), (cases.complied, "complied"))
        for transcript, prompt in zip(transcripts, cases.prompts(outcome), strict=True)
    }


def check_identity(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    readouts: Readouts,
    *,
    positions: Sequence[str | int] = (EDGE,),
    batch_tokens: int = BATCH_TOKENS,
) -> float:
    """The largest change of a readout when rollouts are swapped with themselves: rounding, relative to 1 + |readout|.

    Raises:
        CliffscopeError: If it is more than rounding.
    """
    effects = interchange(model, transcripts, transcripts, readouts, positions=positions, batch_tokens=batch_tokens)
    base = effects.base[:, None, None]
    errors = ((effects.changed - base).abs() / (1 + base.abs())).flatten(1).amax(1)
    # Half precision rounds by as much as the size of a batch changes the order of sums.
    allowed = 0.3 if torch.finfo(model.dtype).bits < 32 else 2e-3
    worst = int(errors.argmax())
    if not errors[worst] <= allowed:
        raise CliffscopeError(
            f"rollout {transcripts[worst].id!r}: a head's own value put in its place changes a readout by "
            f"{errors[worst]:.2g} of its size, more than rounding ({allowed:g}); {model.name} cannot be screened."
        )
    return float(errors[worst])
