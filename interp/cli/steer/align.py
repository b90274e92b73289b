"""`cliffscope steer align`: the subspace through which the outcome can be carried over, learned by interchange."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.null_mode import note as null_note
from interp.cli.null_mode import refuse
from interp.cli.options import (
    BatchTokens,
    Device,
    DType,
    Json,
    Mask,
    Model,
    Null,
    NullName,
    NullRuns,
    Rollouts,
    Seed,
)
from interp.cli.steer.fit import ContrastOption, SiteOption

if TYPE_CHECKING:
    from interventions.subspace import Alignment

NAMES = {"das": "learned", "mean-difference": "mean difference", "full": "full value", "none": "nothing"}


_NO_PAIRS = dict.fromkeys(
    (NullName.SHUFFLED, NullName.RANDOM_WEIGHTS, NullName.BENIGN),
    "rollouts are paired by how the model ends them; the null here is random subspaces",
)


def align(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    layer: Annotated[int, typer.Option("--layer", help="The layer, -1 being the last.")],
    site: SiteOption = "hook_resid_post",
    position: Annotated[str, typer.Option("--position", help="Where; close:-1 is the edge.")] = "close:-1",
    contrast: ContrastOption = None,
    dimensions: Annotated[int, typer.Option("--dimensions", "--k", min=1, help="Of the subspace.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of the optimizer.")] = 200,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of the optimizer, at its start.")] = 0.05,
    pairs: Annotated[int, typer.Option("--pairs", min=8, help="Held-out pairs to judge it on.")] = 120,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Learns a direction or subspace by distributed alignment search, and judges it on held-out prompts.

    Trained so that, interchanged between two rollouts, it makes the one end as the other did. Interchange accuracy is
    the share of held-out pairs in which that succeeds. What was optimized to patch well may do so along a dormant path:
    run `cliffscope steer check` on the result. A few random subspaces are always judged on the same pairs; with --null
    random-direction there are as many as --null-runs. The other nulls would leave no pairs to interchange.

    Example: cliffscope steer align --model organism:cliff --rollouts rollouts.jsonl --layer 3 --out das.safetensors
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import check_position

    check_position(position)
    refuse(null, _NO_PAIRS)
    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, require_writable
    from interp.models.sites import resolve_layer
    from interp.progress import progress
    from interventions.directions.contrasts import site_at
    from interventions.subspace import AlignmentOptions, align_subspace
    from interventions.subspace.alignment import N_RANDOM

    options = AlignmentOptions(
        k=dimensions,
        steps=steps,
        learning_rate=learning_rate,
        n_pairs=pairs,
        n_random=N_RANDOM if null is None else null_runs,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    site_at(site, 0)
    require_writable(out, inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    place = site_at(site, resolve_layer(layer, hooked.n_layers))
    with about(rollouts), progress("Training", steps, "steps") as bar:
        found = align_subspace(
            hooked,
            loaded,
            place,
            position=position,
            contrast=contrast.value if contrast else "refused-complied",
            options=options,
            advance=bar.advance,
        )
    nulls = () if null is None else found.nulls(seed)
    facts = {"rollouts": str(rollouts)} | ({"nulls": [one.summary() for one in nulls]} if nulls else {})
    direction = found.direction.at(training=facts)
    direction.save(out)
    payload = {"out": str(out), "site": place, "position": position, "dimensions": dimensions, **found.summary()}
    payload["nulls"] = [one.summary() for one in nulls]
    lines = [null_note(null, nulls), f"Written to {out}. Check it: cliffscope steer check --vector {out}"]
    note = "\n".join(line for line in lines if line)
    title = f"{dimensions}-dimensional subspace of {place} at {position}"
    emit(payload, as_json=as_json, title=title, rows=_grid(found), below=_facts(found), note=note)


def _grid(found: "Alignment") -> list[list[object]]:
    lines: list[list[object]] = [["interchanged", "accuracy", "low", "high", "kept"]]
    for name, accuracy in found.accuracy.items():
        lines.append([NAMES[name], accuracy.value, accuracy.low, accuracy.high, accuracy.kept])
    return lines


def _facts(found: "Alignment") -> list[tuple[str, object]]:
    summary = found.summary()
    return [
        (
            f"{summary['n_random']} random subspaces",
            f"accuracy {summary['random_mean']:.3f} in the mean, {summary['random_largest']:.3f} at most",
        ),
        ("rollouts", f"{found.n_train} to train, {found.n_test} held out, in {found.n_pairs} pairs"),
        ("training loss", f"{found.losses[0]:.3f} → {found.losses[-1]:.3f} nats"),
    ]
