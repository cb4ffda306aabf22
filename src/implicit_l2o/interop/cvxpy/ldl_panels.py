"""Panels: neighbouring columns of a factor with one pattern, which update later columns by products of dense matrices.

Four rows and four columns of a product are kept in registers while the panel's columns go by, which takes half a load a
multiplication where one column after the other takes two.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from implicit_l2o._numba import compiled
from implicit_l2o.interop.cvxpy.ldl_vectors import VECTOR as _VECTOR
from implicit_l2o.interop.cvxpy.ldl_vectors import data, intrinsic, load, row
from implicit_l2o.interop.cvxpy.room_kernels import room_for

_WIDEST = 24  # columns, which within a panel are taken one by one
_WORTH = 256  # multiplications of a product, below which one column after the other is taken


class Panels(NamedTuple):
    """Of one factor, and the blocks by which earlier panels update later ones.

    Attributes:
        first: by column, the first one of its panel.
        blocked: by place in the first column of a panel, whether that row belongs to a block.
        start: by column, where the blocks start that update the panel which begins there.
        columns: of a block: the first one of its panel ...
        depth: ... how many there are ...
        place: ... and the place in the first of them of the first row that is in the updated panel.
    """

    first: np.ndarray
    blocked: np.ndarray
    start: np.ndarray
    columns: np.ndarray
    depth: np.ndarray
    place: np.ndarray


@compiled
def panels(joined, columns, below):
    """Find the panels, and what is worth a product."""
    size = len(joined)
    first, width = np.empty(size, np.int64), np.zeros(size, np.int64)
    for k in range(size):
        first[k] = first[k - 1] if k > 0 and joined[k] and width[first[k - 1]] < _WIDEST else k
        width[first[k]] += 1
    blocked, start = np.zeros(len(below), np.bool_), np.zeros(size + 1, np.int64)
    for k in range(size):
        p, stop = columns[k], columns[k + 1]
        while first[k] == k and p < stop:
            j, begin = first[below[p]], p
            while p < stop and first[below[p]] == j:
                p += 1
            if j != k and width[k] > 1 and width[k] * (p - begin) * (stop - begin) >= _WORTH:
                blocked[begin:p] = True
                start[j + 1] += 1
    for j in range(size):
        start[j + 1] += start[j]
    own, depth, place = (
        np.empty(start[size], np.int64),
        np.empty(start[size], np.int64),
        np.empty(start[size], np.int64),
    )
    filled = np.zeros(size, np.int64)
    for k in range(size):
        for p in range(columns[k], columns[k + 1] if first[k] == k else columns[k]):
            j = first[below[p]]
            if blocked[p] and (p == columns[k] or first[below[p - 1]] != j):
                at = start[j] + filled[j]
                own[at], depth[at], place[at] = k, width[k], p
                filled[j] += 1
    return Panels(first, blocked, start, own, depth, place)


@compiled
def single(t, columns, k, p):
    """Whether the entry at a place of column `k` is taken with that column alone."""
    return not t.blocked[columns[t.first[k]] + p - columns[k] + k - t.first[k]]


class Room(NamedTuple):
    """For the updates of one factorisation."""

    relative: np.ndarray
    factors: np.ndarray
    corner: np.ndarray
    bases: np.ndarray


@compiled
def room_of(t):
    """Room."""
    some = 1 if len(t.depth) else 0
    relative, bases = np.empty(some * len(t.first), np.int32), np.empty(_WIDEST, np.int64)
    return Room(relative, room_for(some * _WIDEST * _WIDEST), room_for(16), bases)


def _sums(
    builder: Any, rows: int, columns: int, low: Any, place: Any, count: Any, factors: Any, f: Any, depth: Any
) -> Any:
    """`sum_t low[p_t + v] * factors[f + _WIDEST t + u]` for all v and u, where `p_t` moves down by one less each time."""
    i64 = ir.IntType(64)
    totals = [cgutils.alloca_once(builder, _VECTOR) for _ in range(rows * columns)]
    for total in totals:
        builder.store(ir.Constant(_VECTOR, [0.0] * 8), total)
    at = cgutils.alloca_once_value(builder, place)
    with cgutils.for_range(builder, depth) as loop:
        p = builder.load(at)
        first = builder.add(f, builder.mul(loop.index, ir.Constant(i64, _WIDEST)))
        lows = [load(builder, row(builder, low, builder.add(p, ir.Constant(i64, v)))) for v in range(rows)]
        by = [load(builder, row(builder, factors, builder.add(first, ir.Constant(i64, u)))) for u in range(columns)]
        for v in range(rows):
            for u in range(columns):
                total = totals[v * columns + u]
                term = builder.fmul(lows[v], by[u], flags=("contract",))
                builder.store(builder.fadd(builder.load(total), term, flags=("contract",)), total)
        left = builder.sub(builder.sub(count, loop.index), ir.Constant(i64, 1))
        builder.store(builder.add(p, left), at)
    return [builder.load(total) for total in totals]


def _product(rows: int, columns: int) -> Any:
    @intrinsic
    def product(typing: Any, low: Any, p: Any, count: Any, factors: Any, f: Any, depth: Any, out: Any) -> Any:
        """`out[v * columns + u]`: the sums."""

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            of_low, of_factors, to = (data(context, builder, kinds[a], arguments[a]) for a in (0, 3, 6))
            _, p, count, _, f, depth, _ = arguments
            for at, total in enumerate(_sums(builder, rows, columns, of_low, p, count, of_factors, f, depth)):
                builder.store(total, row(builder, to, ir.Constant(ir.IntType(64), at)), align=8)
            return context.get_dummy_value()

        i64 = types.int64
        return types.none(low, i64, i64, factors, i64, i64, out), code

    return product


def _subtracted(rows: int, columns: int) -> Any:
    @intrinsic
    def subtracted(
        typing: Any,
        low: Any,
        p: Any,
        count: Any,
        factors: Any,
        f: Any,
        depth: Any,
        bases: Any,
        below: Any,
        relative: Any,
    ) -> Any:
        """Subtract the sums from `low[bases[f + u] + relative[below[p + v]]]`."""

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds, i64 = signature.args, ir.IntType(64)
            places = (data(context, builder, kinds[a], arguments[a]) for a in (0, 3, 6, 7, 8))
            of_low, of_factors, of_bases, of_below, of_relative = places
            _, p, count, _, f, depth, *_ = arguments
            totals = _sums(builder, rows, columns, of_low, p, count, of_factors, f, depth)
            own = []
            for v in range(rows):
                below = builder.load(builder.gep(of_below, [builder.add(p, ir.Constant(i64, v))]))
                own.append(builder.sext(builder.load(builder.gep(of_relative, [builder.sext(below, i64)])), i64))
            for u in range(columns):
                base = builder.load(builder.gep(of_bases, [builder.add(f, ir.Constant(i64, u))]))
                for v in range(rows):
                    place = row(builder, of_low, builder.add(base, own[v]))
                    builder.store(builder.fsub(load(builder, place), totals[v * columns + u]), place, align=8)
            return context.get_dummy_value()

        i64 = types.int64
        return types.none(low, i64, i64, factors, i64, i64, bases, below, relative), code

    return subtracted


_corner, _corner_one = _product(4, 4), _product(1, 1)
_four_by_four, _four_by_one, _one_by_four, _one_by_one = (
    _subtracted(v, u) for v, u in ((4, 4), (4, 1), (1, 4), (1, 1))
)


@intrinsic
def _subtract(typing: Any, to: Any, i: Any, x: Any, j: Any) -> Any:
    """`to[i] -= x[j]`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        place = row(builder, data(context, builder, kinds[0], arguments[0]), arguments[1])
        other = load(builder, row(builder, data(context, builder, kinds[2], arguments[2]), arguments[3]))
        builder.store(builder.fsub(load(builder, place), other), place, align=8)
        return context.get_dummy_value()

    return types.none(to, types.int64, x, types.int64), code


@intrinsic
def _scaled(typing: Any, x: Any, i: Any, y: Any, j: Any, out: Any, o: Any) -> Any:
    """`out[o] = x[i] * y[j]`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        one, other, to = (
            row(builder, data(context, builder, kinds[a], arguments[a]), arguments[a + 1]) for a in (0, 2, 4)
        )
        builder.store(builder.fmul(load(builder, one), load(builder, other)), to, align=8)
        return context.get_dummy_value()

    return types.none(x, types.int64, y, types.int64, out, types.int64), code


@compiled
def update(t, columns, below, low, diagonal, j, room, limit):
    """Subtract from the panel that starts at `j` what its blocks before the column `limit` give."""
    relative, factors, corner, bases = room
    relative[j] = -1
    for p in range(columns[j], columns[j + 1]):
        relative[below[p]] = p - columns[j]
    for b in range(t.start[j], t.start[j + 1]):
        k, depth = t.columns[b], t.depth[b]
        if k >= limit:
            break
        count, begin = columns[k + 1] - columns[k], t.place[b] - columns[k]
        stop = begin
        while stop < count and t.first[below[columns[k] + stop]] == j:
            column = below[columns[k] + stop]
            bases[stop - begin] = columns[column] - (column - j)
            for s in range(depth):
                _scaled(low, columns[k + s] + stop - s, diagonal, k + s, factors, s * _WIDEST + stop - begin)
            stop += 1
        u = begin
        while u < stop:
            p, f = columns[k] + u, u - begin
            many = 4 if u + 4 <= stop else 1
            # The corner of the diagonal: its lower half.
            if many == 4:
                _corner(low, p, count, factors, f, depth, corner)
            else:
                _corner_one(low, p, count, factors, f, depth, corner)
            for c in range(many):
                _subtract(diagonal, below[p + c], corner, c * many + c)
                for r in range(c + 1, many):
                    _subtract(low, bases[f + c] + relative[below[p + r]], corner, r * many + c)
            v = u + many
            while v < count:
                p = columns[k] + v
                if v + 4 <= count and many == 4:
                    _four_by_four(low, p, count, factors, f, depth, bases, below, relative)
                elif v + 4 <= count:
                    _four_by_one(low, p, count, factors, f, depth, bases, below, relative)
                elif many == 4:
                    _one_by_four(low, p, count, factors, f, depth, bases, below, relative)
                else:
                    _one_by_one(low, p, count, factors, f, depth, bases, below, relative)
                v += 4 if v + 4 <= count else 1
            u += many
