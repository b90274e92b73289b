"""Traces: nnsight reads their source, so they are written out here, and values are read in the order of the pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.models.hooked_model import HookedModel
from interp.models.sites import Site


@torch.no_grad()
def traced(lm: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The logits of all tokens that exist."""
    options = {"attention_mask": mask}
    if "GPT2" in type(lm._module).__name__:  # it counts padding, unless told where tokens are
        options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    with lm.trace(ids, **options):
        logits = lm.output.logits.save()
    return logits[mask.bool()]


def copied(value: Any) -> Tensor:
    """A hidden state as it is now: Falcon adds to it in place afterwards."""
    return (value[0] if isinstance(value, tuple) else value).clone()


@torch.no_grad()
def traced_values(model: HookedModel, sites: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
    """Values at sites and the logits, read by nnsight itself."""
    lm = model.as_nnsight()
    paths = {id(module): path for path, module in model.hf.named_modules()}
    ordered = sorted((Site.parse(site, model.n_layers) for site in sites), key=lambda site: site.depth)
    # A parallel block may run its MLP before its attention: one trace a site asks for no order.
    values = {}
    for site in ordered:
        place = model.places.find(site)
        envoy = lm.get(paths[id(place.module)])
        if place.end == "out":
            with lm.trace(ids):
                value = copied(envoy.output).save()
        else:
            with lm.trace(ids):
                value = copied(envoy.input).save()
        values[str(site)] = value
    with lm.trace(ids):
        logits = lm.output.logits.save()
    return {**values, "logits": logits}
