"""`cliffscope inspect`: what a model is, and what can and cannot be done with it."""

from interp.cli.options import Device, DType, Json, Model, Seed


def inspect(
    model: Model,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Shows a model's sizes, thinking tags and close tokens, template quirks, and what will not work and why.

    Example: cliffscope inspect --model organism:cliff
    """
    from interp.cli.output import emit
    from interp.cli.session import open_model
    from interp.models.inspection import inspect_model

    found = inspect_model(open_model(model, device, dtype, chat=False))
    rows: list[tuple[object, ...]] = []
    for name, value in found.items():
        values = value if isinstance(value, list) else [value]
        label = name.replace("_", " ")
        rows += [(label if number == 0 else "", entry) for number, entry in enumerate(values or ["none"])]
    emit(found, as_json=as_json, title=model, rows=rows)
