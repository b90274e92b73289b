"""`cliffscope steer check`: does a direction work through what the model reads, or through a dormant path?"""

from enum import StrEnum
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
    NullRuns,
    Rollouts,
    Seed,
)
from interp.cli.steer.fit import ContrastOption
from interp.cli.steer.sweep import OF_THE_FIT
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interventions.subspace import SubspaceCheck

NAMES = {"direction": "along the direction", "read": "its read part", "unread": "its unread part", "full": "full value"}


class Readers(StrEnum):
    """How what is read downstream is found."""

    GRADIENTS = "gradients"
    WEIGHTS = "weights"


def check(
    model: Model,
    vector: Annotated[Path, typer.Option("--vector", help="A direction, or a subspace, at one site.")],
    rollouts: Rollouts,
    out: Annotated[Path | None, typer.Option("--out", help="A JSON file to write the figures to.")] = None,
    contrast: ContrastOption = None,
    readers: Annotated[
        Readers,
        typer.Option(
            "--readers", help="gradients of the logits at the edge, or weights where the site has one reader."
        ),
    ] = Readers.GRADIENTS,
    held: Annotated[
        float, typer.Option("--held", help="Share of held-out squared gradients that the read space is to hold.")
    ] = 0.99,
    pairs: Annotated[int, typer.Option("--pairs", min=8, help="Pairs of rollouts between which to interchange.")] = 120,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Tells a direction that the model uses from one that only patches well (the subspace illusion).

    The direction is split into the part that is read downstream and the part that is not. Interchanged between refused
    and answered rollouts, a faithful direction keeps its effect along the read part alone; in an illusion the unread
    part tells the rollouts apart, the read part lies dormant, and only both together do anything. Better use rollouts
    other than those that the direction was fitted on. --null random-direction interchanges along random directions too;
    the other nulls are of the direction's fit.

    Example: cliffscope steer check --model organism:cliff --vector refusal.safetensors --rollouts rollouts.jsonl
    """
    from interp.rollouts import read_rollouts

    refuse(null, OF_THE_FIT)
    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit, plain
    from interp.cli.session import about, open_model, require_writable
    from interventions.directions import Direction
    from interventions.steering.vectors import load_vector
    from interventions.subspace import check_subspace
    from interventions.subspace.check import random_effects
    from interventions.subspace.interchange import site_of
    from interventions.subspace.read_space import check_held

    check_held(held)
    direction = load_vector(vector)
    if not isinstance(direction, Direction):
        raise CliffscopeError(f"{vector}: a transport map moves along no one direction; check a direction.")
    if out is not None:
        require_writable(out, inputs=(vector, rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    with about(vector):
        site_of(hooked, direction)
    with about(rollouts):
        found = check_subspace(
            hooked,
            direction,
            loaded,
            contrast=contrast and contrast.value,
            readers=readers.value,
            held=held,
            n_pairs=pairs,
            seed=seed,
            batch_tokens=batch_tokens,
        )
    payload = {"model": hooked.name, "vector": str(vector), **found.summary()}
    note = found.words
    if null is not None:
        with about(rollouts):
            told = random_effects(
                hooked,
                direction,
                loaded,
                found,
                runs=null_runs,
                n_pairs=pairs,
                seed=seed,
                batch_tokens=batch_tokens,
            )
        payload["nulls"] = [told.summary()]
        note += f"\n{null_note(null, [told])}"
    if out is not None:
        import json

        from interp.files import write_text

        write_text(out, json.dumps(plain(payload), indent=2, ensure_ascii=False) + "\n")
        note += f"\nWritten to {out}."
    place = f"{found.place['site']}, {found.place['position']}, {found.place['contrast']}"
    emit(payload, as_json=as_json, title=f"{vector} at {place}", rows=_grid(found), below=_split(found), note=note)


def _grid(found: "SubspaceCheck") -> list[list[object]]:
    """One line a part: what interchanging it does."""
    lines: list[list[object]] = [["interchanged", "dimensions", "nats", "low", "high", "p", "share", "low", "high"]]
    for part, effect in found.effects.items():
        shares = [effect.share, effect.share_low, effect.share_high]
        lines.append([NAMES[part], effect.dimensions, effect.mean, effect.low, effect.high, f"{effect.p:.2g}", *shares])
    return lines


def _split(found: "SubspaceCheck") -> list[tuple[str, object]]:
    return [
        ("read space", f"{found.read_rank} dimensions by {found.readers}, {found.read_held:.1%} of held-out gradients"),
        ("of the direction's square", f"{found.read_share:.1%} read"),
        ("of the groups' difference", f"{found.unread_difference:.1%} along its unread part"),
        ("pairs", f"{found.place['n_pairs']} of {found.place['n_rollouts']} rollouts"),
    ]
