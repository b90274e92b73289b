"""Writing down what a function does with a tensor, as a list of torch's operations and the tensors that they need."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from interp.errors import CliffscopeError

_LOOKS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "_unique", "_unique2", "unique_dim", "masked_select")


class Recorder(TorchDispatchMode):
    """While it is active, writes down the operations that depend on the tensors it was given.

    All else, such as which columns of a batch to change, is computed as ever and becomes a constant where an operation
    needs it.

    Args:
        not_sent: Tensors, such as the model's weights, that no operation may need.

    Attributes:
        operations: Since `begin`: `(name, args, kwargs, results)`, with `("%", number)` for a tensor.
        constants: By number; copies on the CPU.
    """

    def __init__(self, not_sent: Iterable[Tensor]) -> None:
        super().__init__()
        self.operations: list[tuple[str, Any, Any, list[int]]] = []
        self.constants: dict[int, Tensor] = {}
        self._not_sent = {_storage(tensor) for tensor in not_sent}
        self._depends: dict[int, int] = {}
        self._constant_numbers: dict[tuple[int, int], int] = {}
        self._alive: list[Tensor] = []  # ids are of live objects only
        self._count = 0

    def begin(self, value: Tensor) -> int:
        """Starts a new list of operations with one more tensor; returns its number."""
        self.operations = []
        return self._number(value)

    def number_of(self, tensor: Tensor) -> int:
        """The number of a tensor that was computed from those given, or of a constant."""
        number = self._depends.get(id(tensor))
        return self._constant(tensor) if number is None else number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and writes it down if it depends on a tensor given."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(tensor) in self._depends for tensor in tensors):
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name in _LOOKS:
            raise CliffscopeError(f"what it does depends on looking at the value ({name}), not by arithmetic alone")
        written = tree_map(self._reference, (args, kwargs))
        output = func(*args, **kwargs)
        if func._schema.is_mutable:
            for tensor in tensors:  # a constant that was written to depends on the value from now on
                self._depends.setdefault(id(tensor), self.number_of(tensor))
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        if not all(isinstance(tensor, Tensor) for tensor in outputs):
            raise CliffscopeError(f"what it does depends on looking at the value ({name}), not by arithmetic alone")
        results = [self._depends.get(id(tensor)) for tensor in outputs]
        numbers = [self._number(tensor) if n is None else n for tensor, n in zip(outputs, results, strict=True)]
        self.operations.append((str(func), *written, numbers))
        return output

    def _reference(self, leaf: Any) -> Any:
        return ("%", self.number_of(leaf)) if isinstance(leaf, Tensor) else leaf

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        self._alive.append(tensor)
        self._depends[id(tensor)] = self._count
        return self._count

    def _constant(self, tensor: Tensor) -> int:
        if tensor.is_meta or _storage(tensor) in self._not_sent:
            raise CliffscopeError("it reads the model's weights, which are not sent")
        key = (id(tensor), tensor._version)
        if key not in self._constant_numbers:
            self._count += 1
            self._alive.append(tensor)
            self._constant_numbers[key] = self._count
            self.constants[self._count] = tensor.detach().cpu().clone()
        return self._constant_numbers[key]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if not tensor.is_meta else -1
