"""Interventions as plain data, for nnsight models that run on another machine.

What an intervention does to one batch depends on the values of the pass and on which tokens it carries. The tokens are
known beforehand, so a change is called here once with a stand-in for the value, and the operations of torch that it
does with it are written down. What is sent is that list with its tensors, and the source of the few functions that run
it (`interp.models.interop.remote`): the other machine needs torch and nnsight, not this package.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooks import Change, Intervention, changed, in_order, planned
from interp.models.interop.nnsight import Visit, edited, visits
from interp.models.interop.pass_tokens import DecoderCall, PassTokens
from interp.models.interop.recording import Recorder
from interp.models.interop.remote import SENT, Replay
from interp.models.interop.versions import require
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript


def frozen(
    lm: Any,
    interventions: Sequence[Intervention],
    input_ids: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    transcripts: Sequence["Transcript"] = (),
    generating: bool = False,
) -> Any:
    """An nnsight model on which interventions act on one batch, here or with `remote=True`.

        lm = nnsight.TransformersModel("meta-llama/Llama-3.1-70B-Instruct")   # no weights are loaded
        steered = frozen(lm, [a, b], ids, transcripts=[transcript])
        with steered.trace(ids, remote=True):
            logits = steered.output.logits[:, -1].save()

    Args:
        lm: An nnsight model, with or without weights; left as it is.
        interventions: They act in the order given. They may depend on a value by arithmetic, not by looking at it
            (`if value > 0`), and may not read the model's weights.
        input_ids: The batch that will be traced, as the model gets it.
        attention_mask: Where rows are padded.
        transcripts: One a row. Without them an intervention can act at all tokens only.
        generating: Also for `generate`: an intervention must then do the same at every generated token, as at all
            positions; what depends on what is being written cannot be told beforehand.

    Raises:
        CliffscopeError: If an intervention does not fit the model or cannot be frozen.
    """
    nnsight = require("nnsight")
    for module in SENT:
        nnsight.register(module)
    from interp.models.hooked_model import HookedModel

    model = HookedModel(lm._module, getattr(lm, "tokenizer", None), name=getattr(lm, "repo_id", None))
    now: list[TokenContext] = []
    sites = in_order(model.places, planned(model, interventions, partial(_doing, now)))
    steps = visits(lm, model, [(_sendable(site, generating), see) for site, see in sites])
    call = DecoderCall.of((), {"input_ids": input_ids.cpu(), "attention_mask": _on_cpu(attention_mask)})
    programs = [_program(model, steps, now, PassTokens(model, transcripts).of(call))]
    if generating:
        programs.append(_later_program(model, steps, now, call))
    replayed = Replay(programs)
    frozen_steps: list[Visit] = [
        (envoy, end, n_heads, partial(replayed.see, number)) for number, (envoy, end, n_heads, _) in enumerate(steps)
    ]
    return edited(lm, None, frozen_steps, replayed.begin)


def _sendable(site: Site, generating: bool) -> Site:
    """Where to change a site so that only its value travels, where model and interventions run in two processes.

    The input of a block comes with all other arguments, the KV cache among them, of which a copy would come back.
    """
    if site.name == "hook_resid_pre" and site.layer:
        return Site(site.layer - 1, "hook_resid_post")
    if site.name == "hook_resid_pre" and generating:
        raise CliffscopeError(
            f"{site} cannot be frozen for generation: a block's input is sent with its KV cache; take another site, "
            "such as blocks.0.hook_resid_post."
        )
    return site


def _doing(
    now: list[TokenContext], intervention: Intervention, change: Change, site: Site
) -> Callable[[Tensor], Tensor]:
    who = type(intervention).__name__

    def see(value: Tensor) -> Tensor:
        try:
            return changed(change, value, now[0], who, str(site))
        except (CliffscopeError, NotImplementedError, RuntimeError) as error:
            raise CliffscopeError(f"{who} at {site} cannot be frozen for another machine: {error}") from error

    return see


def _later_program(
    model: "HookedModel", steps: list[Visit], now: list[TokenContext], first: DecoderCall
) -> dict[str, Any]:
    """What is done at every token generated, if it is the same at the first two."""
    last = first.index.max(-1, keepdim=True).values
    one, two = (_program(model, steps, now, TokenContext(last + place)) for place in (1, 2))
    same_constants = one["constants"].keys() == two["constants"].keys() and all(
        torch.equal(tensor, two["constants"][number]) for number, tensor in one["constants"].items()
    )
    if one["visits"] != two["visits"] or not same_constants:
        raise CliffscopeError(
            "interventions that do something else at each generated token cannot be frozen for generation; freeze "
            "them for whole texts, or generate on this machine with `intervened`."
        )
    return one


def _program(model: "HookedModel", steps: list[Visit], now: list[TokenContext], tokens: TokenContext) -> dict[str, Any]:
    """What is done in one pass, as `Replay` takes it."""
    now[:] = [tokens]
    recorder = Recorder([*model.hf.parameters(), *model.hf.buffers()])
    rows = list(tokens.index.shape)
    shapes = [
        [*rows, model.d_model] if n_heads is None else [*rows, n_heads, model.d_head] for _, _, n_heads, _ in steps
    ]
    recorded: list[dict[str, Any]] = []
    with torch.no_grad():
        for shape, value, (*_, see) in zip(shapes, _stand_ins(model, shapes, 0), steps, strict=True):
            number = recorder.begin(value)
            with recorder:
                new = see(value)
            result = None if new is None else recorder.number_of(new)
            visit = {"shape": shape, "number": number, "operations": recorder.operations, "result": result, "kept": []}
            recorded.append(visit)
        _keep_for_later(recorded)
        program = {"visits": recorded, "constants": recorder.constants}
        replayed = Replay([program])
        replayed.begin(0, None)
        for number, (value, (*_, see)) in enumerate(zip(_stand_ins(model, shapes, 1), steps, strict=True)):
            new, again = see(value), replayed.see(number, value)
            if new is not again and (new is None or again is None or not torch.allclose(new, again, equal_nan=True)):
                raise CliffscopeError(
                    "interventions whose steps depend on the values (by an `if`, for instance) cannot be frozen."
                )
    return program


def _stand_ins(model: "HookedModel", shapes: Sequence[Sequence[int]], seed: int) -> list[Tensor]:
    """Values in place of a pass's; not zero, since some are divided by their norm."""
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=noise).to(model.dtype) for shape in shapes]


def _keep_for_later(visits: list[dict[str, Any]]) -> None:
    """Notes after each visit which of the tensors known by then a later one needs."""
    needed: set[int] = set()
    for place in reversed(range(len(visits))):
        earlier = {visit["number"] for visit in visits[:place]}
        made = {number for visit in visits[:place] for operation in visit["operations"] for number in operation[3]}
        mine = {visits[place]["number"], *(n for operation in visits[place]["operations"] for n in operation[3])}
        visits[place]["kept"] = sorted(needed & (mine | earlier | made))
        result = visits[place]["result"]
        needed |= _references(visits[place]["operations"]) | (set() if result is None else {result})


def _references(part: Any) -> set[int]:
    if isinstance(part, tuple) and len(part) == 2 and part[0] == "%":
        return {part[1]}
    if isinstance(part, dict):
        part = list(part.values())
    return set().union(*map(_references, part)) if isinstance(part, (list, tuple)) else set()


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
