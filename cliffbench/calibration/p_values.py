"""The p-values themselves, on drawn values of which nothing is true: one test at a time, at the product's sizes."""

from collections.abc import Callable, Iterator

import numpy as np

from cliffbench.calibration.results import Row, claim_row, p_row
from interp.paired import mcnemar
from interp.significance import benjamini_hochberg, sign_flip_p
from interventions.latents.scores import Cases, score_cases

SIZES = (8, 20, 50)
LATENTS = 200

Test = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(values [case, column], clusters [case])` → p `[column]`."""


def flipped_by_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The product's p of a mean, as it uses it: prompts are flipped together."""
    return np.asarray(sign_flip_p(values, clusters=clusters, flips=1999))


def p_values(runs: int = 1000, seed: int = 0) -> Iterator[Row]:
    """All settings, one row each."""
    yield from sign_flips(runs, seed)
    for n in (20, 50, 200):
        rng = np.random.default_rng([seed, 2, n])
        for name, mid in (("McNemar, exact: compare", False), ("McNemar, mid-p", True)):
            found = []
            for _ in range(runs):
                first = rng.random(n) < 0.5
                second = np.where(rng.random(n) < 0.5, rng.random(n) < 0.5, first)
                found.append(mcnemar(first, second, mid_p=mid).p)
            yield p_row(name, "two runs of one model", found, n=n)
    yield from latents(max(20, runs // 5), seed)


def sign_flips(runs: int, seed: int = 0, test: Test = flipped_by_cluster) -> Iterator[Row]:
    """The p of a mean over cases, and its screening by q over 48 heads that hang together.

    Args:
        runs: Independent tests of each setting.
        seed: Of what is drawn.
        test: The test; another one than the product's shows what a broken one looks like.
    """
    columns = 25
    for number, (name, draw) in enumerate(_SHAPES.items()):
        for n in SIZES:
            rng = np.random.default_rng([seed, 1, number, n])
            rows = []
            for _ in range(max(1, runs // columns)):
                # Two rollouts a prompt, of which half of the variance is the prompt's.
                prompts = np.repeat(np.arange(n), 2)
                values = draw(rng, (n, columns))[prompts] + draw(rng, (2 * n, columns))
                rows.append(test(values, prompts))
            yield p_row("sign flip: mean over prompts", name, np.concatenate(rows), n=n)
    rng = np.random.default_rng([seed, 3])
    claimed = []
    for _ in range(runs):
        common = rng.normal(size=(20, 1))
        values = 0.7 * common + rng.normal(size=(20, 48))
        claimed.append(bool((benjamini_hochberg(test(values, np.arange(20))) < 0.05).any()))
    yield claim_row("q over 48 heads", "correlated normal effects of mean 0", claimed, n=20)


def _exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(size=shape) - 1.0


_SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential less its mean": _exponential,
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
}


def latents(runs: int, seed: int = 0) -> Iterator[Row]:
    """Latents of an autoencoder, of which none tells the labels: sparse, half of them firing seldom."""
    rng = np.random.default_rng([seed, 4])
    p, claimed = [], []
    for run in range(runs):
        often = rng.uniform(0.02, 0.6, LATENTS)
        values = rng.exponential(size=(60, LATENTS)) * (rng.random((60, LATENTS)) < often)
        labels = rng.permutation(np.repeat([0, 1], 30))
        prompts = [f"prompt {row}" for row in range(60)]
        cases = Cases(values, labels, prompts, [None] * 60, np.ones(60, dtype=bool))
        table, _ = score_cases(cases, np.zeros(LATENTS), shuffles=999, seed=run)
        p.append(table["p"].to_numpy())
        claimed.append(bool(table["separates"].any()))
    yield p_row("latents", "shuffled labels", p, n=60)
    yield claim_row("latents named", "shuffled labels", claimed, n=60)
