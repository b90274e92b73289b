"""The curve of heads ablated against what comes back: refusal, and at what cost, with random sets as the control.

For each number k the k best heads are ablated together, as a head mask would (at all positions unless told otherwise):
the refusal logit and the probe's logit at the edge of the complied rollouts, and from answers generated anew the attack
success rate, the share of benign prompts refused, and the drift on benign answers. The same for random sets of k heads
with as many in every layer (`interventions.random_heads`).
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from circuits.cases import Cases
from circuits.rank import check_gamma
from interp.display.shown import Drawn, Words
from interp.display.text import shortened
from interp.errors import CliffscopeError
from interp.json_values import as_json_holds
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.capture import BATCH_TOKENS
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.null_runs import NullRuns
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.statistics import bootstrap_interval
from interp.table_files import TableFormat
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.behaviour import Behaviour, answer, drift, prompts_of
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head, Sizes
from interventions.random_heads import random_sets
from interventions.scope import Scope
from probes.linear import LinearProbe
from probes.trajectory import check_probe

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel

COLUMNS = (
    "n_heads",
    "set",
    "draw",
    "heads",
    "refusal_logit",
    "refusal_logit_low",
    "refusal_logit_high",
    "probe_logit",
    "asr",
    "asr_low",
    "asr_high",
    "refusal_benign",
    "kl_benign",
)
FORMAT = TableFormat("cliffscope.curve", "1", "an ablation curve", "make the curve again", COLUMNS)


@dataclass(frozen=True)
class CurveOptions:
    """How a curve is made.

    Attributes:
        counts: Numbers of heads; 0 is always added.
        n_random: Random sets for each number, for the logits.
        n_random_answered: Of these, how many are also made to answer prompts, which takes far longer.
        n_prompts: Most harmful and most benign prompts to answer; 0 generates nothing.
        n_rollouts: Most complied rollouts whose logits are read.
        gamma: What the heads' output is multiplied by.
        scope: Where they are ablated: see `interventions.scope.Scope`.
        max_new_tokens: Of an answer, thinking included.
        seed: Of random sets and intervals.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If the scope is unknown, or with this gamma nothing would be ablated.
    """

    counts: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    n_random: int = 20
    n_random_answered: int = 2
    n_prompts: int = 64
    n_rollouts: int = 64
    gamma: float = 0.0
    scope: str = "all"
    max_new_tokens: int = 512
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        Scope(self.scope)
        check_gamma(self.gamma)


@dataclass(frozen=True, eq=False, repr=False)
class AblationCurve(Drawn):
    """A curve with its control.

    Attributes:
        table: One row a set of heads: `n_heads`, `set` (`ranked` or `random`), `draw` (which random set), `heads`
            ("3.1,4.5"), `refusal_logit` in nats with its bootstrap interval over rollouts, `probe_logit`, `asr` with
            Wilson's interval, `refusal_benign`, `kl_benign` in nats a token; NaN where it was not measured.
        model: Name of the model.
        facts: Options, and numbers of rollouts and prompts.
    """

    table: pd.DataFrame
    model: str
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        # As the file holds them: the curve in memory must not differ from the one read back.
        object.__setattr__(self, "facts", as_json_holds(self.facts))

    @property
    def returns(self) -> int | None:
        """With how many ranked heads refusal returns: the least whose mean refusal logit is above 0."""
        back = self.table[(self.table["set"] == "ranked") & (self.table["refusal_logit"] > 0)]
        return None if back.empty else int(back["n_heads"].min())

    @property
    def evidence(self) -> str:
        """Whether there is anything to explain, and whether refusal returns, with how many heads and at what cost."""
        return " ".join([self._returns, *(null.sentence for null in self.nulls)])

    @property
    def _returns(self) -> str:
        returns, most = self.returns, int(self.table["n_heads"].max())
        base = self.table.iloc[0]
        rows = self.table[self.table["n_heads"] == (most if returns is None else returns)]
        ranked, drawn = rows[rows["set"] == "ranked"].iloc[0], rows[rows["set"] == "random"]
        text = (
            f"Refusal does not return with up to {most} heads"
            if returns is None
            else f"Refusal returns with {returns} head{'s' * (returns != 1)} ablated ({ranked['heads'] or 'none'})"
        )
        if self.facts["nothing"] is not None:
            text = f"Nothing to explain: {self.facts['nothing']}. {text}"
        text += f": mean refusal logit {base['refusal_logit']:.2f} → {ranked['refusal_logit']:.2f} nats"
        if not drawn.empty:
            low, high = drawn["refusal_logit"].min(), drawn["refusal_logit"].max()
            text += f", {len(drawn)} random sets {low:.2f} … {high:.2f}"
        if pd.isna(ranked["asr"]):
            return f"{text}."
        control = "" if drawn["asr"].isna().all() else f" (random sets {drawn['asr'].mean():.1%})"
        text += f". Harmful prompts answered: {base['asr']:.1%} → {ranked['asr']:.1%}{control}"
        if pd.notna(ranked["refusal_benign"]):
            text += f"; benign prompts refused: {base['refusal_benign']:.1%} → {ranked['refusal_benign']:.1%}"
        return f"{text}."

    @property
    def nulls(self) -> tuple[NullRuns, ...]:
        """The rise of the refusal logit beside that of a null (`circuits.nulls`), where one was run."""
        return tuple(NullRuns.of_summary(summary) for summary in self.facts.get("nulls", ()))

    def figure(self) -> "go.Figure":
        """Refusal, answers and drift against the number of heads; see `circuits.curve_figure`."""
        from circuits.curve_figure import curve_figure

        return curve_figure(self)

    def words(self) -> Words:
        """Whether refusal returns and at what cost, and the figures of each number of ranked heads."""
        columns = ("refusal_logit", "asr", "refusal_benign", "kl_benign")
        titles = ("refusal logit", "ASR", "benign refused", "drift (nats)")
        rows: list[list[object]] = [["heads", "which", *titles]]
        for row in self.table[self.table["set"] == "ranked"].to_dict("records"):
            which = shortened(str(row["heads"]), 32) or "none"
            rows.append([str(row["n_heads"]), which, *(float(row[name]) for name in columns)])
        back = self.returns
        head = "refusal does not return" if back is None else f"refusal returns with {back} heads"
        return Words(f"Ablation curve of {self.model}", head, (self.evidence,), rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes Parquet with model and facts in its metadata. Raises `CliffscopeError` if it cannot."""
        FORMAT.write(path, self.table, {"model": self.model, "facts": self.facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AblationCurve":
        """Reads a curve. Raises `CliffscopeError` if the file is missing or is none."""
        table, metadata = FORMAT.read(path)
        return cls(table, metadata["model"], metadata["facts"])


def ablation_curve(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    heads: Sequence[Head],
    options: CurveOptions | None = None,
    advance: Callable[[int], None] = lambda amount: None,
) -> AblationCurve:
    """Measures the curve along a ranking of heads.

    Args:
        model: The model.
        probe: Read at the edge.
        cases: The rollouts; their prompts are answered anew.
        heads: Ranked, best first.
        options: How; see there.
        advance: Called after each set of heads with 1; `n_sets` tells how many there are.

    Raises:
        CliffscopeError: If there is no complied rollout, or as `check_counts` does.
    """
    options = options or CurveOptions()
    if not cases.complied:
        raise CliffscopeError(f"curve: nothing to explain: {cases.nothing}.")
    check_counts(options.counts, len(heads), model)
    bench = _Bench(model, probe, cases, options)
    rows = [bench.row((), "ranked", None)]
    advance(1)
    for count in sorted(set(options.counts) - {0}):
        ranked = tuple(heads[:count])
        rows.append(bench.row(ranked, "ranked", None))
        advance(1)
        for draw, drawn in enumerate(random_sets(model, ranked, options.n_random, options.seed + count)):
            rows.append(bench.row(drawn, "random", draw))
            advance(1)
    facts = {**asdict(options), **bench.sizes, "nothing": cases.nothing}
    return AblationCurve(pd.DataFrame(rows, columns=list(COLUMNS)), model.name, facts)


def n_sets(options: CurveOptions) -> int:
    """How many sets of heads a curve measures."""
    return 1 + len(set(options.counts) - {0}) * (1 + options.n_random)


def check_counts(counts: Sequence[int], n_ranked: int, model: Sizes) -> None:
    """Raises `CliffscopeError` if a number of heads is more than were ranked, or leaves too few for random sets."""
    wrong = [count for count in counts if not 0 <= count <= n_ranked]
    if wrong:
        raise CliffscopeError(f"curve: {wrong[0]} heads cannot be ablated: {n_ranked} are ranked.")
    most, total = max(counts, default=0), model.n_layers * model.n_heads
    if 2 * most > total:
        raise CliffscopeError(
            f"curve: {most} of {total} heads leave fewer for the random sets; ablate at most {total // 2}."
        )


class _Bench:
    """Measures one set of heads after the other on the same rollouts and prompts."""

    def __init__(self, model: "HookedModel", probe: LinearProbe, cases: Cases, options: CurveOptions) -> None:
        self._model, self._probe, self._options = model, probe, options
        self._site = check_probe(model, probe)
        self._complied: Sequence[Transcript] = cases.complied[: options.n_rollouts]
        self._tokens = refusal_token_ids(model.tokenizer, model.chat.thinking.close)
        self._benign = cases.rollouts["benign"][: options.n_prompts]
        self._prompts: list[Prompt] = []
        for outcomes in (("complied", "refused"), ("benign",)):
            pool = [rollout for outcome in outcomes for rollout in cases.rollouts[outcome]]
            order = np.random.default_rng(options.seed).permutation(len(pool))
            self._prompts += prompts_of([pool[place] for place in order])[: options.n_prompts]
        self._generator = ModelGenerator(
            model, options.max_new_tokens, seed=options.seed, batch_tokens=options.batch_tokens
        )

    @property
    def sizes(self) -> dict[str, int]:
        """On how much the figures rest."""
        harmful = sum(prompt.harmful is True for prompt in self._prompts)
        return {"rollouts": len(self._complied), "harmful": harmful, "benign": len(self._prompts) - harmful}

    def row(self, heads: tuple[Head, ...], kind: str, draw: int | None) -> dict[str, Any]:
        """All figures of one set of heads."""
        change = [ScaleHeads(heads, self._options.scope, gamma=self._options.gamma)] if heads else []
        answered = draw is None or draw < self._options.n_random_answered
        return {
            "n_heads": len(heads),
            "set": kind,
            "draw": -1 if draw is None else draw,
            "heads": ",".join(map(str, heads)),
            **self._logits(change),
            **(self._answers(change) if answered else {}),
        }

    def _logits(self, change: Sequence[Intervention]) -> dict[str, float]:
        budget = self._options.batch_tokens

        def reduce(logits: Float[Tensor, "batch 1 d_vocab"]) -> Float[Tensor, "batch 1"]:
            return refusal_logit(logits[:, 0], self._tokens)[:, None]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingChangedWarning)
            with self._model.intervene(*change):
                refusal = self._model.logits(self._complied, [EDGE], reduce=reduce, batch_tokens=budget)[:, 0]
                hidden = self._model.capture(self._complied, [self._site], [EDGE], batch_tokens=budget)[self._site]
        interval = bootstrap_interval(refusal.numpy(), seed=self._options.seed)
        return {
            "refusal_logit": float(refusal.mean()),
            "refusal_logit_low": interval.low,
            "refusal_logit_high": interval.high,
            "probe_logit": float(self._probe.logit(hidden[:, 0]).mean()),
        }

    def _answers(self, change: Sequence[Intervention]) -> dict[str, float]:
        if not self._prompts:
            return {}
        behaviour = Behaviour.of(answer(self._generator, self._prompts, change))
        low, high = behaviour.asr_interval
        figures = {
            "asr": behaviour.asr,
            "asr_low": low,
            "asr_high": high,
            "refusal_benign": behaviour.refusal_benign,
        }
        if self._benign:
            moved = drift(self._model, self._benign, change, batch_tokens=self._options.batch_tokens)
            figures["kl_benign"] = float(moved.mean())
        return figures
