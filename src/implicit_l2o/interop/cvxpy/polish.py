"""Newton's method on the optimality conditions, from a rough solution to about the rounding of the data."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from implicit_l2o.interop.cvxpy import projections
from implicit_l2o.interop.cvxpy.kkt import KKT, Sample
from implicit_l2o.interop.cvxpy.program import ConePrograms

_ROUNDING = 1e2  # of the goal: where a step that is no better is the last one


def polish(
    programs: ConePrograms, x: np.ndarray, w: np.ndarray, *, steps: int, goal: Float[np.ndarray, " B"]
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " B"], KKT | None]:
    """Newton steps on `F`; the best point that they come across.

    Returns:
        The points, `|F|`, and the factored equations where they are those of the points that are returned.
    """
    residual = _norms(*programs.residuals(x, w, project(programs, w)))
    best_x, best_w, best = x.copy(), w.copy(), residual
    kkt: KKT | None = None
    own, factored = programs, _Factored([None] * len(w), np.zeros(w.shape, bool))
    open_ = np.flatnonzero(best > goal)
    kept = open_
    for _ in range(steps):
        if not len(open_):
            break
        if len(kept) < len(own):
            own, x, w = programs.take(open_), x[kept], w[kept]
            kkt = None if kkt is None else kkt.take(kept)
        s = project(own, w)
        kkt = KKT.at(own, w, kkt)
        factored.write(open_, kkt)
        dx, dw, _ = kkt.solve(*(-part for part in own.residuals(x, w, s)), transposed=False)
        # A full step, even where |F| grows at first: that is how the set of active constraints is found.
        x_new, w_new = x + dx, w + dw
        new = _norms(*own.residuals(x_new, w_new, project(own, w_new)))
        better: Bool[np.ndarray, " k"] = new < best[open_]
        at = open_[better]
        best_x[at], best_w[at], best[at] = x_new[better], w_new[better], new[better]
        # Near the rounding of the data nothing gets better, and no number comes from no number.
        kept = np.flatnonzero(
            (new > goal[open_]) & np.isfinite(new) & (better | (best[open_] > _ROUNDING * goal[open_]))
        )
        open_ = open_[kept]
        x, w = x_new, w_new
    if kkt is not None and (kkt.batch is None or len(own) < len(programs)):
        kkt = factored.whole()
    return best_x, best_w, best, kkt


@dataclass(frozen=True, eq=False)
class _Factored:
    """The latest factors of every sample, while some of them are dropped from the polish."""

    samples: "list[Sample | None]"
    signs: Bool[np.ndarray, "B m"]

    def write(self, index: np.ndarray, kkt: KKT) -> None:
        self.signs[index] = kkt.signs
        for place, i in enumerate(index.tolist()):
            self.samples[i] = None if kkt.samples is None else kkt.samples[place]

    def whole(self) -> KKT | None:
        """The equations of all samples, where all of them were factored one by one."""
        found = [sample for sample in self.samples if sample is not None]
        return KKT(found, None, self.signs) if len(found) == len(self.samples) else None


def project(programs: ConePrograms, w: Float[np.ndarray, "B m"]) -> Float[np.ndarray, "B m"]:
    """The nearest points of the cones."""
    return projections.project(programs.cones, w)


def _norms(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(top).sum(1) + np.square(bottom).sum(1))
