"""The cascade of one head: knock it out, and see whose contributions fall downstream (gate → amplifier edges).

Steps, after the knockout cascade of "How alignment routes" (arXiv 2604.04385):
1. The contribution of every head along the probe's direction at the edge of complied rollouts: see
   `circuits.contributions`.
2. The same while one head, the supposed gate, is zeroed; or while it writes what it writes on average in refused
   rollouts. A gate whose signal stands for refusing is silent where the model complies: its absence opens, zeroing it
   changes nothing, and only the refusing signal closes.
3. The change of every head in a later layer, with a bootstrap interval, a sign-flip permutation p and a
   Benjamini–Hochberg q over these heads. A head that wrote against refusing and now writes less of it is an amplifier.

Only heads of later layers can change: those of the same layer read the same residual stream, which the gate has not
written to yet. A change is the total effect along all paths, through other heads and MLPs too. Where a norm stands
between a head and the probe, each pass has its own frozen scale, and the change of that scale is part of the change.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from circuits.ablation import Scope
from circuits.cases import Cases
from circuits.contributions import contributions
from circuits.head_scores import MAX_Q, MIN_SHARE
from interp.json_values import as_json_holds
from interp.models.capture import BATCH_TOKENS
from interp.significance import benjamini_hochberg, mean_and_interval, sign_flip_p
from interp.table_files import TableFormat
from interp.transcripts.positions import EDGE
from interventions.head_ablation import HeadAblation, MeanHeads, ScaleHeads
from interventions.head_values import HeadValues
from interventions.heads import Head, check_heads
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Instead = Literal["zero", "refused"]
"""What a head writes when it is knocked out."""

FIGURES = ("before", "after", "change", "low", "high", "p", "q", "percent", "share", "after_probe", "falls")
COLUMNS = ("layer", "head", "name", *FIGURES)
FORMAT = TableFormat("cliffscope.cascade", "1", "a cascade", "compute the cascade again", COLUMNS)


@dataclass(frozen=True, eq=False)
class Cascade:
    """What the knockout of one head changes downstream.

    Attributes:
        head: The head knocked out.
        table: One row a head of a later layer, the largest fall first: `layer`, `head`, `name`; `before` and `after`,
            its mean contribution along the probe's unit direction, negative against refusing; `change`, after minus
            before, with its bootstrap 95 % interval `low` and `high`, `p` and `q`; `percent`, the change in percent of
            what it was (−100: nothing is left; NaN where it was 0); `share`, the change as a part of what is to be
            explained; `after_probe`; `falls`: it wrote against refusing and, surely and by no trifle, does so less.
        model: Name of the model.
        fingerprint: What the model is.
        facts: What JSON can hold: `nothing` (why there is nothing to explain, else `None`), `scope`, `n`, `seed`,
            `logit_before` and `logit_after` of the probe, …
    """

    head: Head
    table: pd.DataFrame
    model: str
    fingerprint: Mapping[str, str]
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", as_json_holds(self.facts))
        object.__setattr__(self, "fingerprint", dict(self.fingerprint))

    @property
    def amplifiers(self) -> tuple[Head, ...]:
        """The heads that fall, those that fall most first."""
        rows = self.table[self.table["falls"]]
        return tuple(Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"], strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes Parquet with all else in the schema's metadata. Raises `CliffscopeError` if it cannot."""
        metadata = {"head": self.head, "model": self.model, "fingerprint": self.fingerprint, "facts": self.facts}
        FORMAT.write(path, self.table, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Cascade":
        """Reads a cascade back.

        Raises:
            CliffscopeError: If the file is missing, not Parquet, not a cascade, or of another version.
        """
        table, metadata = FORMAT.read(path)
        return cls(Head(*metadata["head"]), table, metadata["model"], metadata["fingerprint"], metadata["facts"])


def cascade(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    head: tuple[int, int],
    *,
    scope: Scope = "all",
    instead: Instead = "zero",
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Cascade:
    """Knocks out one head in complied rollouts and measures the contributions of all heads in later layers.

    Args:
        model: The model.
        probe: Reads the residual stream or the final norm's output.
        cases: The rollouts. Where there is nothing to explain no head is said to fall; without a complied rollout all
            figures are NaN.
        head: The head, as `(layer, head)`.
        scope: Changed at all positions, or from the edge on.
        instead: What the head writes then: `zero`, or the mean of `refused` rollouts at tokens of the same kind.
        seed: Of bootstrap and permutation.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If the model has no such head, or there is no refused rollout to take a mean of; and as
            `contributions` does.
    """
    (gate,) = check_heads([head], model)
    facts: dict[str, Any] = {
        "nothing": cases.no_fall,
        "scope": scope,
        "instead": instead,
        "seed": seed,
        "probe_site": probe.site,
        "position": EDGE,
    }
    if cases.cliff is None:
        unknown = np.full((model.n_layers - gate.layer - 1, model.n_heads), np.nan)
        nowhere = np.zeros(unknown.shape, dtype=bool)
        figures = dict.fromkeys(FIGURES, unknown) | {"after_probe": nowhere, "falls": nowhere}
        return Cascade(gate, _table(gate, figures), model.name, model.fingerprint, facts)
    before = contributions(model, probe, cases.complied, batch_tokens=batch_tokens)
    with model.intervene(_knockout(model, cases, gate, scope, instead, batch_tokens)):
        after = contributions(model, probe, cases.complied, batch_tokens=batch_tokens)
    whole = float(cases.cliff.of("complied", "fall").mean()) / before.length
    facts |= {
        "n": len(before.ids),
        "to_explain": whole,
        "contribution": float(before.heads[:, gate.layer, gate.head].mean()),
        "logit_before": float(before.logit.mean()),
        "logit_after": float(after.logit.mean()),
    }
    later = slice(gate.layer + 1, None)
    written, left = (found.heads[:, later].double().numpy() for found in (before, after))
    figures = _figures(written, left, whole, cases.prompts("complied"), seed)
    figures["after_probe"] = (np.indices(figures["before"].shape)[0] + gate.layer + 1) >= before.n_attentions
    figures["falls"] &= cases.no_fall is None
    return Cascade(gate, _table(gate, figures), model.name, model.fingerprint, facts)


def _knockout(
    model: "HookedModel", cases: Cases, gate: Head, scope: Scope, instead: Instead, batch_tokens: int
) -> HeadAblation:
    """What takes the head out."""
    if instead == "zero":
        return ScaleHeads([gate], scope)
    values = HeadValues.of(model, cases.refused, [gate.layer], batch_tokens=batch_tokens)
    return MeanHeads([gate], scope, values=values)


def _figures(
    written: Float[np.ndarray, "rollout layer head"],
    left: Float[np.ndarray, "rollout layer head"],
    whole: float,
    prompts: Sequence[str],
    seed: int,
) -> dict[str, Shaped[np.ndarray, "layer head"]]:
    """The columns of the table but `after_probe`, from contributions before and after the knockout."""
    before = written.mean(0)
    change, low, high = mean_and_interval(left - written, clusters=prompts, seed=seed)
    p = sign_flip_p(left - written, clusters=prompts, seed=seed)
    q = benjamini_hochberg(p)
    share = change / whole if whole > 0 else np.full_like(change, np.nan)
    return {
        "before": before,
        "after": left.mean(0),
        "change": change,
        "low": low,
        "high": high,
        "p": p,
        "q": q,
        "percent": np.divide(100 * change, before, out=np.full_like(change, np.nan), where=before != 0),
        "share": share,
        "falls": (before < 0) & (share >= MIN_SHARE) & (q < MAX_Q),
    }


def _table(gate: Head, figures: Mapping[str, Shaped[np.ndarray, "layer head"]]) -> pd.DataFrame:
    """One row a head of the layers after the gate's, the largest rise of its contribution first."""
    layers, heads = (index.ravel() for index in np.indices(figures["change"].shape))
    layers = layers + gate.layer + 1
    names = [str(Head(layer, head)) for layer, head in zip(layers.tolist(), heads.tolist(), strict=True)]
    table = pd.DataFrame({"layer": layers, "head": heads, "name": pd.Series(names, dtype=str)})
    for name in FIGURES:
        table[name] = figures[name].ravel()
    return table.sort_values("change", ascending=False, kind="stable", ignore_index=True)
