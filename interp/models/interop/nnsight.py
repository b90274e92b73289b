"""A model in nnsight: the same weights, and interventions that act in every trace and generation."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from interp.models.hooks import Intervention, Seen, changed, in_order, planned
from interp.models.interop.pass_tokens import DecoderCall, PassTokens
from interp.models.interop.remote import run_passes
from interp.models.interop.twin import twin
from interp.models.interop.versions import require
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

Visit = tuple[Any, str, int | None, Seen]
"""An envoy, which end of its module, the number of heads for per-head values, and what to do there."""


def as_nnsight(model: "HookedModel") -> Any:
    """An nnsight model whose parameters are the model's own; see `HookedModel.as_nnsight`.

    Raises:
        CliffscopeError: If nnsight is not installed, or hooks are on the model.
    """
    nnsight = require("nnsight")
    mine = twin(model, "nnsight")
    if model.tokenizer is None:
        return nnsight.NNsight(mine)
    # Told where the model is, or the pipeline inside would move it to the accelerator.
    place = {} if getattr(mine, "hf_device_map", None) else {"device": model.device}
    return nnsight.TransformersModel(mine, task="text-generation", tokenizer=copy.deepcopy(model.tokenizer), **place)


def intervened(
    lm: Any, model: "HookedModel", interventions: Sequence[Intervention], transcripts: Sequence["Transcript"] = ()
) -> Any:
    """An nnsight model on which interventions act, in every trace and at every token of a generation.

        lm = model.as_nnsight()
        steered = intervened(lm, model, [a, b], transcripts=[transcript])
        with steered.trace(torch.tensor([transcript.input_ids])):
            logits = steered.output.logits.save()

    They act before the code of a trace reads a value, whatever the order in which it reads. On several invokes they act
    on the whole batch.

    Args:
        lm: What `HookedModel.as_nnsight` gave; left as it is, as nnsight's `edit` leaves it.
        model: The model that it was made from.
        interventions: They act in the order given.
        transcripts: One a row of the batch, or the prompts of a generation. Without them an intervention can act at all
            tokens only.

    Raises:
        CliffscopeError: If an intervention does not fit this model. While running: if the rows are not the
            transcripts, or segments are asked for and there are none.
    """
    require("nnsight")
    rows = PassTokens(model, transcripts)
    now: list[TokenContext] = []

    def begin(step: int, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        now[:] = [rows.of(DecoderCall.of(*arguments))]

    def see(intervention: Intervention, change: Any, site: Site) -> Callable[[Tensor], Tensor]:
        who = type(intervention).__name__
        return lambda value: changed(change, value, now[0], who, str(site))

    decoder = _envoy(lm, model, model.places.decoder)
    return edited(lm, decoder, visits(lm, model, in_order(model.places, planned(model, interventions, see))), begin)


def visits(lm: Any, model: "HookedModel", steps: Sequence[tuple[Site, Seen]]) -> list[Visit]:
    """Where to go in a pass and what to do there, as `run_passes` takes it."""
    found = [(model.places.find(site), see) for site, see in steps]
    return [(_envoy(lm, model, place.module), place.end, place.n_heads, see) for place, see in found]


def edited(lm: Any, decoder: Any, steps: list[Visit], begin: Any) -> Any:
    """An nnsight model that goes through visits in each pass."""
    with lm.edit() as (_, changed_lm):
        run_passes(decoder, steps, begin)
    return changed_lm


def _envoy(lm: Any, model: "HookedModel", module: nn.Module) -> Any:
    """The envoy of a module's twin."""
    path = next(path for path, other in model.hf.named_modules() if other is module)
    return lm.get(path) if path else lm
