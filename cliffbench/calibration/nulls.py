"""Nulls on organisms: the product's searches where there is nothing to find, with and without their gate.

The null of a statistic is what it says is not so:

- A cliff's p and a probe's AUROC say that labels matter: *shuffled labels*, dealt out anew before the probe is fitted.
- Interchange says that refused and complied rollouts differ in what a head carries: *exchanged labels*, complied and
  refused dealt out anew among harmful rollouts that all ended alike.
- Attribution, ablation, gradient and cascade say that a head's mean effect on complied rollouts is not 0. No
  relabelling makes that so: every head does something to every text. So under *benign rollouts as complied ones*, the
  null of the claim "this head suppresses refusal", nearly every p is small, and rightly. What keeps that claim from
  being made is the gate (`Cases.nothing`: no cliff, nothing to explain). Both are measured: claims with the gate; and
  whether p keeps its level where its own null holds: the same effects less their mean over all rollouts.
- *Random weights*: the model drawn anew and put through the whole search, its probe included (arXiv 2512.18792), on the
  texts and labels of a model that has a cliff. There p without the gate is small for most heads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from circuits.cases import Cases
from circuits.head_scores import HeadScores
from circuits.interchange import interchange, score_pairs
from circuits.rank import METHODS, RankOptions, rank_heads
from circuits.recognized import answers_what_it_recognizes
from circuits.sweeps.effects import SweepEffects
from circuits.sweeps.readouts import Readouts
from cliffbench.calibration.material import Material, at_edges, head_effects, relabelled_cliff
from cliffbench.calibration.results import Row, claim_row, p_row
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interventions.heads import Head
from interventions.pairs import choose_pairs
from interventions.random_heads import random_sets
from probes.cliff import Cliff
from probes.cliff_run import measure_cliff
from probes.nulls import World, make_null

Advance = Callable[[int], object]

NOT_ITS_NULL = "a head's mean effect is not 0 in any model, so p is rightly small: without the gate it says no more"
READ_OFF = "labels that go with a text's words can be read off random weights too"
FEW_SETS = "a layer of 8 heads has 7 others: by chance 1 of 8 lies above them all; no p is printed"


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes:
        runs: Of each null.
        whole: Runs of the nulls that put a model through the whole search.
        each: Rollouts of each outcome in a whole search.
        heads: Rollouts of each outcome in a search without the gate, on random weights.
        ungated: Runs of it; they have no range to keep, and take longest.
        pool: Rollouts of a kind from which relabellings draw.
        pairs: Of an interchange.
    """

    runs: int = 1000
    whole: int = 200
    each: int = 16
    heads: int = 8
    ungated: int = 60
    pool: int = 48
    pairs: int = 60


QUICK = Sizes(runs=60, whole=8, each=12, ungated=4, pool=32, pairs=40)


def nulls(sizes: Sizes | None = None, seed: int = 0, advance: Advance = lambda amount: None) -> Iterator[Row]:
    """All nulls on organisms, one row a figure."""
    sizes = sizes or Sizes()
    aligned = Material.of("aligned", sizes.pool, sizes.pool, seed)
    cliff = Material.of("cliff", 3 * sizes.pool, sizes.pool, seed)
    yield from benign_as_complied(aligned, sizes, seed)
    advance(1)
    yield from exchanged(aligned, "refused", "aligned", sizes, seed)
    yield from exchanged(cliff, "complied", "cliff", sizes, seed)
    advance(1)
    yield from searches("shuffled", cliff, sizes, seed, advance)
    yield from searches("random-weights", cliff, sizes, seed, advance)


def n_steps(sizes: Sizes) -> int:
    """How often `nulls` advances."""
    return 2 + 2 * sizes.whole


def benign_as_complied(material: Material, sizes: Sizes, seed: int) -> Iterator[Row]:
    """Benign rollouts of a model that answers nothing harmful, half of them called complied."""
    model, probe = material.model, material.probe
    pool, refused = material.having("benign"), material.having("refused")
    cliff = measure_cliff(model, probe, [*pool, *refused], n_shuffles=0, by_layer=False, seed=seed)
    effects = head_effects(model, probe, at_edges(model, pool))
    prompts = np.array([rollout.prompt for rollout in pool])
    n, rng = len(pool) // 2, np.random.default_rng([seed, 10])
    everything = [*pool, *refused]
    edges = at_edges(model, everything)
    falls: list[bool] = []
    opened: list[bool] = []
    found: dict[tuple[str, str], list[tuple[np.ndarray, bool]]] = {}
    above: list[bool] = []
    for run in range(sizes.runs):
        order = rng.permutation(len(pool))
        shown, explained = _gates(model, cliff, everything, edges, np.r_[order, len(pool) : len(everything)], n)
        falls.append(shown)
        opened.append(explained)
        for method, values in effects.items():
            mine = order[:n]
            found.setdefault((method, "as they are"), []).append(_scored(model, values[mine], prompts[mine], run))
            # With replacement from all, whose mean is taken off: then the mean is truly 0.
            drawn = rng.integers(len(pool), size=n)
            centred = values[drawn] - values.mean(0)
            found.setdefault((method, "less their mean"), []).append(_scored(model, centred, np.arange(n), run))
        above.append(_above_random(model, effects["ablation"].mean(0), rng, run))
    setting = "aligned, benign rollouts as complied ones"
    yield claim_row("cliff: verdict", setting, falls, n=n)
    for (method, what), results in found.items():
        p = np.stack([mine for mine, _ in results])
        named = np.array([any_named for _, any_named in results])
        if what == "less their mean":
            yield p_row(f"{method}: p", f"{setting}, effects less their mean", p, n=n)
            yield claim_row(f"{method}: heads at q < 0.05", f"{setting}, effects less their mean", named, n=n)
            continue
        # Attribution and the cascade explain the fall of the probe's score.
        gate = np.array(falls if method in ("attribution", "cascade") else opened)
        yield p_row(f"{method}: p", f"{setting}, gate", np.where(gate[:, None], p, np.nan), n=n)
        yield claim_row(f"{method}: heads named", f"{setting}, gate", named & gate, n=n)
        yield p_row(f"{method}: p", f"{setting}, no gate", p, n=n, note=NOT_ITS_NULL)
        yield claim_row(f"{method}: heads at q < 0.05", f"{setting}, no gate", named, n=n, note=NOT_ITS_NULL)
    yield claim_row("curve: a head above all random ones of its layer", "drawn at random", above, n=n, note=FEW_SETS)


def _gates(
    model: HookedModel, cliff: Cliff, rollouts: Sequence[Rollout], edges: Sequence[Transcript], rows: np.ndarray, n: int
) -> tuple[bool, bool]:
    """Whether the probe shows a cliff with the first `n` rows called complied, and whether there is more to explain."""
    harmless = sum(not rollouts[row].harmful for row in rows)
    outcomes = ["complied"] * n + ["benign"] * (harmless - n) + ["refused"] * (len(rows) - harmless)
    relabelled = relabelled_cliff(cliff, outcomes, rows.tolist())
    parts = dict(zip(("complied", "benign", "refused"), np.split(rows, [n, harmless]), strict=True))
    mine = {name: [rollouts[row] for row in part] for name, part in parts.items()}
    texts = {name: [edges[row] for row in part] for name, part in parts.items()}
    shown = not relabelled.objections
    return shown, shown or answers_what_it_recognizes(model, relabelled, texts, mine)


def _scored(model: HookedModel, values: np.ndarray, prompts: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    """Every head's p, and whether q names one; any share of the whole is enough, and no confirmation asked for."""
    scores = HeadScores.of("ablation", model, values, to_explain=1e-9, clusters=prompts.tolist(), seed=seed)
    return scores.table["p"].to_numpy(), bool(scores.suppressors)


def _above_random(model: HookedModel, effect: np.ndarray, rng: np.random.Generator, seed: int) -> bool:
    layer, head = divmod(int(rng.integers(effect.size)), effect.shape[1])
    others = [effect[one] for (one,) in random_sets(model, [Head(layer, head)], 20, seed)]
    return bool(effect[layer, head] > max(others))


def exchanged(material: Material, outcome: str, name: str, sizes: Sizes, seed: int) -> Iterator[Row]:
    """Interchange between rollouts that all ended alike, half of them called complied, the others refused."""
    model, probe = material.model, material.probe
    pool = material.having(outcome)[: max(16, sizes.pool // 2)]
    transcripts = at_edges(model, pool)
    rows = [(into, source) for into in range(len(pool)) for source in range(len(pool)) if into != source]
    read = interchange(
        model,
        [transcripts[into] for into, _ in rows],
        [transcripts[source] for _, source in rows],
        Readouts.of(model, probe),
    )
    place = {pair: row for row, pair in enumerate(rows)}
    number = {transcript.id: index for index, transcript in enumerate(transcripts)}
    prompt = {transcript.id: rollout.prompt for transcript, rollout in zip(transcripts, pool, strict=True)}
    rng, half = np.random.default_rng([seed, 11]), len(pool) // 2
    p: dict[str, list[np.ndarray]] = {}
    named: list[bool] = []
    for run in range(sizes.runs):
        order = rng.permutation(len(pool))
        refused, complied = ([transcripts[i] for i in mine] for mine in (order[:half], order[half:]))
        pairs = choose_pairs(refused, complied, n=sizes.pairs, seed=run)
        both = [(number[pair.refused.id], number[pair.complied.id]) for pair in pairs]
        into_complied = _rows_of(read, [place[c, r] for r, c in both])
        into_refused = _rows_of(read, [place[r, c] for r, c in both])
        scores = score_pairs(model, pairs, into_complied, into_refused, prompt, seed=run)
        for column in ("p", "sufficiency_p", "necessity_p"):
            p.setdefault(column, []).append(scores.table[column].to_numpy())
        named.append(bool(scores.suppressors))
    setting = f"{name}, labels exchanged among {outcome} rollouts, no gate"
    for column, values in p.items():
        yield p_row(f"interchange: {column}", setting, values, n=half)
    yield claim_row("interchange: heads named", setting, named, n=half)


def _rows_of(effects: SweepEffects, rows: Sequence[int]) -> SweepEffects:
    def some(values: Tensor) -> Tensor:
        return values[list(rows)]

    return replace(
        effects, ids=tuple(effects.ids[row] for row in rows), base=some(effects.base), changed=some(effects.changed)
    )


@dataclass(frozen=True)
class _Search:
    """What one whole search gives."""

    cliff: Cliff
    area_low: float
    gated: Mapping[str, HeadScores | None]
    raw: Mapping[str, HeadScores]


def searches(null: str, material: Material, sizes: Sizes, seed: int, advance: Advance) -> Iterator[Row]:
    """The whole search in worlds of a null: probe with its layer, cliff with its shuffles, heads by each method."""
    rollouts = _some(material, sizes.each)
    world = World(material.model, rollouts, replace(material.probe, training={}))
    found = []
    for run in range(sizes.whole):
        ungated = null == "random-weights" and run < sizes.ungated
        found.append(_search(make_null(null, world, seed + run), sizes, run, raw=ungated))
        advance(1)
    n, setting = sizes.each, {"shuffled": "cliff, shuffled labels"}.get(null, "random weights")
    read_off = READ_OFF if null == "random-weights" else ""
    yield p_row("cliff: p", setting, [one.cliff.p for one in found], n=n, note=read_off)
    yield claim_row("cliff: verdict", setting, [one.cliff.verdict == "cliff" for one in found], n=n)
    area = [one.area_low > 0.5 for one in found]
    yield claim_row("probe: AUROC interval above 0.5", setting, area, n=n, note=read_off)
    for method in found[0].gated:
        tables = [one.gated[method] for one in found]
        named = [table is not None and bool(table.suppressors) for table in tables]
        p = [
            np.full(material.model.n_layers * material.model.n_heads, np.nan)
            if table is None
            else table.table["p"].to_numpy()
            for table in tables
        ]
        yield p_row(f"{method}: p", f"{setting}, gate", p, n=n)
        yield claim_row(f"{method}: heads named", f"{setting}, gate", named, n=n)
    for method in found[0].raw:
        raw = [one.raw[method] for one in found if one.raw]
        without, n = f"{setting}, no gate", sizes.heads
        # What exchanges values between refused and complied rollouts tells what differs between their texts.
        note = READ_OFF if method in ("interchange", "shapley") else NOT_ITS_NULL
        yield p_row(f"{method}: p", without, [table.table["p"].to_numpy() for table in raw], n=n, note=note)
        yield claim_row(f"{method}: heads named", without, [bool(table.suppressors) for table in raw], n=n, note=note)


def _search(world: World, sizes: Sizes, seed: int, *, raw: bool) -> _Search:
    model, probe = world.model, world.probe
    assert probe is not None
    cliff = measure_cliff(model, probe, world.rollouts, by_layer=False, seed=seed)
    options: list[Any] = [RankOptions(method=method, pairs=sizes.pairs, seed=seed) for method in METHODS]
    gated: dict[str, HeadScores | None] = dict.fromkeys(METHODS)
    cases = Cases.of(model, probe, world.rollouts, seed=seed)
    if cases.nothing is None:
        gated |= {one.method: rank_heads(model, probe, cases, one) for one in options}
    without: dict[str, HeadScores] = {}
    if raw:
        cases = _ungated(model, cliff, world.rollouts, sizes.heads)
        without = {one.method: rank_heads(model, probe, cases, replace(one, pairs=sizes.heads)) for one in options}
    return _Search(cliff, float(probe.training.get("auroc_low", np.nan)), gated, without)


def _some(material: Material, each: int) -> tuple[Rollout, ...]:
    """As many of each outcome, in the order of the file."""
    chosen = {id(rollout) for name in ("complied", "refused", "benign") for rollout in material.having(name)[:each]}
    return tuple(rollout for rollout in material.rollouts if id(rollout) in chosen)


def _ungated(model: HookedModel, cliff: Cliff, rollouts: Sequence[Rollout], each: int) -> Cases:
    """Cases whose cliff was measured already."""
    mine = {
        name: tuple(rollout for rollout in rollouts if rollout.outcome == name)[:each]
        for name in ("complied", "refused", "benign")
    }
    edges = {name: tuple(at_edges(model, some)) for name, some in mine.items()}
    return Cases(edges["complied"], edges["refused"], edges["benign"], mine, nothing=None, cliff=cliff, skipped={})
