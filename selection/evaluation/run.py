"""`evaluate`: every prompt answered and judged, and what the change cost; killed at any moment, it goes on.

Beside `eval.json` a folder `eval.json.rollouts` keeps what was generated (`harmful.jsonl`, `benign.jsonl`,
`traps.jsonl`, and the base's own answers in `base-benign.jsonl`) and every verdict with its reason
(`judged-harmful.jsonl`, …). Run again with the same settings, nothing is generated or judged twice.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.judges import Judge, Judgement, KeywordJudge
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Intervention
from interp.rollouts import Rollout
from interp.rollouts.prompts import PromptSet
from selection.evaluation.cost import measure_kl, measure_perplexity
from selection.evaluation.estimate import Estimate
from selection.evaluation.evaluation import Evaluation, rollouts_folder
from selection.evaluation.judging import judge_resumably
from selection.evaluation.outcomes import PromptOutcome
from selection.evaluation.subject import EvaluationOptions, Subject, check_same_tokens

_TO_COME = Estimate.undefined("not measured yet")


def evaluate(
    model: HookedModel,
    harmful: PromptSet,
    benign: PromptSet,
    out: str | os.PathLike[str],
    *,
    traps: PromptSet | None = None,
    judge: Judge | None = None,
    interventions: Mapping[str, Intervention] | None = None,
    base: HookedModel | None = None,
    options: EvaluationOptions | None = None,
    label: str | None = None,
    facts: Mapping[str, Any] | None = None,
    restart: bool = False,
) -> Evaluation:
    """Evaluates a model, with interventions in force or not, and writes the evaluation to `out`.

    Args:
        model: The model.
        harmful: Prompts that should be refused.
        benign: Prompts that should be answered.
        out: The JSON file to write. Beside it a folder keeps rollouts and verdicts.
        traps: Harmless questions with harmful words.
        judge: `KeywordJudge` if not given. One that reads the model (the refusal logit) sees the interventions. A
            classifier of harmful compliance gives no verdict on harmless prompts; pair it in a `JudgeByHarm` with one
            that does.
        interventions: What is in force, by names that tell them apart from any others: a name stands for its
            intervention in the file, and where an earlier run is taken up.
        base: What the model was made from, if KL and perplexity are to be measured against that; both are in memory
            then. Where there are only interventions, the base is the model without them.
        options: How.
        label: A short name for tables; the model's with what is in force if not given.
        facts: What else to put down.
        restart: Throw away what an earlier run left, and replace `out` at the end.

    Raises:
        CliffscopeError: If a prompt is in the wrong set, the base has other tokens, an intervention does not fit, `out`
            or what an earlier run left was made with other settings, or generating, judging or writing fails; what was
            finished before stays.
    """
    path, options, judge = Path(out), options or EvaluationOptions(), judge or KeywordJudge()
    sets = {"harmful": _labelled(harmful, True, "harmful"), "benign": _labelled(benign, False, "benign")}
    if traps is not None:
        sets["traps"] = _labelled(traps, False, "traps")
    if base is not None:
        check_same_tokens(base, model, benign)
    subject, reference = Subject(model, interventions or {}), Subject(base or model)
    planned = _plan(subject, reference, judge, sets, options, label, facts or {})
    finished = None if restart else _finished(path, planned)
    if finished is None:
        try:
            finished = _carry_out(planned, subject, reference, judge, sets, path, options, restart)
        finally:
            # Only where it is empty: nothing was finished.
            with contextlib.suppress(OSError):
                rollouts_folder(path).rmdir()
    finished = replace(finished, label=planned.label, facts=planned.facts)
    finished.save(path)
    return finished


def _labelled(prompts: PromptSet, harmful: bool, name: str) -> PromptSet:
    """The prompts, said to be harmful or not. Raises `CliffscopeError` where one is known to be the other."""
    for prompt in prompts:
        if prompt.harmful not in (None, harmful):
            other = "benign" if harmful else "harmful"
            raise CliffscopeError(
                f"{prompts.source or 'prompts'}: prompt {prompt.id!r} is {other} and stands among the {name} ones; "
                "give each kind in a file of its own."
            )
    return PromptSet(tuple(replace(prompt, harmful=harmful) for prompt in prompts), prompts.source)


def _plan(
    subject: Subject,
    reference: Subject,
    judge: Judge,
    sets: Mapping[str, PromptSet],
    options: EvaluationOptions,
    label: str | None,
    facts: Mapping[str, Any],
) -> Evaluation:
    """The evaluation before anything is done."""
    dtype = str(subject.model.dtype).removeprefix("torch.")
    return Evaluation(
        label=label or subject.name,
        model=subject.model.name,
        fingerprint={**subject.model.fingerprint, "weights": subject.identity["weights"]},
        interventions=tuple(subject.interventions),
        reference={
            "model": reference.model.name,
            "fingerprint": reference.model.fingerprint,
            "weights": reference.identity["weights"],
        },
        judge=judge.name,
        settings={
            "seed": options.seed,
            "temperature": options.temperature,
            "max_new_tokens": options.max_new_tokens,
            "dtype": dtype,
        },
        prompts={
            name: {"source": prompts.source, "count": len(prompts), "sha256": prompts.fingerprint}
            for name, prompts in sets.items()
        },
        outcomes=(),
        kl=_TO_COME,
        perplexity=_TO_COME,
        facts=facts,
    )


def _finished(path: Path, planned: Evaluation) -> Evaluation | None:
    """What an earlier run wrote; `None` if there is work to do.

    Raises:
        CliffscopeError: If there is something else.
    """
    if not path.exists():
        return None
    advice = "choose another name, or use --restart to start over"
    try:
        found = Evaluation.load(path)
    except CliffscopeError as error:
        raise CliffscopeError(f"{path}: is there already, and no evaluation that can be read; {advice}.") from error
    there, now = found.header, planned.header
    for key in (*now, *there):
        if there.get(key) != now.get(key):
            raise CliffscopeError(
                f"{path}: is there already, made with other settings ({key} is {_shown(there.get(key))} there and "
                f"{_shown(now.get(key))} now); {advice}."
            )
    # What a cap kept from being judged may be judged now.
    return None if any(found.unjudged.values()) else found


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _carry_out(
    planned: Evaluation,
    subject: Subject,
    reference: Subject,
    judge: Judge,
    sets: Mapping[str, PromptSet],
    path: Path,
    options: EvaluationOptions,
    restart: bool,
) -> Evaluation:
    folder = rollouts_folder(path)
    made = {
        name: subject.roll_out(prompts, folder / f"{name}.jsonl", options, restart) for name, prompts in sets.items()
    }
    changed = reference.model is not subject.model or bool(subject.interventions)
    theirs = made["benign"]
    if changed:
        theirs = reference.roll_out(sets["benign"], folder / "base-benign.jsonl", options, restart)
    judged = {}
    with subject.active():
        for name, rollouts in made.items():
            log = folder / f"judged-{name}.jsonl"
            judged[name] = judge_resumably(rollouts, judge, log, batch_size=options.batch_size, restart=restart)
    return replace(
        planned,
        outcomes=tuple(_outcomes(made, judged, subject.model)),
        reference={**planned.reference, "rollouts": _hash(theirs)},
        kl=measure_kl(subject, reference, theirs, options) if changed else Estimate.undefined("it is the base itself"),
        perplexity=measure_perplexity(subject, reference, theirs, options),
    )


def _outcomes(
    made: Mapping[str, Sequence[Rollout]], judged: Mapping[str, Sequence[Judgement]], model: HookedModel
) -> list[PromptOutcome]:
    def count(text: str) -> int:
        return len(model.tokenizer.encode(text, add_special_tokens=False))

    return [
        PromptOutcome.of(name, rollout, judgement, count)
        for name, rollouts in made.items()
        for rollout, judgement in zip(rollouts, judged[name], strict=True)
    ]


def _hash(rollouts: Sequence[Rollout]) -> str:
    """Of what was asked and answered, in an order that does not depend on theirs."""
    content = sorted([r.id, r.prompt, r.thinking or "", r.response or ""] for r in rollouts)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
