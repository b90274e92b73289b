"""Attribution patching: the effect of ablating every head, approximated from one forward and one backward pass.

    effect of ablating head h ≈ Σ_pos Σ_d_head (z_ablated − z) · ∂m/∂z

where m is the probe's or the refusal logit at the edge. After attribution patching (Nanda 2023; Syed et al. 2023, arXiv
2310.10348), which patches between two texts of equal length; here what is put in place of z is the ablated value on the
same text, so nothing has to align. It is exact where m is linear in z, and otherwise goes wrong where an ablation moves
a head out of the region in which the gradient holds: a saturated softmax, or a head that others make up for (Kramár et
al. 2024, arXiv 2403.00745, AtP*, whose corrections for queries, keys and dropped gradients are not made here). So the
table of `score_gradient` says how the order agrees with the exact sweep, and names heads that the exact sweep confirms.

Integrated gradients (`steps` > 0) average the gradient along the straight line from z to its ablated value, for all
heads of one layer at once, by the midpoint rule; summed over a layer's heads the effects then equal the exact effect of
ablating the whole layer as steps grow. This departs from EAP-IG, which moves the model's input and not a layer's z. It
mends the size of an effect that the gradient at one point underrates; and it credits a head with its part in what the
heads of its layer do together, so that its order agrees less with ablating each alone.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation import Scope, ablation, ablation_sweep
from circuits.ablation_scores import refused_logits
from circuits.cases import Cases, to_explain
from circuits.gradient_pass import values_of
from circuits.head_scores import MAX_Q, MIN_SHARE, HeadScores
from circuits.sweeps.effects import Replace, SweepEffects
from circuits.sweeps.readouts import PROBE_LOGIT, REFUSAL_LOGIT, Readouts
from interp.errors import CliffscopeError
from interp.models.batching import plan_batches, run_halving
from interp.models.capture import BATCH_TOKENS
from interp.models.passes import Pass, edge_pass, whole_pass, without_parameter_gradients
from interp.significance import benjamini_hochberg, sign_flip_p
from interp.transcripts import Transcript
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

KEPT = 4
"""How many times the memory of a forward pass a batch takes when every layer's intermediate values are kept."""


def gradient_effects(
    model: "HookedModel",
    transcripts: Sequence[Transcript],
    readouts: Readouts,
    *,
    scope: Scope = "all",
    gamma: float = 0.0,
    means: Float[Tensor, "layer head d_head"] | None = None,
    steps: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> SweepEffects:
    """What `circuits.ablation.ablation_sweep` measures exactly, to first order.

    A transcript costs one forward pass and one backward pass a readout; from the edge on, the backward pass goes
    through the edge alone. With integrated gradients it is a pass a layer and step.

    Args:
        model: The model; interventions that are active on it act. No parameter gets a gradient.
        transcripts: What to read, at their edges.
        readouts: What to read there.
        scope: Heads ablated at all positions, or from the edge on.
        gamma: What is kept of a head's output.
        means: What takes the place of the rest; zero if not given.
        steps: Points of the integral; 0 takes the gradient where the model is.
        batch_tokens: Token budget of a forward pass, padding included; one that keeps what a backward pass needs takes
            a quarter. A batch is halved when memory runs out.
        advance: Told how many transcripts more are done.

    Raises:
        CliffscopeError: If a transcript has no edge, the scope is unknown, gamma or the means are bad, the model is in
            training mode, or activations or gradients are NaN or infinite.
    """
    model.require_eval()
    prepare = {"all": whole_pass, "from-edge": edge_pass}.get(scope)
    if prepare is None:
        raise CliffscopeError(f"scope {scope!r}: expected all or from-edge.")
    cut = [transcript.until_edge() for transcript in transcripts]
    texts = [transcript.input_ids for transcript in cut]
    base = torch.zeros(len(texts), len(readouts.names))
    effects = torch.zeros(len(texts), model.n_layers, model.n_heads, len(readouts.names))
    replace = ablation(model, gamma, means)
    budget = batch_tokens // KEPT if scope == "all" else batch_tokens

    def run(rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        return _effects(prepare(model, cut, texts, rows), readouts, replace, steps)

    with without_parameter_gradients(model), torch.enable_grad():
        for batch in plan_batches([len(text) for text in texts], budget):
            for rows, (values, changes) in run_halving(batch, run):
                base[list(rows)], effects[list(rows)] = values, changes
                advance(len(rows))
    for transcript, row in zip(cut, effects, strict=True):
        if not row.isfinite().all():
            raise CliffscopeError(
                f"Rollout {transcript.id!r}: the model's activations or gradients are NaN or infinite; "
                "try --dtype float32."
            )
    names = tuple(transcript.id for transcript in cut)
    return SweepEffects(names, readouts.names, base, base[:, None, None] + effects)


def score_gradient(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    *,
    scope: Scope = "from-edge",
    gamma: float = 0.0,
    means: Float[Tensor, "layer head d_head"] | None = None,
    steps: int = 0,
    check: int = 8,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> HeadScores:
    """Heads by the approximated rise of the refusal logit when each is ablated in complied rollouts.

    A head is confirmed by the exact sweep from the edge on: the refusal logit rises, by at least `MIN_SHARE` of what is
    to be explained, with a q below `MAX_Q`. Columns of the table's own: `effect_probe` and `effect_refusal`,
    the mean approximated rise of either logit; `exact_refusal`, the mean rise of the refusal logit by that sweep.

    Args:
        model: The model.
        probe: Its logit is read besides.
        cases: The rollouts.
        scope: Heads ablated at all positions, or from the edge on.
        gamma: What is kept of a head's output.
        means: What takes the place of the rest; zero if not given.
        steps: Points of integrated gradients; 0 for none.
        check: How many rollouts to sweep exactly in the same scope. The facts' `rank_correlation` is Spearman's, over
            heads, between the mean approximated and the mean exact rise on them.
        seed: Of the draw of these rollouts, bootstrap and permutation.
        batch_tokens: Token budget of a pass.
        advance: Told how many rollouts more are done.

    Raises:
        CliffscopeError: If the probe does not fit the model; and as `gradient_effects` and `ablation_sweep` do.
    """
    facts: dict[str, Any] = {
        "scope": scope,
        "gamma": gamma,
        "means": means is not None,
        "steps": steps,
        "probe_site": probe.site,
    }
    if cases.nothing is not None:
        return HeadScores.nothing("gradient", model, cases.nothing, facts)
    readouts = Readouts.of(model, probe)
    change: dict[str, Any] = {"gamma": gamma, "means": means, "batch_tokens": batch_tokens}
    effects = gradient_effects(model, cases.complied, readouts, scope=scope, steps=steps, advance=advance, **change)
    rise = effects.effect(REFUSAL_LOGIT).double().numpy()
    refusal = Readouts(refusal_tokens=readouts.refusal_tokens)
    exact = ablation_sweep(model, cases.complied, refusal, **change).effect(REFUSAL_LOGIT).double().numpy()
    drawn = np.random.default_rng(seed).permutation(len(rise))[:check]
    same = exact[drawn]
    if scope == "all":
        chosen = [cases.complied[row] for row in drawn]
        same = ablation_sweep(model, chosen, refusal, scope=scope, **change).effect(REFUSAL_LOGIT).double().numpy()
    facts["rank_correlation"] = rank_correlation(rise[drawn].mean(0), same.mean(0))
    facts["rank_correlation_n"] = len(drawn)
    prompts = cases.prompts("complied")
    q = benjamini_hochberg(sign_flip_p(exact, clusters=prompts, seed=seed))
    whole = to_explain(effects.base[:, -1], refused_logits(model, cases, readouts, batch_tokens))
    return HeadScores.of(
        "gradient",
        model,
        rise,
        to_explain=whole,
        clusters=prompts,
        confirmed=(exact.mean(0) >= MIN_SHARE * whole) & (q < MAX_Q),
        columns={
            "effect_probe": effects.effect(PROBE_LOGIT).double().numpy().mean(0),
            "effect_refusal": rise.mean(0),
            "exact_refusal": exact.mean(0),
        },
        facts=facts,
        seed=seed,
    )


def rank_correlation(one: Float[np.ndarray, "*heads"], other: Float[np.ndarray, "*heads"]) -> float:
    """Spearman's rank correlation; NaN if either is the same everywhere."""
    ranks = pd.DataFrame({"one": one.ravel(), "other": other.ravel()}).rank()
    return float(ranks["one"].corr(ranks["other"]))


def _effects(
    tokens: Pass, readouts: Readouts, replace: Replace, steps: int
) -> tuple[Float[Tensor, "batch readout"], Float[Tensor, "batch layer head readout"]]:
    """The readouts of some rows, and the approximated effect of ablating each head."""
    model = tokens.model
    layers = range(model.n_layers)
    effects = torch.zeros(len(tokens.input_ids), model.n_layers, model.n_heads, len(readouts.names))
    if not steps:
        values = _add_products(effects, tokens, readouts, replace, layers, 0.0, 1.0)
        return torch.stack(values, -1).cpu(), effects
    with torch.no_grad():
        values = values_of(tokens, readouts, [], lambda layer, z: z)
    for layer in layers:
        for step in range(steps):
            _add_products(effects, tokens, readouts, replace, [layer], (step + 0.5) / steps, 1 / steps)
    return torch.stack(values, -1).cpu(), effects


def _add_products(
    effects: Float[Tensor, "batch layer head readout"],
    tokens: Pass,
    readouts: Readouts,
    replace: Replace,
    layers: Sequence[int],
    along: float,
    weight: float,
) -> list[Float[Tensor, " batch"]]:
    """Adds `weight` times each head's (z_ablated − z) · gradient to the effects of some layers, in float32.

    Args:
        effects: Is written to.
        tokens: The pass.
        readouts: What to differentiate.
        replace: Makes z_ablated of z.
        layers: Of which heads.
        along: Where the gradient is taken: z + along · (z_ablated − z).
        weight: Of this point.

    Returns:
        The readouts there.
    """
    points: dict[int, Tensor] = {}
    changes: dict[int, Tensor] = {}

    def at(layer: int, z: Tensor) -> Tensor:
        own = z.detach()
        # The same for every row, so that the rows can be taken as one.
        ablated = replace(0, layer, own.flatten(0, 1)).unflatten(0, own.shape[:2])
        changes[layer] = ablated.float() - own.float()
        # The first is a leaf: no gradient goes further back.
        point = z if z.requires_grad else z.detach().requires_grad_()
        points[layer] = point + (along * changes[layer]).to(z.dtype) if along else point
        return points[layer]

    values = values_of(tokens, readouts, layers, at)
    connected = [number for number, value in enumerate(values) if value.requires_grad]
    for number in connected:
        # Rows do not touch one another, so the gradient of their sum holds each row's own.
        gradients = torch.autograd.grad(
            values[number].sum(), list(points.values()), retain_graph=number != connected[-1], allow_unused=True
        )
        for layer, gradient in zip(points, gradients, strict=True):
            if gradient is not None:  # heads above the probe change nothing
                product = (gradient.float() * changes[layer]).sum(dim=(1, 3))
                effects[:, layer, :, number] += weight * product.cpu()
    return [value.detach() for value in values]
