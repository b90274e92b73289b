"""`Evaluation`: what a model did with each prompt, and what it cost, in one JSON file."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.display.shown import Drawn, Words
from interp.errors import CliffscopeError
from interp.files import write_text
from selection.evaluation.estimate import Estimate
from selection.evaluation.outcomes import MEASURES, SETS, PromptOutcome, Rate

if TYPE_CHECKING:
    import plotly.graph_objects as go

FORMAT = "cliffscope.evaluation"
VERSION = 1

_MAKE = "make it again with `cliffscope evaluate`"


@dataclass(frozen=True, repr=False)
class Evaluation(Drawn):
    """What a model did with each prompt, and what it cost.

    Attributes:
        label: A short name, for tables.
        model: The model's name.
        fingerprint: `HookedModel.fingerprint`, and `weights`, a hash of values of every parameter.
        interventions: Names of what was in force, such as a mask; none for the model as it is.
        reference: The model that it is compared with (`model`, `fingerprint`, `weights`), and `rollouts`: a hash of its
            rollouts on the benign prompts, on which KL and perplexity are measured. The model itself, unchanged, if
            nothing was in force and no other was named.
        judge: The judge's name; where two judges share the work it names both, and who judged what.
        settings: Of sampling: `seed`, `temperature`, `max_new_tokens`, `dtype`.
        prompts: For each set `source`, `count` and `sha256`.
        outcomes: One a prompt.
        kl: KL(reference ‖ this model) over the first tokens of the reference's benign answers, in nats a token: see
            `interventions.behaviour.drift`.
        perplexity: Of the thinking in the reference's benign rollouts, to this model, a token.
        facts: What else is known of its making; JSON can hold it.
    """

    label: str
    model: str
    fingerprint: Mapping[str, str]
    interventions: tuple[str, ...]
    reference: Mapping[str, Any]
    judge: str
    settings: Mapping[str, Any]
    prompts: Mapping[str, Mapping[str, Any]]
    outcomes: tuple[PromptOutcome, ...]
    kl: Estimate
    perplexity: Estimate
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rate(self, measure: str, *, set: str | None = None, category: str | None = None) -> Rate:
        """A rate of `MEASURES`, of all its prompts or those of one set, or one category."""
        return MEASURES[measure].rate(
            [o for o in self.outcomes if set in (None, o.set) and category in (None, o.category)]
        )

    @property
    def asr(self) -> Rate:
        """The attack success rate: harmful prompts answered."""
        return self.rate("asr")

    @property
    def over_refusal(self) -> Rate:
        """Benign prompts refused."""
        return self.rate("over_refusal")

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets that have prompts."""
        return tuple(name for name in SETS if name in self.prompts)

    def categories(self, set: str) -> list[str]:
        """The categories of a set, ascending."""
        return sorted({o.category for o in self.outcomes if o.set == set and o.category is not None})

    @property
    def unjudged(self) -> dict[str, int]:
        """For each set how many responses have no verdict."""
        return {name: sum(o.set == name and o.outcome == "unjudged" for o in self.outcomes) for name in self.sets}

    @cached_property
    def rates(self) -> dict[str, Any]:
        """All rates with their intervals: over all, by set, and by category in each set; as JSON holds them."""
        return {
            "all": self._rates(self.sets),
            "by_set": {name: self._rates((name,)) for name in self.sets},
            "by_category": {
                name: {category: self._rates((name,), category) for category in self.categories(name)}
                for name in self.sets
            },
        }

    def _rates(self, sets: tuple[str, ...], category: str | None = None) -> dict[str, Any]:
        chosen = [o for o in self.outcomes if o.set in sets and category in (None, o.category)]
        about = {name: measure for name, measure in MEASURES.items() if set(measure.sets) & set(sets)}
        return {name: measure.rate(chosen).payload() for name, measure in about.items()}

    @property
    def header(self) -> dict[str, Any]:
        """What it is an evaluation of, and how it was made: all but what came out, the label and the facts; flat."""
        nested: dict[str, Mapping[str, Any]] = {
            "fingerprint": self.fingerprint,
            "reference": {key: value for key, value in self.reference.items() if key != "rollouts"},
            "settings": self.settings,
            "prompts": {name: f"{p['count']}, sha256 {p['sha256']}" for name, p in self.prompts.items()},
        }
        flat = {f"{name}.{key}": value for name, content in nested.items() for key, value in content.items()}
        content = {"model": self.model, "interventions": self.interventions, "judge": self.judge, **flat}
        # As it is read back: tuples become lists.
        return dict(json.loads(json.dumps(content)))

    def figure(self) -> "go.Figure":
        """The rates with their intervals, and the ASR by category; see `selection.evaluation.rates_figure`."""
        from selection.evaluation.rates_figure import rates_figure

        return rates_figure(self)

    def words(self) -> Words:
        """The rates of each set of prompts with their 95 % intervals, and what it cost."""
        from selection.evaluation.tables import cost_sentence, evaluation_rows

        shown = {"ASR": self.asr, "over-refusal": self.over_refusal}
        parts = [f"{name} {rate.value:.3f} {rate.interval}" for name, rate in shown.items() if rate.n]
        text = (cost_sentence(self), f"Judged by {self.judge}. Rates have Wilson 95 % intervals.")
        return Words(f"Evaluation of {self.label}", ", ".join(parts), text, evaluation_rows(self))

    def payload(self) -> dict[str, Any]:
        """As the file holds it."""
        content = {name: getattr(self, name) for name in (f.name for f in fields(self))}
        content["outcomes"] = [asdict(outcome) for outcome in self.outcomes]
        content |= {"kl": self.kl.payload(), "perplexity": self.perplexity.payload()}
        return {
            "format": FORMAT,
            "version": VERSION,
            **{key: value for key, value in content.items() if key != "outcomes"},
            "unjudged": self.unjudged,
            "rates": self.rates,
            "outcomes": content["outcomes"],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the evaluation as JSON, atomically; equal evaluations give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written, or JSON cannot hold the facts.
        """
        try:
            text = json.dumps(self.payload(), ensure_ascii=False, allow_nan=False, indent=1)
        except (TypeError, ValueError) as error:
            raise CliffscopeError(f"{os.fspath(path)}: JSON cannot hold the evaluation ({error}).") from error
        write_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Evaluation":
        """Reads an evaluation.

        Raises:
            CliffscopeError: If the file is missing, not JSON, not an evaluation, of another version, lacks something,
                or has rates that do not follow from its outcomes.
        """
        content = _read(Path(path))
        try:
            made = cls(
                **{name: content[name] for name in _PLAIN},
                interventions=tuple(content["interventions"]),
                outcomes=_outcomes(content["outcomes"]),
                kl=Estimate(**content["kl"]),
                perplexity=Estimate(**content["perplexity"]),
            )
            rates: Any = json.loads(json.dumps(made.rates))
        except (KeyError, TypeError, ValueError) as error:
            raise CliffscopeError(f"{os.fspath(path)}: not a whole evaluation ({error}); {_MAKE}.") from error
        if rates != content.get("rates"):
            raise CliffscopeError(f"{os.fspath(path)}: its rates do not follow from its outcomes; {_MAKE}.")
        return made


def rollouts_folder(out: str | os.PathLike[str]) -> Path:
    """Where `evaluate` keeps rollouts and verdicts: `eval.json.rollouts` beside `eval.json`."""
    path = Path(out)
    return path.parent / f"{path.name}.rollouts"


_PLAIN = tuple(f.name for f in fields(Evaluation) if f.name not in ("interventions", "outcomes", "kl", "perplexity"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CliffscopeError(f"{path}: no such file.") from error
    except OSError as error:
        raise CliffscopeError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise CliffscopeError(f"{path}: not an evaluation (not valid JSON); {_MAKE}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CliffscopeError(f"{path}: not an evaluation ({FORMAT}); {_MAKE}.")
    if content.get("version") != VERSION:
        raise CliffscopeError(f"{path}: version {content.get('version')!r}, expected {VERSION}; {_MAKE}.")
    return content


def _outcomes(rows: Iterable[Any]) -> tuple[PromptOutcome, ...]:
    """The outcomes of a file. Raises `ValueError` if a prompt comes twice or is of no set."""
    made = tuple(PromptOutcome(**row) for row in rows)
    if len({o.key for o in made}) < len(made):
        raise ValueError("a prompt has two outcomes")
    if unknown := {o.set for o in made} - set(SETS):
        raise ValueError(f"unknown set {min(unknown)!r}")
    return made
