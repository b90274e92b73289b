"""The readouts at the edge as functions of the heads' outputs z, from a pass that can be repeated."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial

from jaxtyping import Float
from torch import Tensor

from circuits.sweeps.readouts import Readouts
from interp.judges.edge_logit import refusal_logit
from interp.models.capture import take_columns
from interp.models.hooks import hook
from interp.models.passes import Pass
from interp.models.sites import Site
from probes.trajectory import check_probe


def values_of(
    tokens: Pass, readouts: Readouts, layers: Iterable[int], change: Callable[[int, Tensor], Tensor]
) -> list[Float[Tensor, " batch"]]:
    """Each readout at the edge, when z of the layers is what `change` makes of it."""
    model = tokens.model
    read: dict[str, Tensor] = {}
    values = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            place = model.places.find(Site(layer, "attn.hook_z"))
            stack.callback(hook(place, partial(change, layer)).remove)
        if readouts.probe is not None:
            site = Site.parse(check_probe(model, readouts.probe), model.n_layers)
            stack.callback(hook(model.places.find(site), partial(read.__setitem__, "probe")).remove)
        logits = tokens.run(model.places.decoder) if readouts.refusal_tokens is None else tokens.logits()
    if readouts.probe is not None:
        seen = read["probe"]
        values.append(readouts.probe.logit(take_columns(seen, tokens.edge.to(seen.device))[:, 0]))
    if readouts.refusal_tokens is not None:
        values.append(refusal_logit(logits, readouts.refusal_tokens))
    return values
