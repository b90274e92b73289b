"""From a pool to the few examples that matter: score, choose, make targets, export, and say how it was done.

    selection = select(model, "probe.safetensors", "pool.jsonl", "selected.jsonl", SelectOptions(choice, target=…))

writes `selected.jsonl` and `selected.jsonl.manifest.json`. The scores stay in `selected.jsonl.scores.jsonl`, or in a
file of your own that several selections from one pool share: only the first of them runs the model.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.display.shown import Drawn, Words
from interp.display.text import shortened
from interp.errors import CliffscopeError
from interp.files import write_together
from interp.json_values import as_json_holds
from interp.judges import Judge, KeywordJudge
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.rollouts.endpoint import Endpoint
from interp.rollouts.job import run
from interp.rollouts.prompts import PromptSet
from probes.cliff import Plateau
from probes.linear import LinearProbe
from selection.choice import Choice, ChoiceOptions, choose
from selection.examples import Format, SelectedExample, check_format, dump_examples, keeps_thinking
from selection.pool import PoolExample, PoolSurvey, hash_file, read_pool, survey_pool
from selection.score_files import ScoreFile, score_pool
from selection.scoring import Score, Scorer
from selection.targets import Target, Targets, check_targets, kind_of, make_targets, safe_system_prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel

FORMAT = "cliffscope-selection"
VERSION = 1


@dataclass(frozen=True)
class SelectOptions:
    """How examples are selected and exported.

    Attributes:
        choice: What is chosen, and how much of it.
        format: `messages`, `alpaca` or `sharegpt`.
        target: How targets are made: `pool`, `own-thinking` or `endpoint`.
        plateau: `mean` or `max` over the second half of the thinking.
        max_new_tokens: Most tokens to generate, thinking included.
        batch_size: Examples between two savings.
        batch_tokens: Token budget of a batch.
    """

    choice: ChoiceOptions = field(default_factory=lambda: ChoiceOptions(fraction=0.017))
    format: Format = "messages"
    target: Target = "pool"
    plateau: Plateau = "mean"
    max_new_tokens: int = 512
    batch_size: int = 64
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        check_format(self.format)


@dataclass(frozen=True, repr=False)
class Selection(Drawn):
    """What was selected.

    Attributes:
        path: The file of examples.
        examples: Best first.
        choice: Why these.
        manifest: How they were selected; also in `manifest_path(path)`.
        pool: Scores of the whole pool; none if they are not at hand.
    """

    path: Path
    examples: tuple[SelectedExample, ...]
    choice: Choice
    manifest: Mapping[str, Any]
    pool: tuple[Score, ...] = ()

    def figure(self) -> "go.Figure":
        """The chosen among the pool, by cliff; see `selection.select_figure`."""
        from selection.select_figure import select_figure

        return select_figure(self)

    def words(self) -> Words:
        """How many were chosen of what, why others were left out, and the eight best."""
        columns = ("plateau", "edge", "cliff")
        rows: list[list[object]] = [["example", "outcome", "category", *columns]]
        for score in self.choice.scores[:8]:
            rows.append([shortened(score.id, 40), score.outcome, score.category, *(getattr(score, c) for c in columns)])
        method = self.manifest.get("options", {}).get("method", "choice")
        left = ", ".join(f"{count:,} {reason}" for reason, count in self.choice.left_out.items()) or "none"
        size = len(self.pool) or self.choice.eligible
        head = f"{len(self.choice.scores):,} of {size:,} examples by {method}"
        text = f"{self.choice.eligible:,} could be chosen; left out: {left}. Written to {self.path.name}."
        return Words("Selection", head, (text,), rows)


def manifest_path(out: Path) -> Path:
    """Where a selection records how `out` was made: `selected.jsonl.manifest.json` beside `selected.jsonl`."""
    return out.with_name(f"{out.name}.manifest.json")


def default_scores_path(out: Path) -> Path:
    """Where scores go if no file is given for them."""
    return out.with_name(f"{out.name}.scores.jsonl")


def select(
    model: "HookedModel",
    probe: Path,
    pool: Path | PoolSurvey,
    out: Path,
    options: SelectOptions | None = None,
    *,
    scores: Path | None = None,
    judge: Judge | None = None,
    endpoint: Endpoint | None = None,
    restart: bool = False,
) -> Selection:
    """Selects training examples from a pool and writes them with a manifest; goes on with what an earlier run left.

    Args:
        model: The model to repair; interventions that are active on it act.
        probe: The file of a refusal probe of the model.
        pool: Its file (see `selection.pool`), or what `survey_pool` found in it.
        out: The JSON Lines file to write; replaced if it is there.
        options: How.
        scores: The file of scores, which selections from the same pool can share; beside `out` if not given.
        judge: For the method `judge`.
        endpoint: For the target `endpoint`; told to be safe by a system prompt unless it has one.
        restart: Throw away what an earlier run left, and score anew.

    Raises:
        CliffscopeError: If the pool has a bad line (which is found before any work), has no targets and is to give
            them, something that the method or the target needs is missing, scores made with other settings are in the
            way, or nothing can be chosen.
    """
    options = options or SelectOptions()
    method = options.choice.method
    if method == "judge" and judge is None:
        raise CliffscopeError("method judge: give a judge.")
    if options.target == "endpoint" and endpoint is None:
        raise CliffscopeError("target endpoint: give an endpoint, the URL of an OpenAI-compatible server.")
    survey = pool if isinstance(pool, PoolSurvey) else survey_pool(pool)
    check_targets(survey, options.target)
    fitted = LinearProbe.load(probe)
    scorer = Scorer(
        model,
        fitted,
        max_new_tokens=options.max_new_tokens,
        plateau=options.plateau,
        judge=judge if method == "judge" else None,
        loss_target=options.target if method == "loss" else None,
        batch_tokens=options.batch_tokens,
    )
    scored = score_pool(
        scorer, survey, scores or default_scores_path(out), batch_size=options.batch_size, restart=restart
    )
    choice = choose(scored.scores, options.choice, target=options.target, prompt_of=scored.prompt)
    pairs = _pairs(survey, scored, choice)
    answers, answered = _answers(pairs, out, options.target, endpoint, restart)
    pairs = [pair for pair in pairs if not _needs_answer(pair[0], options.target) or pair[0].id in answers]
    targets = make_targets(pairs, options.target, answers)
    examples = tuple(_selected(targets, choice))
    manifest = {
        **_provenance(model, probe, fitted, survey, options, judge),
        "counts": _counts(survey, scored.scores, choice, targets),
        "answers": answered,
        "chat_template_keeps_thinking": keeps_thinking(model.chat),
    }
    manifest = _write(out, examples, options.format, model, manifest)
    return Selection(out, examples, choice, manifest, tuple(scored.scores))


def _pairs(survey: PoolSurvey, scored: ScoreFile, choice: Choice) -> list[tuple[PoolExample, Rollout]]:
    """The chosen examples with the model's own rollouts, best first, from a second pass over the pool."""
    ids = [score.id for score in choice.scores]
    wanted = set(ids)
    found = {example.id: example for example in read_pool(survey.path) if example.id in wanted}
    rollouts = scored.rollouts(ids)
    return [(found[id], rollouts[id]) for id in ids]


def _needs_answer(example: PoolExample, target: Target) -> bool:
    return kind_of(example, target).startswith("from the endpoint")


def _answers(
    pairs: Sequence[tuple[PoolExample, Rollout]], out: Path, target: Target, endpoint: Endpoint | None, restart: bool
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """The server's answers by id, and what is to be said of them."""
    prompts = tuple(example.as_prompt() for example, _ in pairs if _needs_answer(example, target))
    if endpoint is None or not prompts:
        return {}, None
    # Named by what is asked, so that another choice from the same pool neither finds these nor is refused.
    digest = hashlib.sha256("\n".join(prompt.id for prompt in prompts).encode()).hexdigest()[:8]
    path = out.with_name(f"{out.name}.answers-{digest}.jsonl")
    with endpoint if endpoint.system is not None else replace(endpoint, system=safe_system_prompt()) as server:
        asked = PromptSet(prompts, "pool")
        result = run(asked, server.generate, path, server.settings, judge=KeywordJudge(), restart=restart)
    answers = {
        rollout.id: rollout.response for rollout in result.rollouts if rollout.response and rollout.response.strip()
    }
    said = {
        "file": path.name,
        "model": server.model_name,
        "asked": len(prompts),
        "without_answer": len(prompts) - len(answers),
        "not_refused_by_keywords": sum(rollout.refused is False for rollout in result.rollouts),
    }
    return answers, said


def _selected(targets: Targets, choice: Choice) -> Iterator[SelectedExample]:
    reasons = {score.id: (score, reason) for score, reason in zip(choice.scores, choice.reasons, strict=True)}
    for rank, example in enumerate(targets.examples, start=1):
        score, reason = reasons[example.id]
        assert score.cliff is not None and score.plateau is not None and score.edge is not None
        yield SelectedExample(example, rank, score.cliff, score.plateau, score.edge, reason)


def _provenance(
    model: "HookedModel",
    probe: Path,
    fitted: LinearProbe,
    survey: PoolSurvey,
    options: SelectOptions,
    judge: Judge | None,
) -> dict[str, Any]:
    """What the selection depends on; no times, so that a run that was killed gives the same file."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "probe": {"file": probe.name, "sha256": hash_file(probe), "site": fitted.site, "layer": fitted.layer},
        "pool": {"file": survey.path.name, "sha256": survey.sha256, "examples": survey.count},
        "options": {
            **asdict(options.choice),
            "format": options.format,
            "target": options.target,
            "plateau": options.plateau,
            "max_new_tokens": options.max_new_tokens,
            "judge": judge.name if judge is not None and options.choice.method == "judge" else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("cliffscope", "torch", "transformers")},
        },
    }


def _counts(survey: PoolSurvey, scores: Sequence[Score], choice: Choice, targets: Targets) -> dict[str, Any]:
    """How many there were of everything."""
    ids = {example.id for example in targets.examples}
    selected = [score for score in choice.scores if score.id in ids]

    def counted(values: Sequence[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return {
        "pool": survey.count,
        "labels": dict(survey.harmful),
        "rollouts_given": survey.own,
        "outcomes": counted([score.outcome for score in scores]),
        "unscorable": counted([score.unscorable for score in scores if score.unscorable is not None]),
        "left_out": dict(choice.left_out),
        "eligible": choice.eligible,
        "asked": choice.asked,
        "selected": len(selected),
        "near_duplicates": choice.near_duplicates,
        "selected_outcomes": counted([score.outcome for score in selected]),
        "selected_categories": counted([score.category or "none" for score in selected]),
        "targets": dict(targets.counts),
    }


def _write(
    out: Path,
    examples: Sequence[SelectedExample],
    format: Format,
    model: "HookedModel",
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Writes the examples and the manifest together; returns the manifest with the examples' hash."""
    whole = as_json_holds(manifest)

    def write_out(partial: Path) -> None:
        dump_examples(partial, examples, format, model.chat)
        whole["sha256"] = hash_file(partial)

    def write_manifest(partial: Path) -> None:
        partial.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_together({out: write_out, manifest_path(out): write_manifest})
    return whole
