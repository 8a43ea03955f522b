"""The inputs that can be factorised, and their conversion to a `Matrix`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from noisewise.lowrank.arrays import array_of, is_dask, numpy_too, tensor_of
from noisewise.lowrank.dask_arrays import DaskMatrix, of_dask
from noisewise.lowrank.dtypes import COMPUTED, computable
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
from noisewise.lowrank.row_blocks import RowBlocks

_SEED = 0  # without a generator, every call gives the same answer
Randomness = torch.Generator | int | None


def new_generator(generator: Randomness) -> torch.Generator:
    """The given generator, or a new one from a seed; the global generator is not used.

    Raises:
        ValueError: for something else.
    """
    if isinstance(generator, torch.Generator):
        return generator
    seed = _SEED if generator is None else generator
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ValueError(
            f"generator is {seed!r}: give a torch.Generator, or a whole number from 0 as its seed."
        )
    return torch.Generator().manual_seed(int(seed))


def operator(
    shape: Sequence[int],
    matmat: Product,
    rmatmat: Product | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    hermitian: bool = False,
) -> Operator:
    """Return a matrix that is given only by its products.

    Args:
        shape: [*batch, m, n].
        matmat: a function from x [*batch, n, c] to A x [*batch, m, c], a tensor or an array.
        rmatmat: a function from y [*batch, m, c] to A^H y [*batch, n, c]. Before a factorisation,
            random vectors check that it is the adjoint of matmat.
        dtype: the dtype of the inputs and outputs of both functions. By default the first of
            float32, float64, complex64 and complex128 that matmat takes, found by a product with
            zeros; if the product has another of these dtypes, that one.
        device: the device of the inputs and outputs of both functions.
        hermitian: A equals its conjugate transpose, so matmat is also rmatmat, which is left out;
            random vectors check this too.

    Raises:
        ValueError: for a shape with fewer than two dimensions, for a dtype other than these four,
            and unless exactly one of rmatmat and hermitian is given.

    Example:
        >>> a = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
        >>> operator((30, 20), lambda x: a @ x, lambda y: a.mH @ y).matmat(torch.ones(20, 1)).shape
        torch.Size([30, 1])
    """
    if hermitian != (rmatmat is None):
        raise ValueError("Give rmatmat, or hermitian=True if matmat is its own adjoint.")
    if hermitian and shape[-1] != shape[-2]:
        raise ValueError(f"A Hermitian operator is square, but its shape is {list(shape)}.")
    on = torch.device(device)
    found = _dtype_of(shape, matmat, on) if dtype is None else dtype
    return Operator(shape, matmat, rmatmat or matmat, found, on)


def _dtype_of(shape: Sequence[int], matmat: Product, device: torch.device) -> torch.dtype:
    """The dtype that a function takes and returns, by a product with zeros."""
    if len(shape) < 2:
        return torch.float32  # the operator itself refuses this shape
    first: Exception | None = None
    for dtype in COMPUTED:
        zeros = torch.zeros(*shape[:-2], shape[-1], 1, dtype=dtype, device=device)
        try:
            result = matmat(zeros)
        except (RuntimeError, TypeError, ValueError) as error:
            first = first or error
            continue
        returned = result.dtype if isinstance(result, Tensor) else tensor_of(result).dtype
        return returned if returned in COMPUTED else dtype
    assert first is not None
    raise first


@numpy_too
def product(*parts: object) -> Matrix:
    """Return the product of matrices without forming it. No gradient flows to the parts.

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
    return Chain([_detached(as_matrix(part)) for part in parts])


def _detached(part: Matrix) -> Matrix:
    return Dense(part.tensor.detach(), part.notes) if isinstance(part, Dense) else part


@numpy_too
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


@numpy_too
def as_matrix(given: object) -> Matrix:
    """Return the input as a `Matrix`, which the algorithms work on.

    Half precisions are computed in float32 and integers in float64; `notes` say so.

    Args:
        given: a tensor [*batch, m, n], dense or sparse; a numpy array; a sparse matrix of scipy; an
            array of dask; a `Matrix`; a LowRank; or any object with `shape`, `dtype`, `matmat` and
            `rmatmat`, such as scipy's LinearOperator.

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
    if is_dask(given):
        return of_dask(given)
    if isinstance(given, _Factored):
        return Chain([_of_tensor(given.left.detach()), _of_tensor(given.right.detach())])
    if isinstance(given, _Multiplies):
        return _of_linear_operator(given)
    if isinstance(given, _Coordinates):
        return _of_scipy_sparse(given.tocoo())
    if hasattr(given, "__array__"):
        return _of_tensor(tensor_of(given))
    raise ValueError(
        f"A {type(given).__name__} is not a matrix: give a tensor, an array, or an operator with "
        "matmat and rmatmat."
    )


def _of_tensor(tensor: Tensor) -> Matrix:
    if tensor.dim() < 2:
        raise ValueError(
            f"The shape is {list(tensor.shape)}: a matrix needs at least two dimensions."
        )
    check_readable(tensor)
    entries, notes = computable(tensor)
    if tensor.layout == torch.strided:
        return Dense(entries, notes)
    if tensor.requires_grad:
        raise ValueError("Gradients do not flow to a sparse matrix: make it dense or detach it.")
    return Sparse(entries, notes)


def check_readable(*tensors: Tensor) -> None:
    """Check that values can be looked at, which torch.vmap forbids.

    Raises:
        ValueError: inside torch.vmap.
    """
    try:
        for tensor in tensors:
            if tensor.layout == torch.strided:
                bool(tensor.new_zeros((), dtype=torch.bool))
    except RuntimeError as error:
        raise ValueError(
            "Inside torch.vmap no rank, route or error can be chosen, because they depend on the "
            "entries: give the whole batch [..., m, n] in one call, without vmap."
        ) from error


def _of_linear_operator(given: _Multiplies) -> Operator:
    """An object with matmat and rmatmat on numpy arrays, such as scipy's LinearOperator."""
    import numpy as np

    dtype = tensor_of(np.zeros(0, getattr(given, "dtype", None) or np.float64)).dtype
    dtype = dtype if dtype in COMPUTED else torch.float64

    def through(multiply: Callable[[object], object]) -> Product:
        def multiplied(x: Tensor) -> Tensor:
            return tensor_of(multiply(array_of(x)))

        return multiplied

    def by_adjoint(y: object) -> object:
        try:
            return given.rmatmat(y)
        # scipy raises one where rmatvec is missing, the other where it is None.
        except (NotImplementedError, TypeError) as error:
            raise ValueError(
                f"The {type(given).__name__} cannot multiply by its adjoint ({error}): give it "
                "rmatvec or rmatmat."
            ) from error

    return Operator(
        tuple(given.shape),
        through(given.matmat),
        through(by_adjoint),
        dtype,
        torch.device("cpu"),
    )


def _of_scipy_sparse(coordinates: Any) -> Matrix:  # noqa: ANN401 (scipy's own, not imported)
    """A scipy sparse matrix in coordinate form, on the CPU."""
    size = tuple(coordinates.shape)
    if len(size) != 2:
        raise ValueError(f"The shape is {list(size)}: a sparse matrix needs two dimensions.")
    index = torch.stack([tensor_of(axis) for axis in coordinates.coords]).long()
    values = tensor_of(coordinates.data)
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
    elif not isinstance(matrix, Dense | Sparse | RowBlocks | DaskMatrix):
        _check_adjoint(matrix, generator)


def check_hermitian(matrix: Matrix, generator: torch.Generator) -> None:
    """Check that a matrix equals its conjugate transpose: a dense one itself, others by products.

    Raises:
        ValueError: if it does not, or is not square.
    """
    if matrix.m != matrix.n:
        raise ValueError(f"A Hermitian matrix is square, but the shape is {list(matrix.shape)}.")
    if isinstance(matrix, Dense):
        a = matrix.tensor.detach()
        size = 100 * torch.finfo(a.dtype).eps * matrix.frobenius()
        is_hermitian = not bool((frobenius_norm(a - a.mH) > size).any())
    else:
        itself = Operator(matrix.shape, matrix.matmat, matrix.matmat, matrix.dtype, matrix.device)
        try:
            _check_adjoint(itself, generator)
            is_hermitian = True
        except ValueError:
            check_adjoint(matrix, generator)  # NaN and Inf have their own sentence
            is_hermitian = False
    if not is_hermitian:
        raise ValueError(
            "The matrix differs from its conjugate transpose: give (A + A.mH) / 2 if it should not."
        )


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
