"""Loops over rows of eight numbers, as `ldl_vectors` has them, for small matrices whose rows follow each other."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from implicit_l2o.interop.cvxpy.ldl_vectors import VECTOR as _VECTOR
from implicit_l2o.interop.cvxpy.ldl_vectors import data, intrinsic, load, row


@intrinsic
def add_scaled(typing: Any, out: Any, o: Any, a: Any, i: Any, x: Any, j: Any, count: Any) -> Any:
    """`out[o + t] += a[i] * x[j + t]` for `t < count`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        to, of_a, of_x = (data(context, builder, kinds[k], arguments[k]) for k in (0, 2, 4))
        by = load(builder, row(builder, of_a, arguments[3]))
        with cgutils.for_range(builder, arguments[6]) as loop:
            place = row(builder, to, builder.add(arguments[1], loop.index))
            other = load(builder, row(builder, of_x, builder.add(arguments[5], loop.index)))
            product = builder.fmul(by, other, flags=("contract",))
            builder.store(builder.fadd(load(builder, place), product, flags=("contract",)), place, align=8)
        return context.get_dummy_value()

    i64 = types.int64
    return types.none(out, i64, a, i64, x, i64, i64), code


@intrinsic
def dot(typing: Any, out: Any, o: Any, x: Any, i: Any, y: Any, j: Any, count: Any) -> Any:
    """`out[o]`: the sum of `x[i + t] * y[j + t]` for `t < count`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        to, of_x, of_y = (data(context, builder, kinds[k], arguments[k]) for k in (0, 2, 4))
        total = cgutils.alloca_once(builder, _VECTOR)
        builder.store(ir.Constant(_VECTOR, [0.0] * 8), total)
        with cgutils.for_range(builder, arguments[6]) as loop:
            one = load(builder, row(builder, of_x, builder.add(arguments[3], loop.index)))
            other = load(builder, row(builder, of_y, builder.add(arguments[5], loop.index)))
            product = builder.fmul(one, other, flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        builder.store(builder.load(total), row(builder, to, arguments[1]), align=8)
        return context.get_dummy_value()

    i64 = types.int64
    return types.none(out, i64, x, i64, y, i64, i64), code


@intrinsic
def rotate(typing: Any, x: Any, i: Any, j: Any, count: Any, turn: Any) -> Any:
    """`x[i + t], x[j + t] = c x[i + t] - s x[j + t], s x[i + t] + c x[j + t]` for `t < count`, `turn` being `c` and `s`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        of_x, of_turn = (data(context, builder, kinds[k], arguments[k]) for k in (0, 4))
        c, s = (load(builder, row(builder, of_turn, ir.Constant(ir.IntType(64), k))) for k in (0, 1))
        with cgutils.for_range(builder, arguments[3]) as loop:
            first = row(builder, of_x, builder.add(arguments[1], loop.index))
            second = row(builder, of_x, builder.add(arguments[2], loop.index))
            p, q = load(builder, first), load(builder, second)
            turned = builder.fsub(builder.fmul(c, p), builder.fmul(s, q), flags=("contract",))
            builder.store(builder.fadd(builder.fmul(s, p), builder.fmul(c, q), flags=("contract",)), second, align=8)
            builder.store(turned, first, align=8)
        return context.get_dummy_value()

    i64 = types.int64
    return types.none(x, i64, i64, i64, turn), code
