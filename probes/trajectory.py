"""Trajectories: a probe's score at every token of a rollout, and their mean over rollouts of different length.

The refusal score is read along the whole chain of thought (Yin et al. 2025, arXiv 2510.06036). To average, each
rollout's thinking is interpolated to the same grid first, and the close tokens are kept as they are. (The paper's code
averages sequences padded with zeros, which invents a slope.)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from interp.display.shown import Drawn, Shown, Words, in_html, picture
from interp.display.text import bars
from interp.errors import CliffscopeError
from interp.models.batching import Batch
from interp.models.capture import BATCH_TOKENS, stream
from interp.models.sites import Site
from interp.statistics import bootstrap_band
from interp.transcripts import Transcript

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel
    from probes.linear import LinearProbe

_SCALE = "Tokens by refusal score: orange 0, answers; white 0.5; blue 1, refuses."

GRID = 101
"""Points to which a rollout's thinking is interpolated."""


@dataclass(frozen=True, repr=False)
class Trajectory(Drawn):
    """The scores of one rollout at every token.

    Attributes:
        transcript: The rollout as tokens.
        logits: w·h + b of the probe at each token, in log-odds.
    """

    transcript: Transcript
    logits: Float[np.ndarray, " pos"]

    @property
    def scores(self) -> Float[np.ndarray, " pos"]:
        """The refusal score σ(w·h + b) at each token, in [0, 1]."""
        return sigmoid(self.logits)

    @property
    def thinking(self) -> slice:
        """The thinking tokens. Raises `CliffscopeError` if there are none."""
        start, stop = self._segment("thinking")
        return slice(start, stop)

    @property
    def close(self) -> slice:
        """The close tokens, of which the last is the edge. Raises `CliffscopeError` if the thinking never closes."""
        start, stop = self._segment("close")
        return slice(start, stop)

    def _segment(self, name: str) -> tuple[int, int]:
        span = self.transcript.segments.get(name)
        if span is None or span[0] == span[1]:
            raise CliffscopeError(f"Rollout {self.transcript.id!r} has no {name} tokens, so it has no trajectory.")
        return span

    def figure(self, outcome: str | None = None) -> "go.Figure":
        """The score along the transcript, its segments and the edge; see `probes.trajectory_figure`."""
        from probes.trajectory_figure import trajectory_figure

        return trajectory_figure(self, outcome)

    def words(self) -> Words:
        """Plateau, edge and cliff, and the scores of the thinking and of the close tokens as a line of bars."""
        from probes.trajectory_figure import plateau_of

        title, plateau = f"Trajectory of {self.transcript.id}", plateau_of(self)
        if plateau is None or not self.transcript.segments.get("close"):
            return Words(title, f"{len(self.transcript):,} tokens, without thinking that closes")
        edge = float(self.scores[self.transcript.edge])
        head = f"plateau {plateau[0]:.2f}, edge {edge:.2f}, cliff {plateau[0] - edge:.2f}"
        thinking, close = self.scores[self.thinking].tolist(), self.scores[self.close].tolist()
        alt = f"Refusal score of {self.transcript.id} at every token: {head}."
        return Words(title, head, (f"thinking {bars(thinking)} close {bars(close)}",), alt=alt)

    def html(self) -> str:
        """The tokens coloured by their scores, and the scores along the transcript."""
        from interp.display.strip import strip

        words = self.words()
        edge = self.transcript.edge if self.transcript.segments.get("close") else None
        tokens = strip(self.transcript, self.scores.tolist(), edge)
        return in_html(replace(words, text=()), f"{picture(self, words)}<p>{_SCALE}</p>{tokens}")


def score_trajectories(
    model: "HookedModel",
    probe: "LinearProbe",
    transcripts: Sequence[Transcript],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, Trajectory]]:
    """Yields `(index into transcripts, trajectory)`, batch by batch, longest first.

    Raises:
        CliffscopeError: If the probe was made for another model.
    """
    for row, logits in score_tokens(model, [probe], transcripts, batch_tokens=batch_tokens):
        yield row, Trajectory(transcripts[row], logits[0])


def check_probe(model: "HookedModel", probe: "LinearProbe") -> str:
    """The site at which a probe reads a model.

    Raises:
        CliffscopeError: If the probe was made for another model, or its site or width is none of the model's.
    """
    probe.check_model(model.fingerprint, model.name)
    if probe.site is None:
        raise CliffscopeError("probe: it does not say at which site it reads; give one with LinearProbe.at.")
    site = Site.parse(probe.site, model.n_layers)
    if site.name == "attn.hook_z":
        raise CliffscopeError(f"probe: {site} holds one vector a head; a probe reads a vector of width d_model.")
    if probe.d_model != model.d_model:
        raise CliffscopeError(
            f"probe: it is {probe.d_model} wide, and the residual stream of {model.name} {model.d_model}; "
            "fit one for this model."
        )
    return str(site)


def score_tokens(
    model: "HookedModel",
    probes: Sequence["LinearProbe"],
    transcripts: Sequence[Transcript],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, Float[np.ndarray, "probe pos"]]]:
    """Yields `(index into transcripts, logits of every probe at every token)` from one pass over each transcript.

    The scores are taken on the device and only floats are kept: memory does not grow with layers × tokens × d_model.

    Args:
        model: The model.
        probes: Any number, at any sites; the pass stops after the deepest.
        transcripts: What to score.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If a probe does not fit the model (see `check_probe`), or activations are NaN or infinite.
    """
    by_site: dict[str, list[int]] = {}
    for number, probe in enumerate(probes):
        by_site.setdefault(check_probe(model, probe), []).append(number)
    # One product a site for all its probes. A model spread over devices has its sites on several.
    weights = {site: torch.stack([probes[n].weight for n in numbers], dim=1) for site, numbers in by_site.items()}
    biases = {site: torch.tensor([probes[n].bias for n in numbers]) for site, numbers in by_site.items()}

    def project(site: str, value: Tensor, batch: Batch) -> Tensor:
        weights[site], biases[site] = weights[site].to(value.device), biases[site].to(value.device)
        return value.float() @ weights[site] + biases[site]

    for batch, kept in stream(model, transcripts, list(by_site), project, batch_tokens):
        values = {site: logits.cpu().numpy() for site, logits in kept.items()}
        for place, row in enumerate(batch.rows):
            length = len(transcripts[row])
            logits = np.empty((len(probes), length), dtype=np.float32)
            for site, numbers in by_site.items():
                logits[numbers] = values[site][place, :length].T
            if not np.isfinite(logits).all():
                raise CliffscopeError(
                    f"Rollout {transcripts[row].id!r}: the model's activations are NaN or infinite; "
                    "try --dtype float32."
                )
            yield row, logits


@dataclass(frozen=True, repr=False)
class MeanTrajectory(Shown):
    """The mean score of several rollouts along the thinking and over the close tokens.

    Attributes:
        n: How many rollouts.
        thinking: Fractions of the thinking, 0 to 1: the x of the first `GRID` points.
        close_tokens: The text of each close token, the last being the edge (the commonest where they differ).
        mean: The mean score at each grid point, then at each close token.
        low, high: Bootstrap 95 % interval over rollouts; NaN for a single rollout.
    """

    n: int
    thinking: Float[np.ndarray, " grid"]
    close_tokens: tuple[str, ...]
    mean: Float[np.ndarray, " point"]
    low: Float[np.ndarray, " point"]
    high: Float[np.ndarray, " point"]

    def words(self) -> Words:
        """The mean scores as bars: along the thinking, and over the close tokens."""
        thinking, close = self.mean[:GRID].tolist(), self.mean[GRID:].tolist()
        head = f"{self.n:,} rollouts, edge {close[-1]:.2f}" if close else f"{self.n:,} rollouts"
        return Words("Mean trajectory", head, (f"thinking {bars(thinking)} close {bars(close)}",))


def align(trajectory: Trajectory, n_close: int) -> Float[np.ndarray, " point"]:
    """One rollout's scores at `GRID` fractions of its thinking, then at its last `n_close` close tokens."""
    scores = trajectory.scores
    thinking = scores[trajectory.thinking]
    close = scores[trajectory.close]
    grid = np.interp(np.linspace(0, 1, GRID), np.linspace(0, 1, len(thinking)), thinking)
    return np.concatenate([grid, close[len(close) - n_close :]])


def average(trajectories: Sequence[Trajectory], *, seed: int = 0, resamples: int = 1000) -> MeanTrajectory:
    """The mean trajectory, with a bootstrap interval over rollouts.

    Close tokens are aligned from the edge backwards; where their number differs (a tokenizer may merge the first with
    the end of the thinking), as many are kept as every rollout has.

    Raises:
        CliffscopeError: If there is no trajectory, or one without thinking or close tokens.
    """
    if not trajectories:
        raise CliffscopeError("There are no trajectories to average.")
    n_close = min(t.close.stop - t.close.start for t in trajectories)
    aligned = np.stack([align(trajectory, n_close) for trajectory in trajectories])
    low, high = bootstrap_band(aligned, seed=seed, resamples=resamples)
    texts = [t.transcript.tokens[t.close.stop - n_close : t.close.stop] for t in trajectories]
    commonest = tuple(Counter(column).most_common(1)[0][0] for column in zip(*texts, strict=True))
    return MeanTrajectory(
        n=len(trajectories),
        thinking=np.linspace(0, 1, GRID),
        close_tokens=commonest,
        mean=aligned.mean(axis=0),
        low=low,
        high=high,
    )


def sigmoid(logits: ArrayLike) -> np.ndarray:
    """σ, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits))))
