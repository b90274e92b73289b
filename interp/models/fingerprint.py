"""Whether what was made for one model is used on another; needs no heavy library."""

from collections.abc import Mapping

from interp.errors import CliffscopeError


def require_same_model(
    what: str, made_for: str | None, mine: Mapping[str, str], found: Mapping[str, str], name: str, advice: str
) -> None:
    """Refuses a model that something was not made for; what has no fingerprint fits any.

    Args:
        what: What was made, for instance `probe`.
        made_for: The name of the model that it was made for.
        mine: Its fingerprint.
        found: The fingerprint of the model at hand.
        name: The name of the model at hand.
        advice: What to do.

    Raises:
        CliffscopeError: If the fingerprints differ, naming what differs.
    """
    differing = [
        f"{key} {value} there, {found.get(key, 'unknown')} here"
        for key, value in sorted(mine.items())
        if found.get(key) != value
    ]
    if differing:
        raise CliffscopeError(
            f"{what}: made for {made_for or 'another model'}, not for {name} ({'; '.join(differing)}); {advice}."
        )
