"""The verdict in three sentences: the cliff, the heads, and what taking them away does; with the controls."""

from collections.abc import Mapping
from typing import Any

from report.problems import missing
from report.rates import LABELS, Outcome, outcomes
from report.run import BASE, Run
from report.sections.heads import evidence as heads_evidence
from report.sections.section import Grid, Section, between, number, percent, real, share

CONTROLS = (("masked", "random_mask"), ("repaired", "repaired_random"), ("steered", "steered_random"))
"""Changes of the model, each with what it must be better than."""


def build(run: Run) -> Section:
    """The section."""
    section = Section("verdict", "The verdict")
    cliff = cliff_figures(run)
    rows = {row.name: row for row in outcomes(run)}
    sentences = [str(cliff["evidence"])] if cliff.get("evidence") else []
    if heads := heads_evidence(run):
        sentences.append(heads)
    if change := _change(rows):
        sentences.append(change)
    section.paragraphs = sentences
    section.tiles = list(_tiles(run, cliff, rows))
    controls = list(_controls(run, cliff, rows))
    if controls:
        head = ("control", "here", "in the control", "what it would mean")
        section.grids.append(Grid("Controls", head, controls))
    section.rollout = _worst(run)
    section.problems = run.of("cliff_figures", "summary")
    if not cliff and not section.problems:
        section.problems.append(missing("cliff_figures"))
    return section


def cliff_figures(run: Run) -> Mapping[str, Any]:
    """The cliff's figures: from their own file, else from the summary."""
    own = run.object("cliff_figures")
    told = run.object("summary").get("cliff")
    return own or (told if isinstance(told, Mapping) else {})


def _change(rows: Mapping[str, Outcome]) -> str:
    """What taking the heads away does, and repair, each beside its control."""
    base = rows.get(LABELS[BASE])
    if base is None or base.asr is None:
        return ""
    parts: list[str] = []
    for name, control in CONTROLS:
        after, random = rows.get(LABELS[name]), rows.get(LABELS[control])
        if after is None or after.asr is None:
            continue
        words = f"{LABELS[name]} {share(after.asr, after.asr_interval)} of them"
        if random is not None and random.asr is not None:
            words += f" ({LABELS[control]}: {percent(random.asr)})"
        if after.refused is not None and base.refused is not None:
            words += f", and refuses {percent(after.refused)} of benign prompts"
        parts.append(words)
    start = f"The model answers {share(base.asr, base.asr_interval)} of harmful prompts"
    if base.refused is not None:
        start += f" and refuses {percent(base.refused)} of benign ones"
    return "; ".join([start, *parts]) + "."


def _worst(run: Run) -> tuple[str, str] | None:
    """The complied rollout with the largest cliff."""
    table = run.table("cliff")
    if table is None:
        return None
    complied = table.rows[(table.rows["outcome"] == "complied") & table.rows["cliff"].notna()]
    if complied.empty:
        return None
    row = complied.sort_values(["cliff", "id"], ascending=[False, True]).iloc[0]
    return f"Open the answered prompt with the largest cliff ({number(row['cliff'])})", str(row["id"])


def _tiles(run: Run, cliff: Mapping[str, Any], rows: Mapping[str, Outcome]) -> Any:
    if cliff:
        low, high = _pair(cliff.get("ci95"))
        yield str(cliff.get("verdict", "–")), "verdict", f"over {cliff.get('n_complied', '–')} complied rollouts"
        yield (
            number(cliff.get("mean"), 2),
            "mean cliff",
            f"95 % interval{between(low, high)}" if low is not None else "",
        )
    base, masked = rows.get(LABELS[BASE]), rows.get(LABELS["masked"])
    if base is not None and base.asr is not None:
        after = f" → {percent(masked.asr)}" if masked is not None and masked.asr is not None else ""
        random = rows.get(LABELS["random_mask"])
        control = f"random masks: {percent(random.asr)}" if random is not None else ""
        yield f"{percent(base.asr)}{after}", "harmful prompts answered" + (", masked" if after else ""), control
    if (auroc := _probe_facts(run)).get("auroc") is not None:
        yield (
            number(auroc["auroc"], 2),
            "held-out AUROC of the probe",
            f"shuffled labels: {number(auroc.get('auroc_shuffled'), 2)}",
        )


def _controls(run: Run, cliff: Mapping[str, Any], rows: Mapping[str, Outcome]) -> Any:
    if cliff:
        here = f"{number(cliff.get('plateau_complied'))} → {number(cliff.get('edge_complied'))}"
        for outcome, meaning in (
            ("refused", "A fall of refused rollouts too would be one of the closing tag."),
            ("benign", "A fall of benign rollouts too would be one of the closing tag."),
        ):
            if real(cliff.get(f"plateau_{outcome}")) is not None:
                there = f"{number(cliff[f'plateau_{outcome}'])} → {number(cliff[f'edge_{outcome}'])}"
                yield f"{outcome} rollouts, plateau → edge", here, f"{there} (n = {cliff.get(f'n_{outcome}')})", meaning
        for null in cliff.get("nulls") or []:
            values = [v for v in map(real, null.get("values") or []) if v is not None]
            there = (
                f"{number(max(values))} at most in {len(values)} runs, p = {number(null.get('p'))}" if values else "–"
            )
            yield (
                f"{null.get('null')}: {null.get('statistic')}",
                number(null.get("observed")),
                there,
                "As large there: nothing found.",
            )
    facts = _probe_facts(run)
    if real(facts.get("auroc")) is not None:
        here = number(facts["auroc"]) + between(facts.get("auroc_low"), facts.get("auroc_high"))
        yield "AUROC with shuffled labels", here, number(facts.get("auroc_shuffled")), "Far from 0.5: the split leaks."
        if real(facts.get("auroc_held_out_category")) is not None:
            there = number(facts["auroc_held_out_category"])
            yield "AUROC on categories left out", here, there, "Far lower: the probe knows the topics."
    for name, control in CONTROLS:
        after, random = rows.get(LABELS[name]), rows.get(LABELS[control])
        if after is not None and random is not None:
            there = percent(random.asr) + (f" ({random.told})" if random.told else "")
            yield f"ASR {LABELS[control]}", percent(after.asr), there, "As low there: the choice does not matter."


def _probe_facts(run: Run) -> Mapping[str, Any]:
    training = run.object("probe").get("training")
    return training if isinstance(training, Mapping) else {}


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
