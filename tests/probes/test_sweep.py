import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from interp.errors import CliffscopeError
from probes.fitting import C_GRID
from probes.layer_sweep import LayerSweep
from probes.splits import prompt_keys
from probes.sweep import ProbeSweep, SweepOptions, SweepPlan
from probes.sweep_figure import sweep_figure, write_sweep_html

N, POSITIONS, D = 120, ("inst", "close:-1"), 40
LABELS = np.tile([0, 1], N // 2)
PROMPTS = [f"prompt {i}" for i in range(N)]
CATEGORIES = [f"kind {i // 2 % 6}" for i in range(N)]


def layer_of(gap, seed=0, by_category=False):
    """Activations [rollout, position, d] with the classes `gap` apart at the second position only."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(N, 2, D, generator=generator)
    sign = torch.as_tensor(2.0 * LABELS - 1)
    if by_category:  # the class is written along another direction in each category
        for kind in range(6):
            mine = torch.tensor([c == f"kind {kind}" for c in CATEGORIES])
            block[mine, 1, kind] += gap * sign[mine]
    else:
        block[:, 1, 0] += gap / 2 * sign
    return block


@pytest.fixture(scope="module")
def plan():
    return SweepPlan.make(LABELS, PROMPTS, POSITIONS, CATEGORIES, options=SweepOptions(resamples=200))


@pytest.fixture(scope="module")
def blocks():
    return [layer_of(0.0, 0), layer_of(1.5, 1), layer_of(6.0, 2), layer_of(6.0, 3)]


@pytest.fixture(scope="module")
def sweep(plan, blocks):
    return ProbeSweep.run(plan, enumerate(blocks))


def cell(sweep, layer, position, control):
    table = sweep.table
    keep = (table["layer"] == layer) & (table["position"] == position) & (table["control"] == control)
    assert keep.sum() == 1
    return table[keep].iloc[0]


def test_there_is_one_row_for_each_layer_position_and_control(sweep):
    assert len(sweep.table) == 4 * 2 * 3
    assert set(sweep.table["control"]) == {"real", "shuffled", "held_out_category"}
    assert not sweep.table.isna().any().any()
    assert (sweep.table["auroc_low"] <= sweep.table["auroc"]).all()
    assert set(sweep.table["C"]) <= set(C_GRID)


def test_the_planted_signal_is_found_where_it_is_and_nowhere_else(sweep):
    for control in ("real", "held_out_category"):
        assert cell(sweep, 2, "close:-1", control)["auroc"] > 0.97
        for layer in (0, 2):
            assert abs(cell(sweep, layer, "inst", control)["auroc"] - 0.5) < 0.2


def test_shuffled_labels_give_one_half_even_where_the_signal_is_strong(sweep):
    shuffled = sweep.table[sweep.table["control"] == "shuffled"]["auroc"]
    assert abs(shuffled.mean() - 0.5) < 0.05 and (abs(shuffled - 0.5) < 0.2).all()


def test_held_out_categories_expose_a_probe_that_only_knows_its_categories(plan):
    sweep = ProbeSweep.run(plan, [(0, layer_of(3.0, by_category=True))])
    assert cell(sweep, 0, "close:-1", "real")["auroc"] > 0.9
    assert cell(sweep, 0, "close:-1", "held_out_category")["auroc"] < 0.7


def test_a_cell_agrees_with_scikit_learn_on_the_same_split(sweep, plan, blocks):
    row, split = cell(sweep, 1, "close:-1", "real"), plan.main.split
    h = blocks[1][:, 1].double().numpy()
    scaler = StandardScaler().fit(h[split.train])
    reference = LogisticRegression(C=row["C"], class_weight="balanced", tol=1e-10, solver="newton-cholesky")
    reference.fit(scaler.transform(h[split.train]), LABELS[split.train])
    logits = reference.decision_function(scaler.transform(h[split.test]))
    probe = sweep.probe(1, "close:-1")
    np.testing.assert_allclose(probe.logit(blocks[1][split.test, 1]).numpy(), logits, atol=1e-4)
    assert row["auroc"] == pytest.approx(roc_auc_score(LABELS[split.test], logits), abs=1e-9)
    assert probe.training["auroc"] == row["auroc"] and probe.training["n_train"] == len(split.train)


def test_the_strength_is_the_one_that_a_loop_over_scikit_learn_chooses(plan, blocks):
    train, folds = plan.main.split.train, plan.main.folds
    h = StandardScaler().fit_transform(blocks[1][train, 1].double().numpy())
    y, losses = LABELS[train], []
    weight = len(y) / (2 * np.bincount(y))[y]
    for C in C_GRID:
        loss = 0.0
        for fold in np.unique(folds):
            held = folds == fold
            model = LogisticRegression(C=C, class_weight="balanced", tol=1e-8).fit(h[~held], y[~held])
            margin = (2 * y[held] - 1) * model.decision_function(h[held])
            loss += (weight[held] * np.logaddexp(0, -margin)).sum()
        losses.append(loss)
    chosen = plan.fit_layer(0, blocks[1]).rows
    chosen = chosen[(chosen["control"] == "real") & (chosen["position"] == "close:-1")]["C"].item()
    assert chosen == C_GRID[int(np.argmin(losses))]


def test_layers_fitted_one_by_one_saved_and_merged_in_any_order_give_the_same_files(tmp_path, sweep, plan, blocks):
    again = SweepPlan.make(LABELS, PROMPTS, POSITIONS, CATEGORIES, options=SweepOptions(resamples=200))
    assert again.digest == plan.digest
    parts = []
    for layer in (2, 0, 3, 1):
        again.fit_layer(layer, blocks[layer]).save(tmp_path / f"{layer}.parquet")
        parts.append(LayerSweep.load(tmp_path / f"{layer}.parquet", plan.digest))
    merged = ProbeSweep.merge(parts)
    pd.testing.assert_frame_equal(merged.table, sweep.table)
    for name, whole in (("a", sweep), ("b", merged)):
        whole.to_parquet(tmp_path / f"table-{name}.parquet")
        write_sweep_html(whole.table, tmp_path / f"{name}.html")
        whole.probe(2, "inst").save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "table-a.parquet").read_bytes() == (tmp_path / "table-b.parquet").read_bytes()
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_positions_fitted_alone_give_the_same_figures(sweep, blocks):
    alone = SweepPlan.make(LABELS, PROMPTS, POSITIONS[1:], CATEGORIES, options=SweepOptions(resamples=200))
    rows = alone.fit_layer(1, blocks[1][:, 1:]).rows.set_index("control")
    for control in rows.index:
        expected = cell(sweep, 1, "close:-1", control)
        assert rows.loc[control, "auroc"] == pytest.approx(expected["auroc"], abs=1e-9)
        assert rows.loc[control, "ece"] == pytest.approx(expected["ece"], abs=1e-5)


def test_the_plan_keeps_prompts_apart_and_its_digest_changes_with_what_matters(plan):
    prompts = [f"Prompt {i // 4}" if i % 2 else f"prompt  x{i // 4}" for i in range(N)]
    repeated = SweepPlan.make(LABELS, prompts, POSITIONS, CATEGORIES)
    keys = np.array(prompt_keys(prompts))
    for training in (repeated.main, *repeated.categories):
        assert not set(keys[training.split.train]) & set(keys[training.split.test])
        inside = list(zip(keys[training.split.train], training.folds, strict=True))
        assert len(set(inside)) == len(set(keys[training.split.train]))
    others = [
        SweepPlan.make(LABELS, PROMPTS, POSITIONS, CATEGORIES, options=SweepOptions(resamples=200, seed=1)),
        SweepPlan.make(1 - LABELS, PROMPTS, POSITIONS, CATEGORIES, options=SweepOptions(resamples=200)),
        SweepPlan.make(LABELS, PROMPTS, POSITIONS[::-1], CATEGORIES, options=SweepOptions(resamples=200)),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 4


def test_without_categories_the_control_is_left_out_with_the_reason(blocks):
    plan = SweepPlan.make(LABELS, PROMPTS, POSITIONS, options=SweepOptions(resamples=50, C=0.1))
    assert plan.no_categories == "the rollouts have no categories"
    assert set(plan.fit_layer(0, blocks[0]).rows["control"]) == {"real", "shuffled"}
    one = SweepPlan.make(LABELS, PROMPTS, POSITIONS, ["same"] * N)
    assert "found 1" in str(one.no_categories)


def table_of(areas):
    """A table of real rows at one position: layer -> (auroc, low)."""
    rows = [
        {"layer": layer, "position": "close:-1", "control": "real", "auroc": auroc, "auroc_low": low}
        for layer, (auroc, low) in areas.items()
    ]
    return ProbeSweep(pd.DataFrame(rows), {})


@pytest.mark.parametrize(
    ("areas", "chosen"),
    [
        ({0: (0.6, 0.5), 1: (0.95, 0.9), 2: (0.92, 0.88), 3: (0.7, 0.6)}, 2),
        ({0: (1.0, 0.93), 1: (1.0, 0.93), 2: (1.0, 0.93), 3: (0.9, 0.8)}, 2),
        ({0: (0.99, 0.97), 1: (0.9, 0.8), 2: (0.96, 0.9)}, 0),
        ({0: (0.9, 0.8), 1: (0.9, float("nan")), 2: (0.8, 0.7)}, 1),
        ({0: (0.9, 0.8), 1: (float("nan"), float("nan"))}, 0),
    ],
)
def test_the_deepest_layer_within_the_interval_of_the_best_is_chosen(areas, chosen):
    assert table_of(areas).choose_layer("close:-1") == chosen


def test_the_layer_is_chosen_at_the_position_asked_for(sweep):
    assert sweep.choose_layer("close:-1") == 3


def test_bad_input_is_named(plan, sweep, blocks, tmp_path):
    broken = blocks[0].clone()
    broken[5, 1, 3] = float("nan")
    empty = tmp_path / "empty.parquet"
    empty.write_bytes(b"")
    sweep.to_parquet(tmp_path / "table.parquet")
    sweep.layers[0].save(tmp_path / "layer.parquet")
    for call, message in [
        (lambda: plan.fit_layer(0, broken), "1 NaN or infinite value, the first in rollout 5, position close:-1"),
        (lambda: plan.fit_layer(0, blocks[0][:, :1]), r"expected \[120, 2, d_model\]"),
        (lambda: ProbeSweep.merge([]), "no layers"),
        (lambda: ProbeSweep.merge([sweep.layers[0]] * 2), "layers twice"),
        (lambda: sweep.probe(9, "inst"), "no layer 9"),
        (lambda: sweep.probe(0, "edge"), "no position 'edge'"),
        (lambda: table_of({0: (float("nan"), 0.0)}).choose_layer("close:-1"), "no AUROC"),
        (lambda: LayerSweep.load(tmp_path / "none.parquet"), "no such file"),
        (lambda: LayerSweep.load(empty), "not a layer"),
        (lambda: LayerSweep.load(tmp_path / "table.parquet"), "not a layer"),
        (lambda: LayerSweep.load(tmp_path / "layer.parquet", "other"), "other rollouts or options"),
        (lambda: SweepPlan.make([1] * N, PROMPTS, POSITIONS), "needs both"),
        (lambda: SweepPlan.make(LABELS, PROMPTS, POSITIONS, ["a"]), "expected 120"),
        (lambda: sweep_figure(sweep.table.iloc[:0]), "empty"),
    ]:
        with pytest.raises(CliffscopeError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_the_figure_shows_every_control_with_its_interval(sweep, tmp_path):
    figure = sweep_figure(sweep.table)
    assert [trace.visible for trace in figure.data] == [True, False, False]
    heat = figure.data[0]
    row = cell(sweep, 2, "close:-1", "real")
    place = (list(heat.y).index(2), list(heat.x).index("close:-1"))
    assert heat.z[place] == row["auroc"]
    assert tuple(heat.customdata[place][:2]) == (row["auroc_low"], row["auroc_high"])
    assert "customdata[0]" in heat.hovertemplate and "customdata[1]" in heat.hovertemplate
    write_sweep_html(sweep.table, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert "<script src=" not in page and "Plotly.newPlot" in page and 'id="probe-sweep"' in page
