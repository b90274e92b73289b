"""`cliffscope steer apply`: rollouts with a vector active."""

from interp.cli.options import (
    BatchSize,
    Device,
    DType,
    Json,
    Mask,
    MaxNewTokens,
    Model,
    Restart,
    Seed,
    System,
    Temperature,
)
from interp.cli.rollout import Column, LabelOption, Limit, Out, Prompts, rollout
from interp.cli.steer_options import Alpha, DoseUnits, HowToSteer, Layer, Scope, Units, Vector


def apply(
    model: Model,
    vector: Vector,
    prompts: Prompts,
    out: Out,
    alpha: Alpha = None,
    layer: Layer = None,
    mode: HowToSteer = None,
    scope: Scope = "all",
    units: DoseUnits = Units.SCALE,
    label: LabelOption = None,
    column: Column = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    system: System = None,
    batch_size: BatchSize = 64,
    restart: Restart = False,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Generates rollouts with a vector active at every token of its scope: `cliffscope rollout` with --vector.

    The model's name in the rollouts tells which vector and dose were active.

    Example: cliffscope steer apply --model organism:cliff --vector vector.safetensors --alpha 2.0
    --prompts prompts.csv --out rollouts.jsonl
    """
    rollout(
        prompts,
        out,
        model,
        label=label,
        column=column,
        limit=limit,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        system=system,
        batch_size=batch_size,
        restart=restart,
        mask=mask,
        vector=vector,
        alpha=alpha,
        layer=layer,
        mode=mode,
        scope=scope,
        units=units,
        seed=seed,
        device=device,
        dtype=dtype,
        as_json=as_json,
    )
