"""Which rollouts a direction is the difference of: two groups, the positive and the negative one.

    refused-complied   harmful prompts: refused (+) against answered (−)
    refused-benign     refused harmful (+) against answered benign (−): for models that answer nothing harmful
    harmful-benign     harmful (+) against benign prompts (−), whatever was answered

A contrast decides what the direction means. refused-benign confounds harm with refusal, as Arditi et al. 2024
(arXiv 2406.11717) do; refused-complied holds the harm fixed; harmful-benign read at `inst`, before any answer, is what
Zhao et al. 2025 (arXiv 2507.11878) call harmfulness.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import BLOCK_SITES, FINAL_NORM, Site
from interp.rollouts import Rollout
from interp.transcripts.positions import EDGE, check_position
from probes.examples import Examples
from probes.inputs import MIN_ROLLOUTS, check_activations
from probes.splits import prompt_keys

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

DEFAULTS = {"refusal": ("refused-complied", EDGE), "harmfulness": ("harmful-benign", "inst")}
"""The contrast and the position of each kind, where none is given."""

SITES = (*(name for name in BLOCK_SITES if name != "attn.hook_z"), FINAL_NORM)
"""Where a direction can be: sites of the model's width."""


@dataclass(frozen=True)
class Contrast:
    """A choice of two groups.

    Attributes:
        positive, negative: What the rollouts of a group did, in words.
        label: 1, 0, or `None` for a rollout of neither group.
        advice: What to do where a group is empty.
    """

    positive: str
    negative: str
    label: Callable[[Rollout], int | None]
    advice: str


def _by_outcome(positive: str, negative: str) -> Callable[[Rollout], int | None]:
    return lambda rollout: None if rollout.by_guard else {positive: 1, negative: 0}.get(rollout.outcome)


def _by_harm(rollout: Rollout) -> int | None:
    return None if rollout.harmful is None else int(rollout.harmful)


CONTRASTS: Mapping[str, Contrast] = {
    "refused-complied": Contrast(
        "refused a harmful prompt",
        "answered a harmful prompt",
        _by_outcome("refused", "complied"),
        "judge more rollouts of harmful prompts, or name --contrast refused-benign",
    ),
    "refused-benign": Contrast(
        "refused a harmful prompt",
        "answered a benign prompt",
        _by_outcome("refused", "benign"),
        "add judged rollouts of both harmful and benign prompts",
    ),
    "harmful-benign": Contrast(
        "has a harmful prompt",
        "has a benign prompt",
        _by_harm,
        "add rollouts of both harmful and benign prompts, labelled so",
    ),
}


def defaults_of(kind: str, contrast: str | None = None, position: str | None = None) -> tuple[str, str]:
    """The contrast and the position of a kind, where they are not given.

    Raises:
        CliffscopeError: If the contrast is unknown, or a kind without defaults is given no contrast or position.
    """
    usual = DEFAULTS.get(kind, (None, None))
    contrast, position = contrast or usual[0], position or usual[1]
    if contrast is None or position is None:
        raise CliffscopeError(
            f"kind {kind!r}: only {' and '.join(DEFAULTS)} have defaults; give a contrast and a position."
        )
    if contrast not in CONTRASTS:
        raise CliffscopeError(f"contrast {contrast!r}: expected one of {', '.join(CONTRASTS)}.")
    check_position(position)
    return contrast, position


def contrast_of(rollouts: Sequence[Rollout] | Examples, contrast: str) -> tuple[list[int], list[int]]:
    """The indices of the rollouts of the positive and of the negative group.

    Raises:
        CliffscopeError: If there is no such contrast.
    """
    if contrast not in CONTRASTS:
        raise CliffscopeError(f"contrast {contrast!r}: expected one of {', '.join(CONTRASTS)}.")
    given = rollouts.rollouts if isinstance(rollouts, Examples) else rollouts
    labels = [CONTRASTS[contrast].label(rollout) for rollout in given]
    return [i for i, label in enumerate(labels) if label == 1], [i for i, label in enumerate(labels) if label == 0]


def examples_of(model: "HookedModel", rollouts: Sequence[Rollout], contrast: str, positions: Sequence[str]) -> Examples:
    """The rollouts of a contrast that have every position, labelled 1 (positive) and 0 (negative).

    Raises:
        CliffscopeError: If a position is unknown, or a group is empty, too small, or of fewer than two prompts.
    """
    for position in positions:
        check_position(position)
    groups = contrast_of(rollouts, contrast)
    labels = {index: label for label, members in zip((1, 0), groups, strict=True) for index in members}
    skipped: Counter[str] = Counter()
    for index, rollout in enumerate(rollouts):
        if index not in labels:
            skipped[_why_left_out(rollout)] += 1
    mine = sorted(labels)
    chosen = []
    for index, transcript in zip(mine, model.transcripts().build_all([rollouts[i] for i in mine]), strict=True):
        lacking = _first_lacking(transcript, positions)
        if lacking is None:
            chosen.append((index, transcript))
        else:
            skipped[f"lacks {lacking}"] += 1
    examples = Examples(
        rollouts=tuple(rollouts[index] for index, _ in chosen),
        transcripts=tuple(transcript for _, transcript in chosen),
        labels=torch.tensor([labels[index] for index, _ in chosen], dtype=torch.long),
        positions=tuple(positions),
        skipped=dict(skipped),
    )
    _check_enough(examples, contrast)
    return examples


def site_at(site: str, layer: int) -> str:
    """The full name of a site, given without its layer, at a layer; the final norm has none.

    Raises:
        CliffscopeError: If no direction can be at the site.
    """
    if site == "attn.hook_z":
        raise CliffscopeError(
            "site attn.hook_z: is one value for each head and not of the model's width; use hook_attn_out, what all "
            "heads of a layer write together, or hook_resid_mid."
        )
    if site not in SITES:
        raise CliffscopeError(f"site {site!r}: expected one of {', '.join(SITES)}.")
    return str(Site(None if site == FINAL_NORM else layer, site))


def read_contrast(
    model: "HookedModel",
    examples: Examples,
    layers: Sequence[int],
    site: str = "hook_resid_post",
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Float[Tensor, "layer rollout position d_model"]:
    """A site at every layer and position of the examples, from one pass over them.

    Raises:
        CliffscopeError: If no direction can be at the site, the architecture lacks it, or a value is NaN or infinite.
    """
    names = [site_at(site, layer) for layer in layers]
    captured = model.capture(examples.transcripts, names, examples.positions, batch_tokens=batch_tokens)
    for name in names:
        check_activations(captured[name], examples.ids, examples.positions)
    return torch.stack([captured[name] for name in names])


def _first_lacking(transcript: object, positions: Sequence[str]) -> str | None:
    for position in positions:
        try:
            transcript.position(position)  # type: ignore[attr-defined]
        except CliffscopeError:
            return position
    return None


def _why_left_out(rollout: Rollout) -> str:
    if rollout.harmful is None:
        return "not known whether the prompt is harmful"
    if rollout.refused is None:
        return "thinking never closed" if rollout.response is None else "not judged"
    if rollout.by_guard:
        return "stopped by a guard"
    verb = "refused" if rollout.refused else "answered"
    return f"{verb} a {'harmful' if rollout.harmful else 'benign'} prompt"


def _check_enough(examples: Examples, contrast: str) -> None:
    chosen = CONTRASTS[contrast]
    reasons = "; ".join(f"{count} left out: {reason}" for reason, count in Counter(examples.skipped).most_common())
    counts = [int((examples.labels == label).sum()) for label in (1, 0)]
    for count, words in zip(counts, (chosen.positive, chosen.negative), strict=True):
        if not count:
            raise CliffscopeError(f"rollouts: none {words} ({contrast}); {chosen.advice}. {reasons}".strip())
    if sum(counts) < MIN_ROLLOUTS:
        raise CliffscopeError(
            f"rollouts: {counts[0]} and {counts[1]} of the contrast {contrast} are too few for a direction: at least "
            f"{MIN_ROLLOUTS} are needed. {reasons}".strip()
        )
    keys = prompt_keys(examples.prompts)
    for label, words in ((1, chosen.positive), (0, chosen.negative)):
        different = {key for key, mine in zip(keys, examples.labels.tolist(), strict=True) if mine == label}
        if len(different) < 2:
            raise CliffscopeError(
                f"rollouts: only one prompt of those of which a rollout {words}; a direction is judged on held-out "
                f"prompts: {chosen.advice}."
            )
