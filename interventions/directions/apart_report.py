"""Harmfulness against refusal in one result: cosines, readings, another model, steering; its file, figure and page."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.display.layout import lay_out
from interp.display.palette import COLORS, CONTROL, band
from interp.display.shown import Drawn, Words
from interp.display.text import caption
from interp.display.traces import interval_band
from interp.errors import CliffscopeError
from interp.files import write_text
from interp.json_values import as_json_holds
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.rollouts.prompts import Prompt
from interp.table_files import TableFormat
from interventions.behaviour import prompts_of
from interventions.directions.apart import HARMFULNESS, Cosines, Reading, examples_apart, measure_cosines, readings
from interventions.directions.apart_readings import (
    DIFFERENCE,
    LOGIT,
    compare_models,
    fit_readings,
    held_out_coordinates,
)
from interventions.directions.apart_steering import Steered, SteeringOptions, steer_each
from interventions.directions.direction import Direction
from probes.examples import Examples
from probes.guard import confounded
from probes.splits import split_by_prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel

FORMAT = TableFormat(
    "cliffscope.apart",
    "1",
    "a table of cosines of harmfulness and refusal",
    "measure it again",
    ("first", "second", "layer", "cosine", "low", "high", "ceiling", "chance_low", "chance_high", "apart"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Apart(Drawn):
    """Whether harmfulness and refusal are two things in a model.

    Attributes:
        model: Its name.
        cosines: See `interventions.directions.apart`.
        coordinates: Where held-out rollouts lie along each: see `held_out_coordinates`.
        models: What differs from another model: see `compare_models`; `None` without one.
        steered: What steering along each moves; `None` if it was not done.
        warning: Why the prompts may differ in more than harm; `None` if nothing speaks for it.
        facts: Seed, counts, what was left out.
    """

    model: str
    cosines: Cosines
    coordinates: pd.DataFrame
    models: pd.DataFrame | None
    steered: Steered | None
    warning: str | None
    facts: Mapping[str, Any]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What was found, in sentences."""
        found = [] if self.warning is None else [f"Warning: {self.warning}."]
        found += [*self.cosines.verdicts, *_told_coordinates(self.coordinates)]
        if self.models is not None:
            found += _told_models(self.models, str(self.facts["base"]))
        if self.steered is not None:
            found += self.steered.verdicts
        return tuple(found)

    def figure(self) -> "go.Figure":
        """The cosines by layer with ceiling and chance; see `apart_figure`."""
        return apart_figure(self)

    def words(self) -> Words:
        """What was found, in sentences."""
        return Words(f"Harmfulness and refusal in {self.model}", "", self.verdicts)

    def payload(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        tables = {"cosines": self.cosines.table, "coordinates": self.coordinates, "models": self.models}
        if self.steered is not None:
            tables["steered"] = self.steered.table
        rows = {name: [] if table is None else _records(table) for name, table in tables.items()}
        inversion = None if self.steered is None else self.steered.unsteered.summary()
        told = {"model": self.model, "verdicts": list(self.verdicts), "warning": self.warning}
        return as_json_holds({**told, "facts": dict(self.facts), **rows, "inversion": inversion})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON, or as Parquet the table of cosines with the rest in its metadata, by the name's ending.

        Raises:
            CliffscopeError: If the name ends otherwise, or the file cannot be written.
        """
        check_ending(path)
        held = self.payload()
        if Path(path).suffix == ".json":
            write_text(path, json.dumps(held, indent=1, ensure_ascii=False) + "\n")
        else:
            FORMAT.write(path, self.cosines.table, {key: value for key, value in held.items() if key != "cosines"})


def check_ending(path: str | os.PathLike[str]) -> None:
    """Raises `CliffscopeError` unless the name ends with .json or .parquet."""
    if Path(path).suffix not in (".json", ".parquet"):
        raise CliffscopeError(f"{path}: expected a name that ends with .json or .parquet.")


@dataclass(frozen=True)
class ApartOptions:
    """What is measured.

    Attributes:
        contrast: Of refusal: `refused-complied`, or `refused-benign` for a model that answers nothing harmful.
        layers: Of the cosines and readings; all if `None`.
        steer: Whether to steer.
        steer_layers: Layers to steer at; a few over the whole depth if `None`.
        steer_prompts: Most prompts of each class to steer with.
        steering: How.
        seed: Of splits, resamples and shuffles.
    """

    contrast: str = "refused-complied"
    layers: tuple[int, ...] | None = None
    steer: bool = True
    steer_layers: tuple[int, ...] | None = None
    steer_prompts: int = 40
    steering: SteeringOptions = field(default_factory=SteeringOptions)
    seed: int = 0


def few_layers(n_layers: int) -> tuple[int, ...]:
    """All layers of a shallow model, else six over the whole depth."""
    return tuple(range(n_layers)) if n_layers <= 6 else tuple(round(i * (n_layers - 1) / 5) for i in range(6))


def tell_apart(
    model: "HookedModel",
    rollouts: Sequence[Rollout],
    options: ApartOptions | None = None,
    *,
    base: "HookedModel | None" = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> Apart:
    """Measures all of it.

    Args:
        model: The model whose rollouts these are.
        rollouts: Judged, of harmful and of benign prompts.
        options: See `ApartOptions`.
        base: Another model of the same architecture to compare with.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of conditions of steering that were just finished.

    Raises:
        CliffscopeError: If a group is missing or too small, or the base is of another architecture.
    """
    options = options or ApartOptions()
    examples, has_edge = examples_apart(model, rollouts)
    chosen = readings(options.contrast, has_edge)
    layers = list(range(model.n_layers) if options.layers is None else options.layers)
    cosines = measure_cosines(model, examples, chosen, layers=layers, seed=options.seed, batch_tokens=batch_tokens)
    held = held_out_coordinates(model, examples, chosen, layers, seed=options.seed, batch_tokens=batch_tokens)
    models = None
    if base is not None:
        models = compare_models(model, base, examples, chosen, layers, seed=options.seed, batch_tokens=batch_tokens)
    steered = None
    if options.steer:
        directions, prompts = _to_steer(model, examples, chosen, options, batch_tokens)
        steered = steer_each(model, directions, prompts, options.steering, batch_tokens=batch_tokens, advance=advance)
    facts = {
        "contrast": options.contrast,
        "n": cosines.n,
        "skipped": dict(examples.skipped),
        "seed": options.seed,
        "base": None if base is None else base.name,
        "quoted": None if steered is None else {name: cell and list(cell) for name, cell in steered.quoted.items()},
    }
    warning = confounded(prompts_of(list(examples.rollouts)))
    return Apart(model.name, cosines, held, models, steered, warning, facts)


def _to_steer(
    model: "HookedModel", examples: Examples, chosen: Sequence[Reading], options: ApartOptions, batch_tokens: int
) -> tuple[dict[str, list[Direction]], list[Prompt]]:
    """Harmfulness and the last reading of refusal, fitted on half of the prompts, and prompts of the other half."""
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, 0.5, options.seed)
    steered = (HARMFULNESS, chosen[-1])
    directions: dict[str, list[Direction]] = {reading.name: [] for reading in steered}
    rows = [int(row) for row in split.train]
    for layer in few_layers(model.n_layers) if options.steer_layers is None else options.steer_layers:
        found, _ = fit_readings(model, examples, steered, layer, rows=rows, batch_tokens=batch_tokens)
        for name, direction in found.items():
            directions[name].append(direction)
    held = prompts_of([examples.rollouts[row] for row in split.test])
    classes = [[prompt for prompt in held if prompt.harmful is harmful] for harmful in (True, False)]
    return directions, [prompt for members in classes for prompt in members[: options.steer_prompts]]


def apart_figure(found: Apart) -> "go.Figure":
    """The cosine of each pair by layer with its 95 % band, the ceiling (dashed) and the chance band (grey)."""
    from plotly.subplots import make_subplots

    pairs = list(found.cosines.table.groupby(["first", "second"], sort=False))
    titles = [f"{first}<br>{second}" for (first, second), _ in pairs]
    figure = make_subplots(rows=1, cols=len(pairs), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    for column, (_, rows) in enumerate(pairs, start=1):
        layers = rows["layer"].tolist()
        for low, high, color in (
            ("chance_low", "chance_high", band(CONTROL, 0.25)),
            ("low", "high", band(COLORS["refused"])),
        ):
            said = {
                "name": "shuffled labels, 95 %" if low == "chance_low" else "95 % interval",
                "showlegend": column == 1,
            }
            figure.add_trace(interval_band(layers, rows[low], rows[high], color).update(said), col=column, row=1)
        for name, title, line in (
            ("ceiling", "two estimates of one direction", {"color": CONTROL, "dash": "dash"}),
            ("cosine", "cosine", {"color": COLORS["refused"]}),
        ):
            mode = "lines+markers" if name == "cosine" else "lines"
            show = {"name": title, "showlegend": column == 1, "mode": mode, "line": line}
            figure.add_scatter(x=layers, y=rows[name], **show, col=column, row=1)
        figure.update_xaxes(title_text="layer", dtick=max(1, len(layers) // 8), col=column)
    figure.update_yaxes(range=[-1.02, 1.02])
    figure.update_yaxes(title_text="cosine", col=1)
    return lay_out(figure, f"{caption(found.model)}: harmfulness and refusal", height=440, top=96)


def apart_page(found: Apart) -> str:
    """The figure with the verdicts as one self-contained HTML page; equal results give equal pages."""
    from interp.display.page import page

    tables = [] if found.steered is None else [_steering_rows(found.steered)]
    return page(
        f"Harmfulness and refusal: {found.model}", "\n".join(found.verdicts), {"apart": apart_figure(found)}, tables
    )


def _steering_rows(steered: Steered) -> list[list[str]]:
    """The steering table as text."""
    names = ["refused", "thinks_refuse", "thinks_harmful", "says_harmful", "unclosed"]
    lines = [["added", "layer", "α", "prompts", *(name.replace("_", " ") for name in names)]]
    for row in steered.table.to_dict("records"):
        layer = "–" if pd.isna(row["layer"]) else str(row["layer"])
        place = [str(row["direction"]), layer, f"{row['alpha']:g}", "harmful" if row["harmful"] else "benign"]
        lines.append([*place, *(f"{row[name]:.2f}" for name in names)])
    return lines


def _told_coordinates(table: pd.DataFrame) -> list[str]:
    """At the last layer, how far complied lie from refused prompts along each reading."""
    rows = table[table["group"] == DIFFERENCE]
    if rows.empty:
        return []
    last = int(rows["layer"].max())
    parts = [
        f"{row['reading']} {row['mean']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        for row in rows[rows["layer"] == last].to_dict("records")
    ]
    return [
        f"Held-out prompts, complied minus refused at layer {last}, where 1 is the distance of each reading's own "
        f"classes: {'; '.join(parts)}."
    ]


def _told_models(table: pd.DataFrame, base: str) -> list[str]:
    """At the last layer, what complied prompts have in this model that they have not in the other."""
    rows = table[table["group"] == "complied"]
    if rows.empty:
        return []
    last = rows["layer"].max()
    parts = [
        f"{row['reading']} {row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        + (" nats" if row["reading"] == LOGIT else "")
        for row in rows[(rows["layer"] == last) | rows["layer"].isna()].to_dict("records")
    ]
    return [f"Complied prompts against {base} on the same tokens, at layer {last}: {'; '.join(parts)}."]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows whose missing values are `None`."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
