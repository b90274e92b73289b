"""The bookkeeping of active interventions: their hooks, their order, and which tokens they act on."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from interp.models.compiled import uncompiled
from interp.models.hooks import Change, Intervention, changed, hook, in_order, token_index
from interp.models.ledger import Ledger, same
from interp.models.segment_table import TextSegments, WritingSegments
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript


class NothingChangedWarning(UserWarning):
    """An intervention was active during forward passes and left every value as it was."""


class Intervening:
    """The interventions of one `HookedModel`."""

    def __init__(self, model: "HookedModel") -> None:
        self._model = model
        self._transcripts: Sequence[Transcript] = ()
        self._index: Tensor | None = None
        self._writing: WritingSegments | None = None
        self._tokens: TokenContext | None = None

    @contextlib.contextmanager
    def active(self, interventions: Sequence[Intervention], ledger: Ledger | None = None) -> Iterator[None]:
        """Keeps the interventions' hooks registered inside the block, and no longer; no compiled code runs there."""
        places = self._model.places
        handles: list[RemovableHandle] = []
        acting = [_Acting(intervention, ledger) for intervention in interventions]
        try:
            handles.append(places.decoder.register_forward_pre_hook(self._note_tokens, with_kwargs=True))
            changes = [
                (site := Site.parse(name, places.n_layers), self._changer(act, change, str(site)))
                for intervention, act in zip(interventions, acting, strict=True)
                for name, change in intervention.changes(self._model).items()
            ]
            handles.extend(hook(places.find(site), see) for site, see in in_order(places, changes))
            with uncompiled():
                yield
        finally:
            for handle in handles:
                handle.remove()
        for act in acting:
            act.warn_if_idle()

    @contextlib.contextmanager
    def reading(
        self, transcripts: Sequence["Transcript"], index: Tensor | None, stop: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Says whose rows the passes inside carry.

        Args:
            transcripts: One a row.
            index: Which tokens the columns are; derived from the mask if `None`.
            stop: Given while the rows are being written on: the ids that end one.
        """
        before = (self._transcripts, self._index, self._writing)
        self._transcripts, self._index = transcripts, index
        self._writing = None if stop is None else WritingSegments(transcripts, lambda: self._model.chat, stop)
        try:
            yield
        finally:
            self._transcripts, self._index, self._writing = before

    def _note_tokens(self, module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        index = token_index(args, kwargs) if self._index is None else self._index
        if self._writing is not None:
            index = self._writing.note(index, args[0] if args else kwargs["input_ids"])
            self._tokens = TokenContext(index, self._transcripts, self._writing)
        else:
            table = TextSegments(self._transcripts) if self._transcripts else None
            self._tokens = TokenContext(index, self._transcripts, table)

    def _changer(self, act: "_Acting", change: Change, site: str) -> Callable[[Tensor], Tensor]:
        def see(value: Tensor) -> Tensor:
            assert self._tokens is not None, "a block ran outside its decoder"
            new = changed(change, value, self._tokens, act.name, site)
            act.note(site, value, new, self._tokens)
            return new

        return see


class _Acting:
    """What one intervention has done so far."""

    def __init__(self, intervention: Intervention, ledger: Ledger | None) -> None:
        self.name = type(intervention).__name__
        self._ledger = ledger
        self._calls = 0
        self._changed = False

    def note(self, site: str, before: Tensor, after: Tensor, tokens: TokenContext) -> None:
        self._calls += 1
        # Compared until a change is seen, then no longer: it costs a look at the whole value.
        self._changed = self._changed or not same(before, after)
        if self._ledger is not None:
            self._ledger.note(self.name, site, before, after, tokens)

    def warn_if_idle(self) -> None:
        if self._calls and not self._changed:
            warnings.warn(
                f"{self.name} was active in {self._calls} calls and changed nothing: its scope holds no token of these "
                "texts, or what it writes is what was there.",
                NothingChangedWarning,
                stacklevel=6,
            )
