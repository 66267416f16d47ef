"""What `torch.compile` may take for a constant."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


def constant_when_compiled(function: F) -> F:
    """`torch.compiler.assume_constant_result`: a compiled graph calls the function once and keeps its result.

    The mark alone: PyTorch's own decorator imports its compiler, which takes a fifth of the page's imports and is needed by
    nobody who does not compile.
    """
    function._dynamo_marked_constant = True
    return function
