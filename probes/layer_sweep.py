"""One layer of a probe sweep: its rows, its probes, and the file that a killed sweep resumes from."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.files import write_atomically
from probes.category_search import CategorySearch

_KEY = b"cliffscope.layer_sweep"


@dataclass(frozen=True, eq=False)
class LayerSweep:
    """What `SweepPlan.fit_layer` found.

    Attributes:
        layer: Index.
        rows: One row for each position and control.
        weight: Of the real probes, raw coordinates, float32.
        bias: Of the real probes.
        plan: The digest of the plan it was fitted by.
        search: Its part in judging the choice of a layer on held-out categories; `None` if none were held out.
    """

    layer: int
    rows: pd.DataFrame
    weight: Float[Tensor, "position d_model"]
    bias: Float[Tensor, "position"]
    plan: str
    search: CategorySearch | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the layer as Parquet, atomically. Raises `CliffscopeError` if it cannot."""
        weights = iter(self.weight.numpy())
        biases = iter(self.bias.tolist())
        real = self.rows["control"] == "real"
        table = pa.Table.from_pandas(self.rows, preserve_index=False)
        column = pa.array([next(weights) if own else None for own in real], pa.list_(pa.float32()))
        table = table.append_column("weight", column)
        table = table.append_column("bias", pa.array([next(biases) if own else None for own in real], pa.float32()))
        facts = json.dumps({"layer": self.layer, "plan": self.plan, "search": _to_json(self.search)}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: facts})
        write_atomically(path, lambda partial: pq.write_table(table, partial))

    @classmethod
    def load(cls, path: str | os.PathLike[str], plan: str | None = None) -> "LayerSweep":
        """Reads a layer.

        Args:
            path: The file.
            plan: The digest that it must carry, if given.

        Raises:
            CliffscopeError: If it is missing, not such a file, or of another plan.
        """
        path = Path(path)
        if not path.is_file():
            raise CliffscopeError(f"{path}: no such file.")
        try:
            table = pq.read_table(path)
            facts = json.loads((table.schema.metadata or {})[_KEY])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise CliffscopeError(f"{path}: not a layer of a probe sweep; delete it and run again.") from error
        if plan is not None and facts["plan"] != plan:
            raise CliffscopeError(f"{path}: made from other rollouts or options; delete the folder or choose another.")
        frame = table.to_pandas()
        real = frame[frame["control"] == "real"]
        weight = torch.from_numpy(np.stack([np.asarray(row, dtype=np.float32) for row in real["weight"]]))
        bias = torch.tensor(real["bias"].to_numpy(dtype=np.float32))
        rows = frame.drop(columns=["weight", "bias"])
        return cls(int(facts["layer"]), rows, weight, bias, facts["plan"], _from_json(facts["search"]))


def _to_json(search: CategorySearch | None) -> dict[str, Any] | None:
    # As text numbers come back bit by bit, NaN included.
    return None if search is None else {name: array.tolist() for name, array in vars(search).items()}


def _from_json(held: dict[str, Any] | None) -> CategorySearch | None:
    return None if held is None else CategorySearch(**{name: np.array(values) for name, values in held.items()})
