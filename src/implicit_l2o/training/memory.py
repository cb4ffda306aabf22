"""Peak memory of a call, on the CPU too, where torch keeps no such statistics."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:  # a sparse tensor's parts come on their own
            yield leaf.untyped_storage()


class _StorageTracker(TorchDispatchMode):
    """Counts the bytes of tensor storages made while active and still alive; views share their base's storage."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        # Bytes by identity of the storage: torch keeps one Python object a storage for as long as the storage lives.
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {id(storage) for storage in _storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._count(storage, inputs)
        return out

    def _count(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key = id(storage)
        if key in self._bytes or key in inputs:  # an in-place result or a view, of a tensor made here or outside
            return
        size = storage.nbytes()
        self._bytes[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.live -= self._bytes.pop(key)


def peak_memory(call: Callable[[], Any], *, device: torch.device | str = "cpu") -> int:
    """Bytes that the tensors made by `call` hold at their highest, beyond what was alive before.

    On the CPU every operation's outputs are followed, forward and backward, from their making to their release: tensors
    that autograd saves count for as long as it keeps them, the scratch space inside one kernel does not. The figure does
    not depend on the machine or its load. On CUDA it is the allocator's own peak (`torch.cuda.max_memory_allocated`).

    Args:
        call: runs the computation, a training step for instance. Run it once before, so that lazily made state (an
            optimizer's moments) does not count.
        device: where the tensors live.

    Example:
        >>> import torch
        >>> from implicit_l2o.training.memory import peak_memory
        >>> x = torch.zeros(250)                     # float32: 1000 bytes
        >>> peak_memory(lambda: (x + 1) * 2)         # the sum lives until the product is there
        2000
        >>> peak_memory(lambda: x.view(10, 25)[2:])  # views are free
        0
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _StorageTracker() as tracker:
        call()
    return tracker.peak
