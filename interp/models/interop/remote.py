"""What runs inside nnsight's interleaving, here and on a server that has torch and nnsight but not this package.

nnsight sends functions as source and everything they refer to with them, so the functions of this module and of
`interp.models.packing` refer to each other, torch and nnsight only, and have no shapes in their signatures.
"""

from typing import Any

import torch

from interp.models.packing import see_input, see_output

SENT = ("interp.models.interop.remote", "interp.models.packing")
"""The modules whose source is sent."""


def run_passes(decoder: Any, visits: Any, begin: Any) -> None:
    """Changes values at places, in every pass of a run: one for a trace, one a token for a generation.

    Args:
        decoder: Its envoy, whose input begins a pass; `None` if nobody asks for it.
        visits: `(envoy, end, n_heads, see)` in the order in which a pass reaches them; see `interp.models.hooks.hook`.
        begin: Called with a pass's number and the decoder's arguments, `None` without a decoder.
    """
    from nnsight.intervention.interleaver import OutOfOrderError
    from nnsight.intervention.iterator import Iterations

    within = False
    try:
        for step in Iterations()[:] if visits else ():
            begin(step, None if decoder is None else decoder.inputs)
            within = decoder is not None
            for envoy, end, n_heads, see in visits:
                if end == "out":
                    new = see_output(see, n_heads, envoy.output)
                    within = True
                    if new is not None:
                        envoy.output = new
                else:
                    new = see_input(see, n_heads, *envoy.inputs)
                    within = True
                    if new is not None:
                        envoy.inputs = new
            within = False
    except OutOfOrderError:
        # So an open loop ends: the run was over and there was no next pass. Anything else is a place never reached.
        if within or step == 0:
            raise


class Replay:
    """Recorded operations, run again on the values of a run; see `interp.models.interop.frozen`.

    Attributes:
        programs: One for the first pass, and one for all later ones if they are known. Each holds `constants`, tensors
            by number; and `visits`, of which each holds the `shape` of its value, `number` by which operations refer to
            it, the `operations` as `(name, args, kwargs, results)`, the number of the `result`, `None` if the value
            stays as it is, and the numbers that later visits need, `kept`. Operations refer to tensors as
            `("%", number)`.
    """

    def __init__(self, programs: Any) -> None:
        self.programs = programs
        self.program: Any = None
        self.known: Any = {}

    def begin(self, step: int, arguments: Any) -> None:
        """Begins a pass; only the shapes of values tell whether the program is meant for it."""
        self.program, self.known = self.programs[min(step, len(self.programs) - 1)], {}

    def see(self, number: int, value: Any) -> Any:
        """The new value of a visit, `None` if it stays as it is."""
        visit = self.program["visits"][number]
        if list(value.shape) != visit["shape"]:
            raise ValueError(
                f"frozen interventions are for values of shape {visit['shape']}, found {list(value.shape)}: trace the "
                "rows that they were frozen for, padded in the same way; to generate, freeze with generating=True."
            )
        self.known[visit["number"]] = value
        for name, args, kwargs, results in visit["operations"]:
            self._run(name, args, kwargs, results, value.device)
        result = None if visit["result"] is None else self.known[visit["result"]]
        self.known = {kept: self.known[kept] for kept in visit["kept"]}
        return result

    def _run(self, name: str, args: Any, kwargs: Any, results: Any, device: Any) -> None:
        namespace, operation, overload = name.split(".")
        call = getattr(getattr(getattr(torch.ops, namespace), operation), overload)
        output = call(*self._filled(args, device), **{key: self._filled(kwargs[key], device) for key in kwargs})
        for number, tensor in zip(results, output if isinstance(output, (tuple, list)) else (output,), strict=True):
            self.known[number] = tensor

    def _filled(self, part: Any, device: Any) -> Any:
        """Arguments with tensors in place of their numbers, on a device."""
        if isinstance(part, tuple) and len(part) == 2 and part[0] == "%":
            if part[1] not in self.known:  # a copy: an operation may write to it
                self.known[part[1]] = self.program["constants"][part[1]].to(device, copy=True)
            return self.known[part[1]]
        if isinstance(part, (list, tuple)):
            return [self._filled(item, device) for item in part]
        return device if isinstance(part, torch.device) else part
