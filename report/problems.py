"""What a run lacks, and what makes it: a part that is missing or broken is told, and never stops the page."""

from dataclasses import dataclass

MODEL = "--model MODEL"

COMMANDS = {
    "rollouts": f"cliffscope rollout {MODEL} --prompts prompts.csv --out rollouts.jsonl",
    "scores": f"cliffscope probe score {MODEL} --probe probe.safetensors --rollouts rollouts.jsonl "
    "--out scores.parquet",
    "probe": f"cliffscope probe fit {MODEL} --rollouts rollouts.jsonl --out probe.safetensors",
    "sweep": f"cliffscope probe sweep {MODEL} --rollouts rollouts.jsonl --out sweep",
    "cliff": f"cliffscope cliff {MODEL} --probe probe.safetensors --rollouts rollouts.jsonl --out cliff.parquet",
    "heads": f"cliffscope heads rank {MODEL} --probe probe.safetensors --rollouts rollouts.jsonl --method ablation "
    "--out heads-ablation.parquet",
    "curve": f"cliffscope heads curve {MODEL} --probe probe.safetensors --rollouts rollouts.jsonl "
    "--heads heads-ablation.parquet --out curve.parquet",
    "mask": "cliffscope mask build --heads heads-ablation.parquet --fraction 0.05 --out mask.safetensors",
    "masked": f"cliffscope rollout {MODEL} --prompts prompts.csv --mask mask.safetensors --out rollouts-masked.jsonl",
    "evaluation": f"cliffscope evaluate {MODEL} --prompts harmful.csv --benign benign.csv --out eval-base.json",
    "doses": f"cliffscope steer sweep {MODEL} --vector vector.safetensors --prompts harmful.csv --benign benign.csv "
    "--alphas=-4:4:9 --out doses.parquet",
    "selection": f"cliffscope select {MODEL} --probe probe.safetensors --pool pool.jsonl --out selected-cliff.jsonl",
    "summary": "cliffscope demo --out runs/demo",
    "manifest": "cliffscope demo --out runs/demo",
}
COMMANDS |= {"cliff_figures": COMMANDS["cliff"], "layers": COMMANDS["cliff"]}

NOUNS = {
    "rollouts": "The rollouts",
    "scores": "The score of every token",
    "probe": "The probe",
    "sweep": "The sweep over layers and positions",
    "cliff": "The cliff of every rollout",
    "cliff_figures": "The cliff's verdict and figures",
    "layers": "The cliff by layer",
    "heads": "The heads' scores",
    "curve": "The ablation curve",
    "mask": "The head mask",
    "masked": "The answers with a mask",
    "evaluation": "An evaluation",
    "doses": "The doses of steering",
    "selection": "The choice of training examples",
    "selected": "The chosen training examples",
    "pool": "The pool of training examples",
    "pool_scores": "The pool's scores",
    "settings": "The settings of a file",
    "summary": "The summary",
    "manifest": "The manifest of the run",
}


@dataclass(frozen=True)
class Problem:
    """A part that is missing or broken.

    Attributes:
        part: Its kind.
        why: One sentence.
        file: Its name, if there is one.
    """

    part: str
    why: str
    file: str | None = None

    @property
    def noun(self) -> str:
        """What it is called."""
        return NOUNS.get(self.part, "A file")

    @property
    def state(self) -> str:
        """`missing` or `broken`."""
        return "missing" if self.file is None else "broken"

    @property
    def command(self) -> str | None:
        """What makes it."""
        return COMMANDS.get(self.part)


def missing(part: str, why: str = "") -> Problem:
    """A part that is not in the folder."""
    return Problem(part, why or "No file in this folder holds it.")
