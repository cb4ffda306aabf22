"""What it costs to travel along a link, as an increasing function of the flow on that link alone.

Source: Bureau of Public Roads, Traffic Assignment Manual (1964), for the usual polynomial.
"""

from dataclasses import dataclass
from typing import Self, final

import numpy as np
from jaxtyping import Float


@final
@dataclass(frozen=True, eq=False)
class PolynomialLatency:
    """Travel times that grow with the flow, `t_e(v) = constant_e + sum_k coefficient_ek (v_e / scale_e)^power_ek`.

    The function of the Bureau of Public Roads, `t0 (1 + b (v / capacity)^power)`, has one term: constant `t0`, coefficient
    `b t0`, scale the capacity. Times never decrease in the flow, so that the equilibrium of a network minimises Beckmann's
    objective `sum_e integral_0^v_e t_e`; where they increase, its link flows are unique.

    Args:
        constant: time at flow 0, at least 0 and finite.
        coefficient: at least 0 and finite, in units of time; one column a term.
        scale: the flow at which a term adds its coefficient; positive.
        power: of every term, 0 or at least 1. A power of 0 adds a constant.

    Every array may have leading dimensions for a batch, the same in all four.

    Raises:
        ValueError: the shapes do not fit each other, or a value is outside its range.

    Example:
        >>> import numpy as np
        >>> from implicit_l2o.games import PolynomialLatency
        >>> latency = PolynomialLatency(np.array([2.0]), np.array([[0.3]]), np.array([10.0]), np.array([[4.0]]))
        >>> latency.value(np.array([20.0])), latency.integral(np.array([20.0])), latency.slope(np.array([20.0]))
        (array([6.8]), array([59.2]), array([0.96]))
    """

    constant: Float[np.ndarray, "*batch E"]
    coefficient: Float[np.ndarray, "*batch E K"]
    scale: Float[np.ndarray, "*batch E"]
    power: Float[np.ndarray, "*batch E K"]

    def __post_init__(self) -> None:
        for name in ("constant", "coefficient", "scale", "power"):
            # Writable, so that the compiled solver has one form of them to take.
            object.__setattr__(self, name, np.require(getattr(self, name), np.float64, ["C", "W"]))
        shape = self.constant.shape
        fits = len(shape) > 0 and self.scale.shape == shape and self.coefficient.shape[:-1] == shape
        if not (fits and self.coefficient.shape == self.power.shape):
            found = {name: getattr(self, name).shape for name in ("constant", "coefficient", "scale", "power")}
            raise ValueError(
                f"PolynomialLatency takes constant and scale (..., E), coefficient and power (..., E, K); got {found}."
            )
        for name, permitted, holds in (
            ("constant", "finite values >= 0", self.constant >= 0),
            ("coefficient", "finite values >= 0", self.coefficient >= 0),
            ("scale", "finite values > 0", self.scale > 0),
            ("power", "powers that are 0 or >= 1, and finite", (self.power == 0) | (self.power >= 1)),
        ):
            values = getattr(self, name)
            wrong = np.argwhere(~(holds & np.isfinite(values)))
            if len(wrong):
                at = tuple(int(i) for i in wrong[0])
                raise ValueError(f"PolynomialLatency needs as {name} {permitted}; got {float(values[at])} at {at}.")

    @property
    def edges(self) -> int:
        """Number of links."""
        return self.constant.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading dimensions; empty for the latencies of one network."""
        return self.constant.shape[:-1]

    @property
    def constant_links(self) -> np.ndarray:
        """Which links, `(..., E)`, take the same time at every flow: the equilibrium flow there need not be unique."""
        return ((self.coefficient == 0) | (self.power == 0)).all(-1)

    def __getitem__(self, index: int | slice | np.ndarray) -> Self:
        """Some members of a batch."""
        if not self.batch:
            raise IndexError("this PolynomialLatency has no batch; index one of shape (B, E).")
        return type(self)(self.constant[index], self.coefficient[index], self.scale[index], self.power[index])

    def value(self, flow: Float[np.ndarray, "*flows E"]) -> Float[np.ndarray, "*batch E"]:
        """Travel times at flows that are not negative; the flows' leading dimensions are broadcast with the latencies'."""
        return self.constant + (self.coefficient * self._ratio(flow) ** self.power).sum(-1)

    def integral(self, flow: Float[np.ndarray, "*flows E"]) -> Float[np.ndarray, "*batch E"]:
        """Every link's part of Beckmann's objective, the integral of its time from 0 to its flow."""
        ratio = self._ratio(flow)
        return flow * (self.constant + (self.coefficient * ratio**self.power / (self.power + 1)).sum(-1))

    def slope(self, flow: Float[np.ndarray, "*flows E"]) -> Float[np.ndarray, "*batch E"]:
        """Derivative of the travel times in the flow."""
        lower = np.maximum(self.power - 1, 0.0)
        return (self.coefficient * self.power * self._ratio(flow) ** lower).sum(-1) / self.scale

    def _ratio(self, flow: np.ndarray) -> np.ndarray:
        flow = np.asarray(flow, dtype=np.float64)
        if flow.shape[-1:] != (self.edges,):
            raise ValueError(f"this PolynomialLatency takes flows of {self.edges} links; got shape {flow.shape}.")
        if (flow < 0).any():
            raise ValueError(f"travel times are of flows >= 0; got {float(flow.min())}.")
        return (flow / self.scale)[..., None]
