"""The inputs that can be factorised, and their conversion to a `Matrix`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from noisewise.lowrank.dtypes import COMPUTED, dtype_name
from noisewise.lowrank.magnitude import frobenius_norm
from noisewise.lowrank.operators import (
    Adjoint,
    Chain,
    Converted,
    Dense,
    Matrix,
    Operator,
    Product,
    Sparse,
    gaussian,
)

_SEED = 0  # without a generator, every call gives the same answer


def new_generator(generator: torch.Generator | None) -> torch.Generator:
    """The given generator, or a new one with a fixed seed; the global generator is not used."""
    return torch.Generator().manual_seed(_SEED) if generator is None else generator


def operator(
    shape: Sequence[int],
    matmat: Product,
    rmatmat: Product,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Operator:
    """Return a matrix that is given only by its products.

    Args:
        shape: [*batch, m, n].
        matmat: a function from x [*batch, n, c] to A x [*batch, m, c].
        rmatmat: a function from y [*batch, m, c] to A^H y [*batch, n, c]. Before a factorisation,
            random vectors check that it is the adjoint of matmat.
        dtype: the dtype of the inputs and outputs of both functions.
        device: the device of the inputs and outputs of both functions.

    Raises:
        ValueError: for a shape with fewer than two dimensions, and for a dtype other than float32,
            float64, complex64 and complex128.

    Example:
        >>> a = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
        >>> operator((30, 20), lambda x: a @ x, lambda y: a.mH @ y).matmat(torch.ones(20, 1)).shape
        torch.Size([30, 1])
    """
    return Operator(shape, matmat, rmatmat, dtype, torch.device(device))


def product(*parts: object) -> Matrix:
    """Return the product of matrices without forming it.

    Args:
        parts: anything that `as_matrix` takes, in the order of the product.

    Raises:
        ValueError: without parts, and for shapes that cannot be multiplied.

    Example:
        >>> x, y = torch.ones(5, 2), torch.ones(2, 7)
        >>> a = product(x, y)
        >>> a.shape, round(float(a.frobenius()), 3) == round((5 * 7 * 4) ** 0.5, 3)
        (torch.Size([5, 7]), True)
    """
    if not parts:
        raise ValueError("A product needs at least one matrix.")
    return Chain([as_matrix(part) for part in parts])


def outputs(layer: nn.Linear, data: Tensor) -> Matrix:
    """Return the outputs of a linear layer for some data as a matrix, without forming it.

    ``A = X W^T`` [samples, out_features], without the bias. A low-rank approximation of A preserves
    the outputs of the layer rather than its weights.

    Args:
        layer: a layer with a weight [out_features, in_features].
        data: X [..., in_features]; all leading dimensions are samples.

    Raises:
        ValueError: if the last dimension of the data is not in_features.
    """
    if data.shape[-1] != layer.in_features:
        raise ValueError(
            f"The data have {data.shape[-1]} features, but the layer takes {layer.in_features}."
        )
    return product(data.detach().reshape(-1, layer.in_features), layer.weight.detach().mT)


@runtime_checkable
class _Factored(Protocol):
    """A low-rank value: a product of two tensors."""

    @property
    def left(self) -> Tensor: ...
    @property
    def right(self) -> Tensor: ...


@runtime_checkable
class _Multiplies(Protocol):
    """The interface of scipy's LinearOperator, on numpy arrays."""

    shape: tuple[int, ...]

    def matmat(self, x: object) -> object: ...
    def rmatmat(self, x: object) -> object: ...


@runtime_checkable
class _Coordinates(Protocol):
    """The interface of scipy's sparse matrices."""

    def tocoo(self) -> object: ...


def as_matrix(given: object) -> Matrix:
    """Return the input as a `Matrix`, which the algorithms work on.

    Half precisions are computed in float32 and integers in float64; `notes` say so.

    Args:
        given: a tensor [*batch, m, n], dense or sparse; a numpy array; a sparse matrix of scipy; a
            `Matrix`; a LowRank; or any object with `shape`, `dtype`, `matmat` and `rmatmat`, such
            as scipy's LinearOperator.

    Raises:
        ValueError: for other inputs, for NaN or Inf, and for fewer than two dimensions.

    Example:
        >>> as_matrix(torch.ones(2, 3, dtype=torch.bfloat16)).notes
        ('computed in float32, as bfloat16 has no factorisations',)
    """
    if isinstance(given, Matrix):
        return given
    if isinstance(given, Tensor):
        return _of_tensor(given)
    if isinstance(given, _Factored):
        return Chain([_of_tensor(given.left.detach()), _of_tensor(given.right.detach())])
    if isinstance(given, _Multiplies):
        return _of_linear_operator(given)
    if isinstance(given, _Coordinates):
        return _of_scipy_sparse(given.tocoo())
    if hasattr(given, "__array__"):
        return _of_tensor(_of_array(given))
    raise ValueError(
        f"A {type(given).__name__} is not a matrix: give a tensor, an array, or an operator with "
        "matmat and rmatmat."
    )


def _of_array(given: object) -> Tensor:
    """An object with `__array__`: a numpy array, or a table such as those of pandas."""
    import numpy as np

    array = np.asarray(given)
    if array.dtype.kind not in "biufc":
        raise ValueError(
            f"A {type(given).__name__} of dtype {array.dtype} does not hold only numbers: convert "
            "it to float64 first."
        )
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(
            f"An array of dtype {array.dtype} cannot be used: convert it to float64 first."
        ) from error


def _of_tensor(tensor: Tensor) -> Matrix:
    if tensor.dim() < 2:
        raise ValueError(
            f"The shape is {list(tensor.shape)}: a matrix needs at least two dimensions."
        )
    entries, notes = computable(tensor)
    if tensor.layout == torch.strided:
        return Dense(entries, notes)
    if tensor.requires_grad:
        raise ValueError("Gradients do not flow to a sparse matrix: make it dense or detach it.")
    return Sparse(entries, notes)


def computable(tensor: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The tensor in a dtype that has factorisations, and a note if the dtype changed."""
    if tensor.dtype in COMPUTED:
        return tensor, ()
    if tensor.dtype.is_complex:
        wanted = torch.complex64
    else:
        wanted = torch.float32 if tensor.dtype.is_floating_point else torch.float64
    note = f"computed in {dtype_name(wanted)}, as {dtype_name(tensor.dtype)} has no factorisations"
    return tensor.to(wanted), (note,)


def _of_linear_operator(given: _Multiplies) -> Operator:
    """An object with matmat and rmatmat on numpy arrays, such as scipy's LinearOperator."""
    import numpy as np

    dtype = torch.from_numpy(np.zeros(0, getattr(given, "dtype", None) or np.float64)).dtype
    dtype = dtype if dtype in COMPUTED else torch.float64

    def through(multiply: Callable[[object], object]) -> Product:
        def multiplied(x: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(multiply(x.detach().cpu().numpy())))

        return multiplied

    return Operator(
        tuple(given.shape),
        through(given.matmat),
        through(given.rmatmat),
        dtype,
        torch.device("cpu"),
    )


def _of_scipy_sparse(coordinates: Any) -> Matrix:  # noqa: ANN401 (scipy's own, not imported)
    """A scipy sparse matrix in coordinate form, on the CPU."""
    index = torch.stack([torch.as_tensor(axis) for axis in coordinates.coords]).long()
    values = torch.as_tensor(coordinates.data)
    size = tuple(coordinates.shape)
    return _of_tensor(torch.sparse_coo_tensor(index, values, size, check_invariants=True))


def check_adjoint(matrix: Matrix, generator: torch.Generator) -> None:
    """Check that the rmatmat of an operator is the adjoint of its matmat, also inside a product.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(matrix, Chain):
        for part in matrix.parts:
            check_adjoint(part, generator)
    elif isinstance(matrix, Adjoint | Converted):
        check_adjoint(matrix.of, generator)
    elif not isinstance(matrix, Dense | Sparse):
        _check_adjoint(matrix, generator)


def _check_adjoint(matrix: Matrix, generator: torch.Generator) -> None:
    """``<y, A x> = <A^H y, x>`` for two random vectors, up to sqrt(eps) |A x| |y|."""
    if min(matrix.m, matrix.n) == 0 or matrix.batch.numel() == 0:
        return
    x = matrix.gaussian(1, generator)
    y = gaussian((*matrix.batch, matrix.m, 1), matrix.dtype, matrix.device, generator)
    ax, ay = matrix.matmat(x), matrix.rmatmat(y)
    gap = (y.mH @ ax - ay.mH @ x).abs()[..., 0, 0].double()
    size = frobenius_norm(y) * frobenius_norm(ax) + frobenius_norm(ay) * frobenius_norm(x)
    if not bool(torch.isfinite(size).all()):
        raise ValueError("The operator returns NaN or Inf for random vectors: correct it first.")
    if bool((gap > torch.finfo(matrix.dtype).eps ** 0.5 * size).any()):
        raise ValueError(
            "rmatmat is not the adjoint of matmat (<y, A x> differs from <A^H y, x>): it must "
            "multiply by the transpose, or by the conjugate transpose of a complex operator."
        )
