"""Steering by latents that must do something: a block that raises when a change in it changed nothing.

`HookedModel.intervene` warns of any intervention that changed nothing. For a latent that is most often a mistake (a
dead latent, one of another layer, a scope without tokens) whose result looks like a finding, so here it is an error. It
is raised when the block ends without another exception, never in place of one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError
from interp.models.ledger import Ledger
from interventions.latents.changes import Activity, LatentChange

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


class LatentsIdleError(CliffscopeError):
    """A change of latents was active and changed nothing."""


@contextlib.contextmanager
def intervene_latents(
    model: "HookedModel", *changes: LatentChange, ledger: Ledger | None = None
) -> Iterator["HookedModel"]:
    """`HookedModel.intervene` for changes of latents, each of which must change something.

    Args:
        model: The model.
        changes: What to change.
        ledger: Takes down which tokens were changed.

    Raises:
        LatentsIdleError: At the end, if passes ran in the block and a change left every activation as it was.
    """
    watched = [replace(change, activity=Activity()) for change in changes]
    with model.intervene(*watched, ledger=ledger):
        yield model
    for change in watched:
        require_acted(change)


def require_acted(change: LatentChange) -> None:
    """Raises `LatentsIdleError` if a change that has an `Activity` was there in passes and changed nothing."""
    activity = change.activity
    if activity is None or not activity.passes or activity.changed:
        return
    if not activity.tokens:
        raise LatentsIdleError(
            f"{change}: changed nothing: the scope {change.scope!r} holds no token of these texts (the first one is "
            "left out unless asked for); choose a wider scope."
        )
    raise LatentsIdleError(
        f"{change}: changed nothing at the {activity.tokens:,} tokens of the scope {change.scope!r}: {change.idle}. "
        "Choose another latent, dose or scope; `cliffscope sae rank` tells where a latent is active."
    )
