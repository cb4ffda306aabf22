"""Time and slope of a link at its flow, compiled; see `PolynomialLatency`."""

from implicit_l2o._numba import compiled


@compiled
def evaluate(e, flow, constant, coefficient, scale, power, time, slope):
    """Time and slope of one link at its flow."""
    ratio = flow[e] / scale[e]
    t = constant[e]
    s = 0.0
    for k in range(power.shape[1]):
        p = power[e, k]
        c = coefficient[e, k]
        if c == 0.0:
            continue
        if p == 4.0:
            low = ratio * ratio * ratio
        elif p == 1.0:
            low = 1.0
        elif p == 0.0:
            t += c
            continue
        else:
            low = ratio ** (p - 1.0)
        t += c * low * ratio
        s += c * p * low
    time[e] = t
    slope[e] = s / scale[e]


@compiled
def evaluate_all(flow, constant, coefficient, scale, power, time, slope):
    """Time and slope of every link."""
    for e in range(flow.shape[0]):
        evaluate(e, flow, constant, coefficient, scale, power, time, slope)


@compiled
def time_at(e, v, constant, coefficient, scale, power):
    """Time of one link at flow `v`."""
    ratio = max(v, 0.0) / scale[e]
    t = constant[e]
    for k in range(power.shape[1]):
        p = power[e, k]
        if p == 4.0:
            square = ratio * ratio
            t += coefficient[e, k] * square * square
        elif p == 1.0:
            t += coefficient[e, k] * ratio
        elif coefficient[e, k] != 0.0:
            t += coefficient[e, k] * ratio**p
    return t
