"""Loops over rows of eight numbers as vector instructions, which numba does not make of plain loops.

Each is written in LLVM's own language: with it a factorisation takes a fraction of the time.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic  # whose functions take one argument less than they declare
VECTOR = ir.VectorType(ir.DoubleType(), 8)


def data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """The address of the first number."""
    return context.make_array(kind)(context, builder, array).data


def row(builder: Any, base: Any, index: Any) -> Any:
    """The address of a row of eight."""
    place = builder.gep(base, [builder.mul(index, ir.Constant(index.type, 8))])
    return builder.bitcast(place, VECTOR.as_pointer())


def load(builder: Any, address: Any) -> Any:
    """Eight numbers."""
    return builder.load(address, align=8)


def _below(builder: Any, base: Any, index: Any) -> Any:
    return builder.sext(builder.load(builder.gep(base, [index])), ir.IntType(64))


@intrinsic
def subtract_column(typing: Any, work: Any, below: Any, low: Any, start: Any, stop: Any, factor: Any, k: Any) -> Any:
    """`work[below[p]] -= low[p] * factor[k]` for `start <= p < stop`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        to, of_rows, of_low, of_factor = (data(context, builder, kinds[a], arguments[a]) for a in (0, 1, 2, 5))
        d = load(builder, row(builder, of_factor, arguments[6]))
        with cgutils.for_range_slice(builder, arguments[3], arguments[4], ir.Constant(ir.IntType(64), 1)) as (p, _):
            address = row(builder, to, _below(builder, of_rows, p))
            product = builder.fmul(load(builder, row(builder, of_low, p)), d, flags=("contract",))
            builder.store(builder.fsub(load(builder, address), product, flags=("contract",)), address, align=8)
        return context.get_dummy_value()

    return types.none(work, below, low, types.int64, types.int64, factor, types.int64), code


@intrinsic
def subtract_columns(
    typing: Any, work: Any, below: Any, low: Any, first: Any, second: Any, count: Any, factor: Any
) -> Any:
    """`work[below[first + t]] -= low[first + t] * factor[0] + low[second + t] * factor[1]` for `t < count`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        to, of_rows, of_low, of_factor = (data(context, builder, kinds[a], arguments[a]) for a in (0, 1, 2, 6))
        d, e = (load(builder, row(builder, of_factor, ir.Constant(ir.IntType(64), k))) for k in (0, 1))
        with cgutils.for_range(builder, arguments[5]) as loop:
            p, o = builder.add(arguments[3], loop.index), builder.add(arguments[4], loop.index)
            address = row(builder, to, _below(builder, of_rows, p))
            one = builder.fmul(load(builder, row(builder, of_low, p)), d, flags=("contract",))
            other = builder.fmul(load(builder, row(builder, of_low, o)), e, flags=("contract",))
            rest = builder.fsub(load(builder, address), one, flags=("contract",))
            builder.store(builder.fsub(rest, other, flags=("contract",)), address, align=8)
        return context.get_dummy_value()

    return types.none(work, below, low, types.int64, types.int64, types.int64, factor), code


@intrinsic
def subtract_products(typing: Any, v: Any, j: Any, below: Any, low: Any, start: Any, stop: Any) -> Any:
    """`v[j] -= low[p] * v[below[p]]` for `start <= p < stop`, where no `below[p]` is j."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        of_v, of_rows, of_low = (data(context, builder, kinds[a], arguments[a]) for a in (0, 2, 3))
        total = cgutils.alloca_once(builder, VECTOR)
        place = row(builder, of_v, arguments[1])
        builder.store(load(builder, place), total)
        with cgutils.for_range_slice(builder, arguments[4], arguments[5], ir.Constant(ir.IntType(64), 1)) as (p, _):
            other = load(builder, row(builder, of_v, _below(builder, of_rows, p)))
            product = builder.fmul(load(builder, row(builder, of_low, p)), other, flags=("contract",))
            builder.store(builder.fsub(builder.load(total), product, flags=("contract",)), total)
        builder.store(builder.load(total), place, align=8)
        return context.get_dummy_value()

    return types.none(v, types.int64, below, low, types.int64, types.int64), code


@intrinsic
def scale_rows(typing: Any, low: Any, work: Any, below: Any, start: Any, stop: Any, inverse: Any) -> Any:
    """`low[p] = (low[p] + work[below[p]]) * inverse[0]`, and zero to that row of `work`, for `start <= p < stop`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        of_low, of_work, of_rows, of_inverse = (data(context, builder, kinds[a], arguments[a]) for a in (0, 1, 2, 5))
        d = load(builder, row(builder, of_inverse, ir.Constant(ir.IntType(64), 0)))
        with cgutils.for_range_slice(builder, arguments[3], arguments[4], ir.Constant(ir.IntType(64), 1)) as (p, _):
            place, other = row(builder, of_low, p), row(builder, of_work, _below(builder, of_rows, p))
            builder.store(builder.fmul(builder.fadd(load(builder, place), load(builder, other)), d), place, align=8)
            builder.store(ir.Constant(VECTOR, [0.0] * 8), other, align=8)
        return context.get_dummy_value()

    return types.none(low, work, below, types.int64, types.int64, inverse), code


@intrinsic
def add_products(typing: Any, rows: Any, columns: Any, own: Any, v: Any, w: Any, start: Any, stop: Any) -> Any:
    """`w[rows[e]] += own[e] * v[columns[e]]` and the other way round, for `start <= e < stop`: twice on a diagonal."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        of_rows, of_columns, of_own, of_v, of_w = (data(context, builder, kinds[a], arguments[a]) for a in range(5))
        with cgutils.for_range_slice(builder, arguments[5], arguments[6], ir.Constant(ir.IntType(64), 1)) as (e, _):
            ends = _below(builder, of_rows, e), _below(builder, of_columns, e)
            by = load(builder, row(builder, of_own, e))
            for one, other in (ends, ends[::-1]):
                place = row(builder, of_w, one)
                product = builder.fmul(by, load(builder, row(builder, of_v, other)), flags=("contract",))
                builder.store(builder.fadd(load(builder, place), product, flags=("contract",)), place, align=8)
        return context.get_dummy_value()

    return types.none(rows, columns, own, v, w, types.int64, types.int64), code
