"""`cliffscope steer fit`: a direction, or a transport map, from rollouts."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.null_mode import note, refuse, set_against
from interp.cli.options import BatchTokens, Device, DType, Json, Mask, Model, Null, NullName, NullRuns, Rollouts, Seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interp.models.hooked_model import HookedModel
    from interp.null_runs import NullRuns as FoundNull
    from interp.rollouts import Rollout
    from interventions.directions import Direction
    from interventions.steering.transport import GaussianMap


class Kind(StrEnum):
    """What a direction stands for."""

    REFUSAL = "refusal"
    HARMFULNESS = "harmfulness"


class Contrast(StrEnum):
    """Which rollouts are compared."""

    REFUSED_COMPLIED = "refused-complied"
    REFUSED_BENIGN = "refused-benign"
    HARMFUL_BENIGN = "harmful-benign"


class Method(StrEnum):
    """How a direction is fitted."""

    MEAN_DIFFERENCE = "mean-difference"
    PROBE = "probe"
    DISCRIMINANT = "discriminant"
    PAIRED_PCA = "paired-pca"


class FitMethod(StrEnum):
    """How a vector is fitted: a direction, or a transport map."""

    MEAN_DIFFERENCE = "mean-difference"
    PROBE = "probe"
    DISCRIMINANT = "discriminant"
    PAIRED_PCA = "paired-pca"
    TRANSPORT = "transport"


KindOption = Annotated[
    Kind,
    typer.Option(
        "--kind",
        help="refusal: refused against answered harmful prompts, at the edge; harmfulness: harmful against benign "
        "prompts, at inst.",
    ),
]
ContrastOption = Annotated[
    Contrast | None, typer.Option("--contrast", help="Which rollouts are compared, if not those of the kind.")
]
SiteOption = Annotated[
    str, typer.Option("--site", help="hook_resid_post, hook_attn_out, hook_mlp_out, … or ln_final.hook_out.")
]


def fit(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    kind: KindOption = Kind.REFUSAL,
    method: Annotated[
        FitMethod, typer.Option("--method", help="How; transport is a map from the negative to the positive group.")
    ] = FitMethod.MEAN_DIFFERENCE,
    contrast: ContrastOption = None,
    layer: Annotated[str, typer.Option("--layer", help="A number, -1 being the last, or auto: see above.")] = "auto",
    site: SiteOption = "hook_resid_post",
    position: Annotated[
        str | None, typer.Option("--position", help="Where to read, if not where the kind is; close:-1 is the edge.")
    ] = None,
    components: Annotated[
        int, typer.Option("--components", "--k", min=1, help="Dimensions of the transport map's subspace.")
    ] = 8,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Fits a direction from one group of rollouts to another, and judges it on held-out prompts.

    --layer auto: for harmfulness the deepest of the layers that separate held-out rollouts as well as the best one
    does; for refusal the layer chosen by measured effect, as `cliffscope steer choose` does at this one position. A
    transport map takes the layer that a mean difference would.

    --null sets the held-out AUROC beside that of the best layer where there is nothing to find. A transport map has no
    AUROC; and --null benign is none here, for refused and benign rollouts do differ.

    Example: cliffscope steer fit --model organism:cliff --rollouts rollouts.jsonl --kind refusal
    --out refusal.safetensors
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import check_position

    wanted = parse_layer(layer)
    if position is not None:
        check_position(position)
    if method is FitMethod.TRANSPORT:
        refuse(null, dict.fromkeys(NullName, "a transport map has no AUROC"))
    refuse(null, {"benign": "refused and benign rollouts do differ; --contrast refused-benign fits that direction"})
    loaded = read_rollouts(rollouts)
    from interp.cli.output import counts, emit
    from interp.cli.session import about, open_model, require_writable
    from interventions.directions import Direction, fit_map
    from interventions.directions.contrasts import site_at

    site_at(site, 0)
    require_writable(out, inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    shared: dict[str, Any] = {"kind": kind.value, "contrast": contrast and contrast.value, "site": site, "seed": seed}
    shared["batch_tokens"] = batch_tokens
    vector: Direction | GaussianMap
    nulls: tuple[FoundNull, ...] = ()
    with about(rollouts):
        if method is FitMethod.TRANSPORT:
            chosen = wanted
            if chosen is None:
                chosen = fit_at(hooked, loaded, None, position, "mean-difference", **shared).layer
            assert chosen is not None, "directions from rollouts know their layer"
            vector = fit_map(hooked, loaded, chosen, position=position, components=components, **shared)
        else:
            vector = fit_at(hooked, loaded, wanted, position, method.value, **shared)
            vector, nulls = _judged(hooked, loaded, vector, wanted, null, null_runs, shared)
    vector = vector.at(training={"rollouts": str(rollouts)})
    vector.save(out)
    facts = vector.training
    payload: dict[str, Any] = {"out": str(out), "kind": kind.value, "method": method.value, "layer": vector.layer}
    payload |= {"site": vector.site, "position": vector.position, **facts}
    payload |= {"scale": vector.scale} if isinstance(vector, Direction) else {}
    rows: list[tuple[object, ...]] = [("kind", kind.value), ("method", method.value), ("contrast", facts["contrast"])]
    rows += [("layer", vector.layer), ("site", vector.site), ("position", vector.position)]
    rows += [("rollouts", _used(facts)), ("left out", counts(facts["skipped"])), *_figures(vector)]
    from probes.category_search import warning

    doubt = warning(facts, "direction")
    payload["warning"] = doubt
    lines = [f"Warning: {doubt}." if doubt else "", facts.get("reason", ""), note(null, nulls), f"Written to {out}."]
    told = "\n".join(line for line in lines if line)
    emit(payload, as_json=as_json, title="Steering vector", rows=rows, note=told)


def _judged(
    model: "HookedModel",
    rollouts: "list[Rollout]",
    direction: "Direction",
    layer: int | None,
    null: NullName | None,
    runs: int,
    shared: "Mapping[str, Any]",
) -> "tuple[Direction, tuple[FoundNull, ...]]":
    """The direction with its figures on held-out categories, and beside those of a null."""
    from interventions.directions.contrasts import examples_of
    from interventions.directions.held_out import auroc_of_direction, category_facts_of, random_direction_runs
    from probes.nulls import AUROC, AUROC_BY_CATEGORY, World

    kind, site, seed, batch_tokens = (shared[name] for name in ("kind", "site", "seed", "batch_tokens"))
    contrast, position, method = direction.training["contrast"], direction.position, direction.method
    assert position is not None and direction.layer is not None, "directions from rollouts know their place"
    examples = examples_of(model, rollouts, contrast, [position])
    # A layer that was chosen by effect was not chosen by this figure: it is kept.
    searched = None if layer is None and kind != Kind.REFUSAL else [direction.layer]
    facts = category_facts_of(model, examples, searched, site, method=method, seed=seed, batch_tokens=batch_tokens)
    by_category = "auroc_held_out_category" in facts
    nulls: tuple[FoundNull, ...] = ()
    if null is NullName.RANDOM_DIRECTION:
        nulls = (random_direction_runs(model, examples, direction, runs=runs, seed=seed, batch_tokens=batch_tokens),)
    elif null is not None:
        layers = None if layer is None else [layer]
        analysis = auroc_of_direction(kind, contrast, position, layers, site, method, seed, by_category)
        observed = {AUROC: float(direction.training["auroc"])}
        observed |= {AUROC_BY_CATEGORY: facts["auroc_held_out_category"]} if by_category else {}
        world = World(model, tuple(rollouts), None, batch_tokens)
        nulls = set_against(null, runs, seed, world, analysis, observed)
    facts |= {"nulls": [one.summary() for one in nulls]} if nulls else {}
    return direction.at(training=facts), nulls


def parse_layer(text: str) -> int | None:
    """A layer's number; `None` for `auto`. Raises `CliffscopeError` for anything else."""
    from interp.errors import CliffscopeError

    try:
        return None if text == "auto" else int(text)
    except ValueError as error:
        raise CliffscopeError(f"--layer {text!r}: expected auto or a number.") from error


def fit_at(
    model: "HookedModel",
    rollouts: "list[Rollout]",
    layer: int | None,
    position: str | None,
    method: str,
    **shared: Any,
) -> "Direction":
    """The direction at a layer, or at the one that `auto` (`None`) stands for."""
    from interp.models.sites import FINAL_NORM
    from interp.progress import progress
    from interventions.directions import ChoiceOptions, best_layer, choose_direction, fit_directions
    from interventions.directions.contrasts import defaults_of

    _, position = defaults_of(shared["kind"], shared["contrast"], position)
    if layer is not None or shared["kind"] != Kind.REFUSAL or shared["site"] == FINAL_NORM:
        layers = None if layer is None else [layer]
        fitted = fit_directions(model, rollouts, method=method, layers=layers, position=position, **shared)
        return fitted[best_layer(fitted)]
    options = ChoiceOptions(seed=shared.pop("seed"))
    with progress("Measuring", model.n_layers + options.n_random, "directions") as bar:
        choice = choose_direction(
            model, rollouts, method=method, positions=[position], options=options, advance=bar.advance, **shared
        )
    return choice.require("name the layer with --layer")


def _used(facts: "Mapping[str, Any]") -> str:
    fitted = [facts.get(f"n_{name}") for name in ("positive", "negative")]
    if None in fitted:
        fitted = [facts["n_target"], facts["n_source"]]
    held = [facts[f"n_test_{name}"] for name in ("positive", "negative")]
    return f"{fitted[0]} + {fitted[1]} to fit, {held[0]} + {held[1]} held out (positive + negative)"


def _figures(vector: "Direction | GaussianMap") -> list[tuple[object, ...]]:
    from interventions.directions import Direction

    facts = vector.training
    if not isinstance(vector, Direction):
        moved = f"{facts['distance_before']:.3f} before, {facts['distance_after']:.3f} after"
        return [("components", facts["components"]), ("distance of the held-out means", moved)]
    area = f"{facts['auroc']:.3f} [{facts['auroc_low']:.3f}, {facts['auroc_high']:.3f}]"
    held = f"– ({facts.get('no_held_out_category')})"
    if "auroc_held_out_category" in facts:
        ends = (facts[f"auroc_held_out_category{end}"] for end in ("", "_low", "_high"))
        held = "{:.3f} [{:.3f}, {:.3f}]".format(*ends)
    return [
        ("step (distance of the means)", vector.scale),
        ("held-out AUROC", area),
        ("AUROC, held-out categories", held),
    ]
