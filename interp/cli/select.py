"""`cliffscope select`: choose the training examples that matter from a pool."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.cliff import Plateau
from interp.cli.judge_options import Kind as JudgeKind
from interp.cli.options import BatchTokens, Device, DType, Json, Mask, Model, Probe, Seed
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.judges import Judge
    from interp.models.hooked_model import HookedModel
    from interp.rollouts.endpoint import Endpoint
    from selection.select import Selection


class Method(StrEnum):
    """What is chosen."""

    CLIFF = "cliff"
    RANDOM = "random"
    EDGE = "edge"
    PLATEAU = "plateau"
    KEYWORD = "keyword"
    JUDGE = "judge"
    LOSS = "loss"
    LENGTH = "length"


class Form(StrEnum):
    """The forms of a file of examples."""

    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"


class TargetKind(StrEnum):
    """Where targets come from."""

    POOL = "pool"
    OWN_THINKING = "own-thinking"
    ENDPOINT = "endpoint"


def select(
    model: Model,
    probe: Probe,
    pool: Annotated[
        Path, typer.Option("--pool", help="JSON Lines of prompts, with or without rollouts and safe targets.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The JSON Lines file to write: one example a line.")],
    fraction: Annotated[float | None, typer.Option("--fraction", help="Choose this share of the pool.")] = None,
    count: Annotated[int | None, typer.Option("--count", help="Choose so many.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Choose all whose score is at least this (edge: at most).")
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="How to choose; all but cliff are baselines.")] = (
        Method.CLIFF
    ),
    form: Annotated[Form, typer.Option("--format", help="messages: TRL, axolotl; others: LLaMA-Factory.")] = (
        Form.MESSAGES
    ),
    target: Annotated[
        TargetKind,
        typer.Option("--target", help="The pool's; a refusal after the model's own thinking; or from --endpoint."),
    ] = TargetKind.POOL,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="With --target endpoint: an OpenAI-compatible server.")
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", help="The model's name there, if it serves several.")
    ] = None,
    judge: Annotated[JudgeKind | None, typer.Option("--judge", help="With --method judge: which one.")] = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", help="The classifier; for llm its name on the server.")
    ] = None,
    judge_endpoint: Annotated[
        str | None, typer.Option("--judge-endpoint", help="With --judge llm: its server.")
    ] = None,
    spread: Annotated[bool, typer.Option("--spread", help="Take categories in turns; benign ones too.")] = False,
    deduplicate: Annotated[
        float | None,
        typer.Option("--deduplicate", help="Leave out prompts this similar to a better one; 0.8 is usual, 1 the same."),
    ] = None,
    harmful_only: Annotated[
        bool, typer.Option("--harmful-only", help="Leave out what the pool labels benign; else labels play no part.")
    ] = False,
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="Where scores are kept, and shared; OUT.scores.jsonl if not given."),
    ] = None,
    plateau: Annotated[
        Plateau, typer.Option("--plateau", help="Over the second half of the thinking; max is biased upwards.")
    ] = Plateau.MEAN,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Thinking included.")] = 512,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts between two savings.")] = 64,
    batch_tokens: BatchTokens = 8192,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left.")] = False,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Chooses from a pool the few examples with the largest cliff, and writes them for training.

    Generates the model's own rollout on each prompt unless the pool gives it, and measures the cliff in it; killed and
    run again, it goes on where it was. OUT.manifest.json says how the choice was made.

    Example: cliffscope select --model organism:cliff --probe probe.safetensors --pool pool.jsonl --fraction 0.017
    --method cliff --target own-thinking --out selected.jsonl --format messages
    """
    _check(method, judge, target, endpoint)
    from selection.choice import ChoiceOptions

    choice = ChoiceOptions(
        method=method.value,
        fraction=fraction,
        count=count,
        threshold=threshold,
        spread=spread,
        deduplicate=deduplicate,
        harmful_only=harmful_only,
        seed=seed,
    )
    from interp.cli.session import open_model, require_writable
    from interp.rollouts.job import settings_path
    from selection import select as selecting
    from selection.pool import survey_pool
    from selection.targets import check_targets

    kept = scores or selecting.default_scores_path(out)
    written = (out, selecting.manifest_path(out), kept, settings_path(kept))
    if len({path.absolute() for path in written}) < len(written):
        raise CliffscopeError(f"{kept}: --scores and --out would be the same file; give another name.")
    require_writable(*written, inputs=(pool, probe, mask))
    options = selecting.SelectOptions(
        choice=choice,
        format=form.value,
        target=target.value,
        plateau=plateau.value,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
    )
    # Before a large model is loaded.
    survey = survey_pool(pool)
    check_targets(survey, options.target)
    server = _endpoint(endpoint, endpoint_model, max_new_tokens)
    hooked = open_model(model, device, dtype, mask=mask)
    result = selecting.select(
        hooked,
        probe,
        survey,
        out,
        options,
        scores=kept,
        judge=_judge(judge, judge_model, judge_endpoint, out, hooked, device, dtype),
        endpoint=server,
        restart=restart,
    )
    _report(result, as_json)


def _check(method: Method, judge: JudgeKind | None, target: TargetKind, endpoint: str | None) -> None:
    """Raises `CliffscopeError` for options that belong together and were not given together."""
    if (method is Method.JUDGE) != (judge is not None):
        raise CliffscopeError("--method judge and --judge go together: give both, or neither.")
    if (target is TargetKind.ENDPOINT) != (endpoint is not None):
        raise CliffscopeError("--target endpoint and --endpoint go together: give both, or neither.")


def _judge(
    kind: JudgeKind | None,
    name: str | None,
    endpoint: str | None,
    out: Path,
    model: "HookedModel",
    device: str,
    dtype: str,
) -> "Judge | None":
    if kind is None:
        return None
    from interp.judges import JudgeOptions, make_judge

    cache = out.with_name(f"{out.name}.cache.jsonl") if kind is JudgeKind.LLM else None
    options = JudgeOptions(kind=kind.value, model=name, endpoint=endpoint, cache=cache)
    return make_judge(options, model, device=device, dtype=dtype)


def _endpoint(url: str | None, name: str | None, max_tokens: int) -> "Endpoint | None":
    if url is None:
        return None
    from interp.rollouts.chat_server import ChatServer
    from interp.rollouts.endpoint import Endpoint

    # It is asked last, after hours perhaps.
    ChatServer(url).require_reachable()
    return Endpoint(url, model=name, max_tokens=max_tokens)


def _report(result: "Selection", as_json: bool) -> None:
    from interp.cli.output import counts, emit

    found, path = result.manifest["counts"], result.path
    cliffs = [example.cliff for example in result.examples]
    mean = sum(cliffs) / len(cliffs) if cliffs else None
    rows: list[tuple[str, object]] = [
        ("pool", found["pool"]),
        ("can be chosen", found["eligible"]),
        ("left out", counts(found["left_out"])),
        ("chosen", len(result.examples)),
        ("their outcomes", counts(found["selected_outcomes"])),
        ("their mean cliff", mean),
        ("their targets", counts(found["targets"])),
    ]
    payload = {
        "out": str(path),
        "selected": len(result.examples),
        "mean_cliff": mean,
        **{key: found[key] for key in ("pool", "eligible", "asked", "outcomes", "unscorable", "left_out")},
        **{key: found[key] for key in ("near_duplicates", "selected_outcomes", "selected_categories", "targets")},
        "notes": notes(result),
    }
    note = "\n".join([*notes(result), f"Written to {path}."])
    emit(payload, as_json=as_json, title=f"Selected by {result.manifest['options']['method']}", rows=rows, note=note)


def notes(result: "Selection") -> list[str]:
    """Sentences on what a user should know of the selection."""
    found, said = result.manifest["counts"], []
    if found["asked"] is not None and found["selected"] < found["asked"]:
        said.append(f"Only {found['selected']} of the {found['asked']} examples asked for could be chosen.")
    if unlabelled := found["targets"].get("of these for prompts without a label"):
        said.append(
            f"{unlabelled} targets are refusals of prompts without a label, some of which may be harmless: label the "
            "pool, or mix benign examples in when training."
        )
    answers = result.manifest["answers"]
    if answers and answers["not_refused_by_keywords"]:
        said.append(
            f"The server did not refuse {answers['not_refused_by_keywords']} of {answers['asked']} prompts, by "
            f"keywords: read {answers['file']} before training on them."
        )
    if not result.manifest["chat_template_keeps_thinking"]:
        said.append(
            "The model's chat template deletes an answer's thinking when it is rendered: a trainer that goes by it "
            "trains without thinking; `cliffscope repair` does not."
        )
    return said
