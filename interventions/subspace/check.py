"""Does a direction that patches well do so through what the model reads, or through a dormant path?

Patching along v moves an activation along all of v by the difference of the *coordinates along v*. If v has a part that
tells the groups apart but that nothing reads, and a part that is read but in which the groups do not differ, then the
first supplies the difference and the second the effect: a path that is dormant in every ordinary run. That is the
illusion of Makelov et al. 2023 (arXiv 2311.17030). Steps:

1. What is read at the direction's site is found (`interventions.subspace.read_space`, which says what it assumes), and
   v is split into the part in it and the rest.
2. In pairs of rollouts of two groups the coordinate along v, along the read part alone, along the unread part alone,
   and the full value are interchanged in both directions; the effect is the change of the refusal logit at the edge,
   towards what the donor did, as in `circuits.interchange`.
3. If most of v's effect survives along the read part, v is faithful; if most is lost along either part alone, a dormant
   path carries it. An effect of the unread part alone means that the split is wrong, and nothing is concluded; nor is
   anything where the full value does far less than v. Then what v does is undone by the rest of the value whenever the
   model itself tells the groups apart, as in the paper's MLP example: by another part that opposes it, or because v is
   made of parts that are read strongly and differ little, and of others of which the reverse is true.

For v proportional to the difference of the groups' means the read part moves the mean by exactly as much as v moves it
in the read space: a mean difference cannot show the illusion but by curvature. Other directions can.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.frozen_norm import frozen_scales
from interp.models.passes import without_parameter_gradients
from interp.null_runs import NullRuns
from interp.rollouts import Rollout
from interp.significance import cluster_sums, mean_and_interval, sign_flip_p
from interp.statistics import bootstrap_counts, percentile_bounds
from interp.transcripts.positions import EDGE
from interventions.directions.contrasts import DEFAULTS
from interventions.directions.direction import Direction
from interventions.pairs import N_PAIRS, by_rollout
from interventions.subspace.groups import Groups
from interventions.subspace.interchange import interchanged, site_of
from interventions.subspace.read_space import HELD, FoundBy, ReadSpace, check_held
from interventions.subspace.site_passes import SitePass, over_passes

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Verdict = Literal["faithful", "illusion", "undecided"]
PARTS = ("direction", "read", "unread", "full")
"""What is interchanged: the whole direction, each part of it alone, the full value."""
SURVIVES = 0.5
"""A part carries the effect if its share of it is above this, and does not if it is below, by the whole interval."""
MAX_P = 0.05
UNLIKE = 1e-3
"""Below this cosine with the difference of the means the groups do not differ along a direction."""
ALONG = (0.0, 0.5, 1.0)
"""Where gradients are taken on the way from a rollout's own value to its donor's."""
PER_DIMENSION = 4
"""Gradients for each dimension of the site, on either side: fewer do not tell which dimensions are read."""


@dataclass(frozen=True)
class Effect:
    """What interchanging something does to the refusal logit.

    Attributes:
        mean, low, high: Nats towards the donor, with the bootstrap 95 % interval over rollouts, by prompt.
        p: Of the sign-flip permutation test.
        share, share_low, share_high: Of the direction's own effect; NaN where that is not clear of zero.
        dimensions: Of what is interchanged; 0 where there is no such part.
    """

    mean: float
    low: float
    high: float
    p: float
    share: float
    share_low: float
    share_high: float
    dimensions: int

    @property
    def clear(self) -> bool:
        """Whether it is above zero by the interval and by p."""
        return self.low > 0 and self.p < MAX_P


@dataclass(frozen=True)
class SubspaceCheck:
    """A direction split by what is read downstream, and what each part does.

    Attributes:
        effects: By part: `direction`, `read`, `unread`, `full`.
        readers: How the read space was found.
        read_rank: Its dimensions.
        read_held: The share of held-out squared gradients in it.
        read_share: The squared length of the direction's read part (the mean over a subspace's).
        unread_difference: The share of the difference of the groups' mean coordinates that lies in the unread part;
            NaN for a subspace, and where the coordinates do not differ.
        place: Site, position, contrast and counts.
    """

    effects: dict[str, Effect]
    readers: FoundBy
    read_rank: int
    read_held: float
    read_share: float
    unread_difference: float
    place: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        """`faithful`, `illusion` (a dormant path carries the effect) or `undecided`."""
        direction, read, unread, full = (self.effects[part] for part in PARTS)
        if not direction.clear:
            return "undecided"
        if max(read.share_high, unread.share_high) < SURVIVES:
            return "illusion"
        similar = SURVIVES < read.share_low <= 1 / SURVIVES
        return "faithful" if similar and full.share_low > SURVIVES else "undecided"

    @property
    def words(self) -> str:
        """The verdict with its figures, in sentences."""
        direction, read, unread, full = (self.effects[part] for part in PARTS)
        effect = f"{direction.mean:.2f} nats [{direction.low:.2f}, {direction.high:.2f}]"
        if not direction.clear:
            return (
                f"Undecided: interchange along the direction moves the refusal logit by {effect}, p = "
                f"{direction.p:.3g}: it does not patch, and there is no effect to ask about."
            )
        figures = (
            f"interchange along it moves the refusal logit by {effect}, of the full value by {full.mean:.2f}; along "
            f"its read part alone {_share(read)} of its effect survives, along its unread part alone {_share(unread)}."
        )
        if self.verdict == "faithful":
            return f"Faithful: {figures}"
        if self.verdict == "illusion":
            difference = (
                ""
                if np.isnan(self.unread_difference)
                else f" {self.unread_difference:.0%} of the groups' difference along it lies where nothing is read."
            )
            return f"Illusion: a dormant path carries it: {figures}{difference}"
        if read.share_low > 1 / SURVIVES:
            return f"Undecided: {figures} The read part does far more by itself: the direction points past it."
        if read.share_low > SURVIVES:
            return (
                f"Undecided: {figures} But the full value does much less: the rest of it opposes the direction, or a "
                "path is dormant within what is read."
            )
        if unread.share_high >= SURVIVES and read.share_high < SURVIVES:
            return f"Undecided: {figures} So the split is not clean: what was taken for unread is read."
        return f"Undecided: {figures} The intervals do not tell on which side of {SURVIVES:.0%} the parts lie."

    def summary(self) -> dict[str, Any]:
        """Everything, as JSON holds it (NaN apart)."""
        return {
            "verdict": self.verdict,
            "words": self.words,
            "effects": {part: vars(effect) for part, effect in self.effects.items()},
            "readers": self.readers,
            "read_rank": self.read_rank,
            "read_held": self.read_held,
            "read_share": self.read_share,
            "unread_difference": self.unread_difference,
            **self.place,
        }


def check_subspace(
    model: "HookedModel",
    direction: Direction,
    rollouts: Sequence[Rollout],
    *,
    contrast: str | None = None,
    readers: str = "gradients",
    held: float = HELD,
    n_pairs: int = N_PAIRS,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> SubspaceCheck:
    """Splits a direction by what the model reads of it, and measures by interchange which part does the work.

    Args:
        model: The model; interventions that are active on it act.
        direction: What to check, at its own site and position (the edge if it says none).
        rollouts: Judged rollouts; better not those that the direction was fitted on.
        contrast: Between which groups to interchange; that of the direction's fit, or of its kind, if `None`.
        readers: How what is read is found: see `interventions.subspace.read_space`.
        held: With gradients: the share of them that the read space is to hold.
        n_pairs: Different pairs; all there are if there are fewer.
        seed: Of the choice of pairs, bootstrap and permutation.
        batch_tokens: Token budget of a pass.

    Raises:
        CliffscopeError: If the direction does not fit the model, a group has fewer than 8 rollouts, a pair does not
            align, a value put in its own place changes the refusal logit, nothing at the edge depends on the site, or
            readers or held are bad.
    """
    if readers not in get_args(FoundBy):
        raise CliffscopeError(f"readers {readers!r}: expected one of {', '.join(get_args(FoundBy))}.")
    check_held(held)
    site, position = site_of(model, direction), direction.position or EDGE
    contrast = contrast or contrast_for(direction)
    groups = Groups.of(model, rollouts, contrast, site, position, batch_tokens=batch_tokens)
    pairs = groups.pairs(n_pairs, seed)
    found = _Interchanges(model, groups, *groups.both_ways(pairs), batch_tokens)
    if readers == "weights":
        space = ReadSpace.of_output_projection(model, site)
    else:
        space = ReadSpace.of_gradients(*found.gradients(seed), held)
    read, unread = space.split(direction.basis)
    bases = {"direction": direction.basis, "read": read, "unread": unread, "full": None}
    # Towards what the donor did: up where the positive one gave, down where the negative one did.
    sign = np.repeat([1.0, -1.0], len(pairs))[:, None]
    changes = (sign * found.changes(list(bases.values()))).reshape(2, len(pairs), len(bases)).mean(0)
    names, values = by_rollout(changes, pairs)
    dimensions = [direction.d_model if basis is None else len(basis) for basis in bases.values()]
    return SubspaceCheck(
        effects=dict(zip(bases, effects_of(values, groups.prompts_of(names), dimensions, seed), strict=True)),
        readers=space.found_by,
        read_rank=space.rank,
        read_held=space.held,
        read_share=space.share(direction.basis),
        unread_difference=_unread_difference(direction, unread, groups),
        place={
            "site": str(site),
            "position": position,
            "contrast": contrast,
            "n_pairs": len(pairs),
            "n_rollouts": len(names),
            "seed": seed,
        },
    )


def random_effects(
    model: "HookedModel",
    direction: Direction,
    rollouts: Sequence[Rollout],
    found: SubspaceCheck,
    *,
    runs: int,
    n_pairs: int = N_PAIRS,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> NullRuns:
    """The effect of interchanging along the direction beside that along random ones, on the same pairs.

    Args:
        model: The model.
        direction: What was checked.
        rollouts: What it was checked on.
        found: What came of it.
        runs: How many random directions, or subspaces of as many dimensions.
        n_pairs: As it was checked.
        seed: As it was checked.
        batch_tokens: Token budget of a pass.
    """
    site, position = site_of(model, direction), found.place["position"]
    groups = Groups.of(model, rollouts, found.place["contrast"], site, position, batch_tokens=batch_tokens)
    pairs = groups.pairs(n_pairs, seed)
    interchanges = _Interchanges(model, groups, *groups.both_ways(pairs), batch_tokens)
    sign = np.repeat([1.0, -1.0], len(pairs))[:, None]
    changes = sign * interchanges.changes([direction.random_like(seed + run).basis for run in range(runs)])
    names, values = by_rollout(changes.reshape(2, len(pairs), runs).mean(0), pairs)
    effects = effects_of(values, groups.prompts_of(names), [direction.k] * runs, seed)
    statistic = "effect of interchange in nats"
    return NullRuns(
        "random-direction", statistic, found.effects["direction"].mean, tuple(e.mean for e in effects), seed
    )


def contrast_for(direction: Direction) -> str:
    """The contrast that a direction was fitted on, or the usual one of its kind; refused-complied where neither is."""
    fitted = direction.training.get("contrast")
    return str(fitted or DEFAULTS.get(direction.kind, DEFAULTS["refusal"])[0])


def effects_of(
    values: Float[np.ndarray, "rollout part"], prompts: Sequence[str], dimensions: Sequence[int], seed: int = 0
) -> list[Effect]:
    """Means, intervals and p of each part, and its share of the first one's mean.

    Args:
        values: One entry a rollout.
        prompts: One a rollout; those of a prompt are drawn and flipped together.
        dimensions: Of each part.
        seed: Of the draws and flips.
    """
    mean, low, high = mean_and_interval(values, clusters=prompts, seed=seed)
    p = sign_flip_p(values, clusters=prompts, seed=seed)
    sums, _ = cluster_sums(values, prompts)
    drawn = bootstrap_counts(len(sums), seed=seed) @ sums
    shares = np.full((3, len(mean)), np.nan)
    if low[0] > 0:
        shares = np.stack([mean / mean[0], *percentile_bounds((drawn / drawn[:, :1]).T)])
    columns = zip(*(array.tolist() for array in (mean, low, high, p, *shares)), dimensions, strict=True)
    return [Effect(*column) for column in columns]


class _Interchanges:
    """Recipients and donors, and what putting values into the recipients' passes does."""

    def __init__(
        self, model: "HookedModel", groups: Groups, recipients: list[int], donors: list[int], batch_tokens: int
    ) -> None:
        self._model, self._groups, self._budget = model, groups, batch_tokens
        self._recipients, self._donors = torch.tensor(recipients), torch.tensor(donors)

    def changes(self, bases: Sequence[Tensor | None]) -> Float[np.ndarray, "recipient basis"]:
        """The change of each recipient's refusal logit when each subspace is interchanged."""
        result = np.zeros((len(self._recipients), len(bases)))

        @torch.no_grad()
        def work(rows: Sequence[int], read: SitePass) -> Float[np.ndarray, "row basis"]:
            base, source = self._values(rows, read.device)
            before, own = read(), read(base)
            self._check_identity(rows, before, own)
            changed = [read(interchanged(base, source, None if b is None else b.to(base.device))) for b in bases]
            return (torch.stack(changed, -1) - own[:, None]).cpu().double().numpy()

        for rows, found in self._run(work):
            result[list(rows)] = found
        return result

    def gradients(self, seed: int) -> tuple[Float[Tensor, "point width"], Float[Tensor, "other width"]]:
        """Gradients of random combinations of all logits at the edge, on the ways between values of either half.

        Those of pairs within one half of the rollouts, and those within the other: no rollout is in both.
        """
        half = torch.zeros(len(self._groups.transcripts), dtype=torch.bool)
        drawn = np.random.default_rng(seed).permutation(len(half))
        for label in (0, 1):
            mine = [row for row in drawn.tolist() if int(self._groups.labels[row]) == label]
            half[mine[: len(mine) // 2]] = True
        inside = [half[self._recipients] & half[self._donors], ~half[self._recipients] & ~half[self._donors]]
        fewest = len(ALONG) * int(min(chosen.sum() for chosen in inside))
        probes = max(1, math.ceil(PER_DIMENSION * self._groups.values.shape[1] / max(1, fewest)))
        generator = torch.Generator().manual_seed(seed)
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])

        def work(rows: Sequence[int], read: SitePass) -> Tensor:
            base, source = self._values(rows, read.device)
            found = []
            for along in ALONG:
                h = (base + along * (source - base)).requires_grad_()
                with frozen_scales(self._model.hf):
                    logits = read.logits(h).float()
                for probe in range(probes):
                    drawn = torch.randn(logits.shape, generator=generator)
                    # What is added to all logits alike, no probability depends on.
                    combination = (drawn - drawn.mean(-1, keepdim=True)).to(logits.device)
                    more = probe + 1 < probes
                    found.append(torch.autograd.grad(logits, h, combination, retain_graph=more)[0].float().cpu())
            return torch.stack(found)

        with without_parameter_gradients(self._model), torch.enable_grad():
            for rows, found in self._run(work):
                for part, chosen in zip(parts, inside, strict=True):
                    part.append(found[:, chosen[list(rows)]].flatten(0, 1))
        return torch.cat(parts[0]), torch.cat(parts[1])

    def _run(self, work: Any) -> Any:
        groups = self._groups
        recipients = self._recipients.tolist()
        return over_passes(
            self._model, groups.transcripts, recipients, groups.site, groups.position, work, self._budget
        )

    def _values(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        values = self._groups.values
        base, source = values[self._recipients[list(rows)]], values[self._donors[list(rows)]]
        return base.to(device), source.to(device)

    def _check_identity(self, rows: Sequence[int], before: Tensor, own: Tensor) -> None:
        """A rollout's own value, put in its place, changes nothing."""
        precision = float(torch.finfo(self._model.dtype).eps)
        error, allowed = (own - before).abs(), 1e-3 + 64 * precision * (1 + before.abs())
        if bool((error > allowed).any()):
            worst = int((error - allowed).argmax())
            name = self._groups.transcripts[int(self._recipients[rows[worst]])].id
            raise CliffscopeError(
                f"rollout {name!r}: its own value put in its place changes the refusal logit by "
                f"{float(error[worst]):.2g}, more than rounding; {self._model.name} cannot be checked."
            )


def _unread_difference(direction: Direction, unread: Float[Tensor, "rank width"], groups: Groups) -> float:
    """The share of the groups' difference along the direction that comes from its unread part."""
    if direction.k != 1 or not len(unread):
        return 0.0 if direction.k == 1 else float("nan")
    positive, negative = groups.means
    difference = (positive - negative).double()
    v, u = direction.vector.double(), unread[0].double()
    whole = float(v @ difference)
    if abs(whole) < UNLIKE * float(difference.norm()):
        return float("nan")
    return float((v @ u) * (u @ difference)) / whole


def _share(effect: Effect) -> str:
    return f"{effect.share:.0%} [{effect.share_low:.0%}, {effect.share_high:.0%}]"
