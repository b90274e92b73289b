"""`cliffscope evaluate`: what a model does with harmful and harmless prompts, and what a change to it costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.judge_options import (
    Concurrency,
    JudgeEndpoint,
    JudgeForm,
    JudgeModel,
    JudgeRaw,
    JudgeTemplate,
    Kind,
    MaxCalls,
    MaxTokens,
    Timeout,
)
from interp.cli.options import (
    BatchSize,
    BatchTokens,
    Device,
    DType,
    Json,
    Mask,
    MaxNewTokens,
    Model,
    Restart,
    Seed,
    Temperature,
)
from interp.cli.steer_options import Alpha, DoseUnits, HowToSteer, Layer, OptionalVector, Scope, Steering, Units
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel
    from interp.models.hooks import Intervention
    from interventions.masks import HeadMask
    from selection.evaluation import Evaluation


def evaluate(
    model: Model,
    prompts: Annotated[str, typer.Option("--prompts", help="Harmful prompts: a file, or a dataset id on the hub.")],
    benign: Annotated[str, typer.Option("--benign", help="Benign prompts.")],
    out: Annotated[Path, typer.Option("--out", help="The JSON file to write; rollouts go beside it: OUT.rollouts.")],
    traps: Annotated[
        str | None, typer.Option("--traps", help="Harmless questions with harmful words, counted apart.")
    ] = None,
    mask: Mask = None,
    vector: OptionalVector = None,
    alpha: Alpha = None,
    layer: Layer = None,
    mode: HowToSteer = None,
    scope: Scope = "all",
    units: DoseUnits = Units.SCALE,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="What it was made from, for KL and perplexity; else itself without mask and vector."
        ),
    ] = None,
    judge: Annotated[Kind, typer.Option("--judge", help="How to judge.")] = Kind.KEYWORD,
    judge_model: JudgeModel = None,
    endpoint: JudgeEndpoint = None,
    form: JudgeForm = None,
    template: JudgeTemplate = None,
    raw: JudgeRaw = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="llm: keeps what is judged; in OUT.rollouts if not given.")
    ] = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many of each file.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="A short name for tables and pictures.")] = None,
    batch_size: BatchSize = 64,
    batch_tokens: BatchTokens = 8192,
    restart: Restart = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Answers and judges prompts, and measures what a change to the model cost; run again, it goes on where it was.

    Rates come with Wilson intervals, by set and category, and every prompt's outcome is in the file, so that
    evaluations on the same prompts and with the same seed are compared pair by pair. A classifier judges the harmful
    prompts only: over-refusal is judged by keywords then.

    Example: cliffscope evaluate --model organism:cliff --mask mask.safetensors --prompts harmful.csv
    --benign benign.jsonl --judge keyword --out eval-mask.json
    """
    from interp.judges import JudgeOptions
    from interp.rollouts.prompts import load_prompts
    from selection.evaluation import rollouts_folder

    if label is not None and not label.strip():
        raise CliffscopeError("--label is blank; give a short name, or leave it out.")
    steering = Steering.asked(vector, alpha, layer, mode, scope, units)
    folder = rollouts_folder(out)
    judging = JudgeOptions(
        kind=judge.value,
        model=judge_model,
        form=None if form is None else form.value,
        template=template,
        raw=raw,
        benign="keyword" if judge is Kind.CLASSIFIER else None,
        endpoint=endpoint,
        cache=folder / "judgements.jsonl" if judge is Kind.LLM and cache is None else cache,
        max_calls=max_calls,
        max_tokens=max_tokens,
        timeout=timeout,
        concurrency=concurrency,
    )
    named = {"harmful": prompts, "benign": benign} | ({} if traps is None else {"traps": traps})
    sets = {name: load_prompts(source, limit=limit) for name, source in named.items()}
    from interp.cli.session import open_model, require_writable
    from interp.judges import make_judge
    from interventions.masks import HeadMask
    from selection.evaluation import EvaluationOptions
    from selection.evaluation import evaluate as evaluate_model

    require_writable(out, folder / "harmful.jsonl", inputs=(mask, vector, *map(Path, named.values())))
    loaded = None if mask is None else HeadMask.load(mask)
    hooked = open_model(model, device, dtype)
    interventions: dict[str, Intervention] = {}
    facts: dict[str, Any] = {}
    told = [] if mask is None or loaded is None else [_in_force(mask, loaded, hooked)]
    told += [] if steering is None else [steering.on(hooked)]
    for name, intervention, about_it in told:
        interventions[name] = intervention
        facts |= about_it
    made = evaluate_model(
        hooked,
        out=out,
        **sets,
        judge=make_judge(judging, hooked, device=device, dtype=dtype),
        interventions=interventions,
        base=None if base is None else open_model(base, device, dtype),
        options=EvaluationOptions(seed, temperature, max_new_tokens, batch_size, batch_tokens),
        label=label,
        facts=facts,
        restart=restart,
    )
    _report(made, out, as_json)


def _in_force(path: Path, mask: "HeadMask", model: "HookedModel") -> "tuple[str, Intervention, dict[str, Any]]":
    """A name that tells which mask it is, the mask, and what to put down of it; refuses one for another model."""
    import hashlib

    from interp.cli.session import about

    with about(path):
        mask.changes(model)
    digest, summary = hashlib.sha256(path.read_bytes()).hexdigest(), mask.summary()
    told = {key: summary[key] for key in ("heads", "scale", "renormalize", "method")}
    return f"mask {digest[:8]}", mask, {"mask": {"sha256": digest, **told}}


def _report(made: "Evaluation", out: Path, as_json: bool) -> None:
    from interp.cli.output import emit
    from selection.evaluation import rollouts_folder
    from selection.evaluation.tables import cost_sentence, evaluation_rows

    payload = {"out": str(out), **{key: value for key, value in made.payload().items() if key != "outcomes"}}
    note = f"{cost_sentence(made)}\nJudged by {made.judge}. More is in {out}, rollouts are in {rollouts_folder(out)}."
    if left := sum(made.unjudged.values()):
        note += f"\n{left} responses have no verdict and count in no rate of outcomes; run again to ask anew."
    emit(payload, as_json=as_json, title=made.label, rows=evaluation_rows(made), note=note)
