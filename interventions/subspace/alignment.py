"""Distributed alignment search: a rotation learned so that interchanging a subspace carries over the donor's outcome.

Steps, after Geiger et al. 2023 (arXiv 2303.02536):

1. Rollouts of two groups are split by prompt: no rollout, and no prompt, is on both sides.
2. k orthonormal rows R (the first k of a rotation: QR of a free matrix reaches any subspace) are trained with the model
   frozen: for a recipient and a random donor of either group, the value at the site becomes
   base + (R source − R base) Rᵀ, and the loss is the cross-entropy of the refusal logit at the edge with what the
   *donor* did as label.
3. Interchange accuracy: in held-out pairs of different groups, the share of interchanges after which the refusal logit
   is on the donor's side of 0. In pairs of one group (`kept`) it should stay where it was.

It is compared on the same pairs with the difference of the groups' means, with random subspaces of as many dimensions,
and with the full value, which bounds what a subspace can carry. Departures: one site and position, the label is binary,
and the readout is the log-odds of all refusal openings instead of one token's.

A subspace that is optimized to patch well is just where a dormant path may be found (Makelov et al. 2023, arXiv
2311.17030): put the result through `check_subspace`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.passes import without_parameter_gradients
from interp.models.sites import Site
from interp.null_runs import NullRuns
from interp.rollouts import Rollout
from interp.statistics import proportion_interval
from interp.transcripts.positions import EDGE
from interventions.directions.direction import Direction
from interventions.pairs import MIN_ROLLOUTS, N_PAIRS
from interventions.subspace.groups import Groups
from interventions.subspace.interchange import interchanged
from interventions.subspace.site_passes import SitePass, batches_of, over_passes, site_pass
from probes.splits import split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

TEST_FRACTION = 0.5
"""Half, since the held-out side must have at least 8 rollouts of either group too."""
N_RANDOM = 20


@dataclass(frozen=True)
class AlignmentOptions:
    """How the rotation is trained.

    Attributes:
        k: Dimensions of the subspace.
        steps: Optimizer steps (Adam), each on one batch of recipients with donors drawn anew.
        learning_rate: Of the free matrix, whose entries are of size one; it falls to zero along a half cosine.
        batch: Most recipients of a step.
        test_fraction: Share of the prompts of each group that is held out.
        n_pairs: Most held-out pairs of different groups.
        n_random: Random subspaces to compare with.
        seed: Of everything random.
        batch_tokens: Token budget of a pass. While training, the keys and values of all training rollouts are held.

    Raises:
        CliffscopeError: If a number is out of its range.
    """

    k: int = 1
    steps: int = 200
    learning_rate: float = 0.05
    batch: int = 32
    test_fraction: float = TEST_FRACTION
    n_pairs: int = N_PAIRS
    n_random: int = N_RANDOM
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        for name in ("k", "steps", "batch", "n_random"):
            if getattr(self, name) < 1:
                raise CliffscopeError(f"alignment: {name} must be at least 1, found {getattr(self, name)}.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise CliffscopeError(f"alignment: the learning rate must be above 0, found {self.learning_rate}.")


@dataclass(frozen=True)
class Accuracy:
    """Interchange accuracy on held-out pairs.

    Attributes:
        value: The share of pairs of different groups, in both directions, whose outcome becomes the donor's.
        low, high: Wilson's 95 % interval with the size of the smaller group for its n: pairs that share a rollout are
            not independent, and this allows for outcomes that hang on one rollout of each pair alone.
        kept: The share of pairs of one group whose outcome stays the recipient's.
    """

    value: float
    low: float
    high: float
    kept: float


@dataclass(frozen=True, eq=False)
class Alignment:
    """A learned subspace and how well it carries the outcome.

    Attributes:
        direction: The subspace, its rows in the order of what they tell the groups apart by.
        accuracy: On held-out pairs: `das`, `mean-difference`, `full` (the whole value), `none` (nothing changed).
        random: The interchange accuracy of random subspaces.
        losses: The mean training loss of each tenth of the steps.
        n_train, n_test: Rollouts.
        n_pairs: Held-out pairs of different groups.
    """

    direction: Direction
    accuracy: Mapping[str, Accuracy]
    random: tuple[float, ...]
    losses: tuple[float, ...]
    n_train: int
    n_test: int
    n_pairs: int

    def nulls(self, seed: int = 0) -> tuple[NullRuns, ...]:
        """The interchange accuracy beside that of the random subspaces."""
        return (
            NullRuns("random-direction", "interchange accuracy", self.accuracy["das"].value, self.random, seed + 1),
        )

    def summary(self) -> dict[str, Any]:
        """The figures, as JSON holds them."""
        return {
            "accuracy": {name: vars(accuracy) for name, accuracy in self.accuracy.items()},
            "random_mean": float(np.mean(self.random)),
            "random_largest": max(self.random),
            "n_random": len(self.random),
            "losses": list(self.losses),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_pairs": self.n_pairs,
        }


def align_subspace(
    model: "HookedModel",
    rollouts: Sequence[Rollout],
    site: str,
    *,
    position: str = EDGE,
    contrast: str = "refused-complied",
    options: AlignmentOptions | None = None,
    advance: Callable[[int], object] = lambda steps: None,
) -> Alignment:
    """Learns the subspace of a site through which a rollout's outcome can be carried over to another.

    Args:
        model: The model, which is not changed; interventions that are active on it act.
        rollouts: Judged rollouts: at least 8 of either group on either side of the split.
        site: Name of the site, `blocks.3.hook_resid_post` for instance.
        position: Where.
        contrast: The two groups; the positive one is the one that refuses.
        options: How to train.
        advance: Told how many steps more are done.

    Raises:
        CliffscopeError: If there is no such site, there are too few rollouts, k is larger than the site's width, or
            values are NaN or infinite.
    """
    options = options or AlignmentOptions()
    place = Site.parse(site, model.n_layers)
    groups = Groups.of(model, rollouts, contrast, place, position, batch_tokens=options.batch_tokens)
    width = groups.values.shape[1]
    if options.k > width:
        raise CliffscopeError(f"alignment: k is {options.k}, and {place} has width {width}.")
    split = split_by_prompt(groups.labels, groups.prompts, options.test_fraction, options.seed)
    train, test = groups.some(split.train.tolist()), groups.some(split.test.tolist())
    for side, name in ((train, "training"), (test, "held-out")):
        least = min(int((side.labels == label).sum()) for label in (0, 1))
        if least < MIN_ROLLOUTS:
            raise CliffscopeError(
                f"alignment: the {name} side has {least} rollouts of one group, at least {MIN_ROLLOUTS} are needed: "
                f"give more {groups.names[0]} and {groups.names[1]} rollouts."
            )
    basis, losses = _train(model, train, options, advance)
    direction = _direction(model, basis, train, options)
    mean_difference = Direction.of(train.means[0] - train.means[1])
    randoms = [direction.random_like(options.seed + 1 + number).basis for number in range(options.n_random)]
    bases = [direction.basis, mean_difference.basis, None, direction.basis[:0], *randoms]
    found, n_pairs = _accuracies(model, test, bases, options)
    return Alignment(
        direction=direction.at(training={"accuracy": found[0].value, "n_test": len(test.prompts)}),
        accuracy=dict(zip(("das", "mean-difference", "full", "none"), found, strict=False)),
        random=tuple(accuracy.value for accuracy in found[4:]),
        losses=losses,
        n_train=len(train.prompts),
        n_test=len(test.prompts),
        n_pairs=n_pairs,
    )


def _train(
    model: "HookedModel", train: Groups, options: AlignmentOptions, advance: Callable[[int], object]
) -> tuple[Float[Tensor, "k width"], tuple[float, ...]]:
    """The learned rows, and how the loss fell. The free matrix stays on the CPU, where there is QR on every machine."""
    generator = torch.Generator().manual_seed(options.seed)
    free = torch.randn(train.values.shape[1], options.k, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    members = [torch.nonzero(train.labels == label).flatten() for label in (0, 1)]
    passes = _prepared(model, train, options)
    losses: list[float] = []
    with without_parameter_gradients(model), torch.enable_grad():
        for step in range(options.steps):
            rows, read = passes[step % len(passes)]
            wanted = torch.randint(2, (len(rows),), generator=generator)
            donors = torch.stack([_drawn(members[label], generator) for label in wanted.tolist()])
            base, source = (train.values[index].to(read.device) for index in (rows, donors))
            basis = torch.linalg.qr(free).Q.T.to(read.device)
            logits = read(interchanged(base, source, basis))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted.to(logits))
            if not bool(torch.isfinite(loss)):
                raise CliffscopeError("alignment: the loss is NaN or infinite; try --dtype float32 or a lower rate.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            advance(1)
    tenths = tuple(float(part.mean()) for part in np.array_split(losses, min(10, len(losses))))
    return torch.linalg.qr(free.detach()).Q.T, tenths


def _prepared(model: "HookedModel", train: Groups, options: AlignmentOptions) -> list[tuple[Tensor, SitePass]]:
    """The rows and the pass of each batch of recipients; what comes before the edge is run once."""
    passes = []
    for batch in batches_of(train.transcripts, train.position, options.batch_tokens):
        for start in range(0, len(batch), options.batch):
            rows = batch[start : start + options.batch]
            passes.append((torch.tensor(rows), site_pass(model, train.transcripts, rows, train.site, train.position)))
    return passes


def _drawn(members: Tensor, generator: torch.Generator) -> Tensor:
    return members[int(torch.randint(len(members), (), generator=generator))]


def _direction(
    model: "HookedModel", basis: Float[Tensor, "k width"], train: Groups, options: AlignmentOptions
) -> Direction:
    """The subspace as a direction: rotated within itself so that its rows are in order, the first along the means."""
    positive, negative = train.means
    difference = basis.double() @ (positive - negative).double()
    # The first row takes all of the difference of the means.
    inner = torch.linalg.qr(torch.cat([difference[:, None], torch.eye(len(basis), dtype=torch.float64)], 1)).Q.T
    inner[0] *= torch.sign(inner[0] @ difference)
    rows = (inner @ basis.double()).float()
    return Direction(
        rows,
        scale=float(difference.norm()),
        kind="refusal",
        method="das",
        positive=rows @ positive,
        negative=rows @ negative,
        model=model.name,
        fingerprint=model.fingerprint,
        layer=train.site.layer,
        site=str(train.site),
        position=train.position,
        training={
            "contrast": train.contrast,
            "n": len(train.prompts),
            "n_positive": int(train.labels.sum()),
            "k": options.k,
            "steps": options.steps,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
        },
    )


def _accuracies(
    model: "HookedModel", test: Groups, bases: Sequence[Tensor | None], options: AlignmentOptions
) -> tuple[list[Accuracy], int]:
    """The accuracy of each subspace, and the number of pairs of different groups."""
    pairs = test.pairs(options.n_pairs, options.seed)
    differing = test.both_ways(pairs)
    same = _within(test)
    right = _right(model, test, *differing, bases, options.batch_tokens)
    kept = _right(model, test, *same, bases, options.batch_tokens).mean(0)
    fewest = min(int((test.labels == label).sum()) for label in (0, 1))
    found = []
    for accuracy, stays in zip(right.mean(0).tolist(), kept.tolist(), strict=True):
        low = proportion_interval(math.floor(accuracy * fewest), fewest).low
        high = proportion_interval(math.ceil(accuracy * fewest), fewest).high
        found.append(Accuracy(accuracy, low, high, stays))
    return found, len(pairs)


def _within(test: Groups) -> tuple[list[int], list[int]]:
    """Each rollout with the next of its own group as donor."""
    recipients: list[int] = []
    donors: list[int] = []
    for label in (0, 1):
        mine = torch.nonzero(test.labels == label).flatten().tolist()
        recipients += mine
        donors += mine[1:] + mine[:1]
    return recipients, donors


def _right(
    model: "HookedModel",
    test: Groups,
    recipients: Sequence[int],
    donors: Sequence[int],
    bases: Sequence[Tensor | None],
    batch_tokens: int,
) -> Float[np.ndarray, "recipient basis"]:
    """Whether the refusal logit lies on the donor's side of 0 after each interchange, as 0 and 1."""
    result = np.zeros((len(recipients), len(bases)))
    to, of = torch.tensor(recipients), torch.tensor(donors)

    @torch.no_grad()
    def work(rows: Sequence[int], read: SitePass) -> Bool[Tensor, "row basis"]:
        base, source = (test.values[index[list(rows)]].to(read.device) for index in (to, of))
        refuses = test.labels[of[list(rows)]] == 1
        logits = [read(interchanged(base, source, None if b is None else b.to(base.device))).cpu() for b in bases]
        return (torch.stack(logits, -1) > 0) == refuses[:, None]

    for rows, found in over_passes(model, test.transcripts, recipients, test.site, test.position, work, batch_tokens):
        result[list(rows)] = found.numpy()
    return result
