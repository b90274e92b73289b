"""The bookkeeping of active interventions: their hooks, their order, and which tokens they act on."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from interp.models.hooks import Intervention, TokenContext, hook_to_change, token_index
from interp.models.sites import Site

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript


class Intervening:
    """The interventions of one `HookedModel`."""

    def __init__(self, model: "HookedModel") -> None:
        self._model = model
        self._transcripts: Sequence[Transcript] = ()
        self._index: Tensor | None = None
        self._tokens: TokenContext | None = None

    @contextlib.contextmanager
    def active(self, interventions: Sequence[Intervention]) -> Iterator[None]:
        """Keeps the interventions' hooks registered inside the block, and no longer."""
        places = self._model.places
        handles: list[RemovableHandle] = []
        try:
            handles.append(places.decoder.register_forward_pre_hook(self._note_tokens, with_kwargs=True))
            for intervention in interventions:
                for name in intervention.sites(self._model):
                    site = Site.parse(name, places.n_layers)
                    handles.extend(hook_to_change(places, site, self._changer(intervention, str(site))))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def reading(self, transcripts: Sequence["Transcript"], index: Tensor | None) -> Iterator[None]:
        """Says whose rows the passes inside carry, and (unless derived from the mask) which tokens."""
        before = (self._transcripts, self._index)
        self._transcripts, self._index = transcripts, index
        try:
            yield
        finally:
            self._transcripts, self._index = before

    def _note_tokens(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        index = token_index(args, kwargs) if self._index is None else self._index
        self._tokens = TokenContext(index, self._transcripts)

    def _changer(self, intervention: Intervention, site: str) -> Callable[[Tensor], Tensor]:
        def change(value: Tensor) -> Tensor:
            assert self._tokens is not None, "a block ran outside its decoder"
            changed = intervention(site, value, self._tokens)
            if changed.shape != value.shape or changed.dtype != value.dtype:
                raise ValueError(
                    f"{type(intervention).__name__} at {site} returned {tuple(changed.shape)} {changed.dtype}, "
                    f"expected {tuple(value.shape)} {value.dtype}"
                )
            return changed

        return change
