"""Ranking latents by how well they separate two groups of rollouts, with the controls that the ranking needs.

The steps follow Ferrando et al. 2025 (arXiv 2411.14257): the difference of the frequencies with which a latent is
active in the two groups, in the worst category; latents that are active on ordinary text are set apart. Beyond them:
AUROC, effect size, a permutation p with false discovery rate, a part of the prompts that is not ranked by, and the same
search with shuffled labels and with an untrained autoencoder. They read the last token of an entity's name; here it is
any position or segment.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE, SEGMENTS
from interventions.directions.contrasts import examples_of
from interventions.latents.latents import Latents
from interventions.latents.reconstruction import Tally
from interventions.latents.scores import Cases, LatentScores, score_cases
from interventions.latents.tokens import read_tokens, token_places
from interventions.latents.untrained import untrained_like
from probes.examples import Examples
from probes.inputs import check_activations
from probes.splits import prompt_keys, split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

POOLS = ("max", "mean")
SAMPLE = 4096
"""Ordinary tokens kept to set the untrained control's thresholds by."""


def rank_latents(
    model: "HookedModel",
    latents: Latents,
    rollouts: Sequence[Rollout],
    *,
    contrast: str = "refused-complied",
    at: str | Sequence[str] = EDGE,
    pool: str = "max",
    generic: Sequence[Rollout] | None = None,
    test_fraction: float = 0.3,
    shuffles: int = 9999,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda rollouts: None,
) -> LatentScores:
    """Ranks all latents of an autoencoder.

    Args:
        model: The model.
        latents: The autoencoder.
        rollouts: Judged ones.
        contrast: Which two groups: one of `interventions.directions.CONTRASTS`.
        at: Where latents are read: positions, segments (all their tokens), or both.
        pool: What becomes of several tokens: their `max` or `mean`.
        generic: Rollouts whose tokens are the ordinary ones; those of `rollouts` with a benign prompt if `None`.
        test_fraction: Share of the prompts that are not ranked by; 0 for none.
        shuffles: Of the labels. p cannot fall below 1 / (1 + shuffles).
        seed: Of the split, the shuffles and the untrained control.
        batch_tokens: Token budget of a forward pass.
        advance: Called with the number of rollouts read.

    Raises:
        CliffscopeError: If a position or the contrast is unknown, a group is missing or too small, or an activation is
            NaN or infinite.
    """
    if pool not in POOLS:
        raise CliffscopeError(f"pool {pool!r}: expected one of {', '.join(POOLS)}.")
    wanted = [at] if isinstance(at, str) else list(at)
    if shuffles < 1 or not 0 <= test_fraction < 1:
        raise CliffscopeError(
            f"ranking: expected at least 1 shuffle and a held-out share from 0 to below 1, found {shuffles} and "
            f"{test_fraction:g}."
        )
    examples = examples_of(model, rollouts, contrast, [f"{name}:0" if name in SEGMENTS else name for name in wanted])
    ordinary = [rollout for rollout in rollouts if rollout.harmful is False] if generic is None else list(generic)
    reader = _Reader(model, batch_tokens, advance)
    tally, sample = reader.ordinary(latents, ordinary, examples)
    control = untrained_like(latents, sample, tally.shares, seed)
    shares = tally.shares if ordinary else np.full(latents.n_latents, np.nan)
    mine, theirs = reader.pooled((latents, control), examples, wanted, pool)
    table, permuted = score_cases(_cases(mine, examples, test_fraction, seed), shares, shuffles=shuffles, seed=seed)
    # As sparse on ordinary tokens as what it controls for, by construction.
    random, _ = score_cases(_cases(theirs, examples, test_fraction, seed), shares, shuffles=shuffles, seed=seed)
    counts = {"positive": int(examples.labels.sum()), "negative": int((examples.labels == 0).sum())}
    facts: dict[str, Any] = {
        "sae": latents.source,
        "sae_digest": latents.digest,
        "site": latents.site,
        "contrast": contrast,
        "at": wanted,
        "pool": pool,
        **counts,
        "prompts": len(set(prompt_keys(examples.prompts))),
        "skipped": examples.skipped,
        "test_fraction": test_fraction,
        "shuffles": shuffles,
        "seed": seed,
        "ordinary_tokens": tally.n if ordinary else 0,
        "reconstruction": vars(tally.reconstruction),
        "shuffled": {
            "best_auroc": float(permuted.best.mean()),
            "best_auroc_95": float(np.quantile(permuted.best, 0.95)),
        },
        "untrained": _summary(random),
        "trained": _summary(table),
    }
    return LatentScores(table, model.name, model.fingerprint, facts)


class _Reader:
    """Reads latents with one model."""

    def __init__(self, model: "HookedModel", batch_tokens: int, advance: Callable[[int], object]) -> None:
        self._model, self._batch_tokens, self._advance = model, batch_tokens, advance

    def ordinary(
        self, latents: Latents, rollouts: Sequence[Rollout], examples: Examples
    ) -> tuple[Tally, Float[Tensor, "token ..."]]:
        """How often latents are active on ordinary tokens, and a sample of these; the examples' own where none are."""
        transcripts = self._model.transcripts().build_all(rollouts) or list(examples.transcripts)
        places = [token_places(transcript) for transcript in transcripts]
        every = max(1, sum(map(len, places)) // SAMPLE)
        tally, sample = Tally(latents), []
        for rows, h in self._read(transcripts, places, latents.site):
            check_activations(h.flatten(1))
            tally.add(h)
            sample.append(h[::every].float().cpu())
            self._advance(len(rows))
        return tally, torch.cat(sample)

    def pooled(
        self, several: Sequence[Latents], examples: Examples, at: Sequence[str], pool: str
    ) -> list[Float[np.ndarray, "rollout latent"]]:
        """How active the latents of each autoencoder are in each example."""
        places = [_places(transcript, at) for transcript in examples.transcripts]
        found = [np.zeros((len(places), latents.n_latents), dtype=np.float32) for latents in several]
        for rows, h in self._read(examples.transcripts, places, several[0].site):
            check_activations(h.flatten(1))
            for latents, values in zip(several, found, strict=True):
                parts = latents.encode(h).split([len(places[row]) for row in rows])
                kept = [part.max(0).values if pool == "max" else part.mean(0) for part in parts]
                values[list(rows)] = torch.stack(kept).cpu().numpy()
            self._advance(len(rows))
        return found

    def _read(
        self, transcripts: Sequence[Transcript], places: Sequence[Sequence[int]], site: str
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        for batch, h in read_tokens(self._model, transcripts, places, site, self._batch_tokens):
            yield batch.rows, h


def _places(transcript: Transcript, at: Sequence[str]) -> list[int]:
    found: list[int] = []
    for name in at:
        found += token_places(transcript, [name]) if name in SEGMENTS else [transcript.position(name)]
    return sorted(set(found))


def _cases(values: Float[np.ndarray, "rollout latent"], examples: Examples, test_fraction: float, seed: int) -> Cases:
    labels = examples.labels.numpy()
    ranked = np.ones(len(labels), dtype=bool)
    if test_fraction:
        ranked[split_by_prompt(labels, examples.prompts, test_fraction, seed).test] = False
    categories = examples.categories or [None] * len(labels)
    return Cases(values, labels, prompt_keys(examples.prompts), categories, ranked)


def _summary(table: Any) -> dict[str, float | int]:
    """The best that a search found, and how many latents separate."""
    best = table.loc[(table["auroc"] - 0.5).abs().idxmax()]
    folded = float(abs(best["auroc"] - 0.5) + 0.5)
    return {
        "best_auroc": folded,
        "best_auroc_held_out": float(best["auroc_held_out"] if best["sign"] == 1 else 1 - best["auroc_held_out"]),
        "best_worst": float(table["worst"].max()),
        "separating": int(table["separates"].sum()),
        "perfect": int(((table["auroc"] - 0.5).abs() == 0.5).sum()),
    }
