"""Numbers as a reader wants them: four digits, no false precision, a dash for what is missing."""

import math

MISSING = "–"  # noqa: RUF001, an en dash
_DIGITS = 4


def value(number: float | None) -> str:
    """Four significant digits, scientific outside [1e-3, 1e5); the page's script writes numbers by the same rule.

    Example:
        >>> from implicit_l2o.report.numbers import value
        >>> [value(x) for x in (0.98765, 12.0, 1234.5, 3.2e-7, 0.0, None, float("nan"))]
        ['0.9877', '12.00', '1234', '3.200e-7', '0', '–', '–']
    """
    if number is None or not math.isfinite(number):
        return MISSING
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.{_DIGITS - 1}e}".split("e")
    power = int(exponent)
    if -3 <= power < 5:
        return f"{number:.{max(0, _DIGITS - 1 - power)}f}"
    return f"{mantissa}e{power}"


def short(number: float | None) -> str:
    """Four significant digits without the zeros at their end, for limits that somebody set.

    Example:
        >>> from implicit_l2o.report.numbers import short
        >>> short(0.001), short(0.41217), short(2.0), short(1e-6)
        ('0.001', '0.4122', '2', '1e-6')
    """
    written, e, power = value(number).partition("e")
    return (written.rstrip("0").rstrip(".") if "." in written else written) + e + power


def count(number: float | None) -> str:
    """A whole number with its thousands set apart.

    Example:
        >>> from implicit_l2o.report.numbers import count
        >>> count(35856), count(None)
        ('35,856', '–')
    """
    return MISSING if number is None or not math.isfinite(number) else f"{round(number):,}"


def share(part: float | None) -> str:
    """A share in percent; only a whole is 100 %, and only nothing is 0 %.

    Example:
        >>> from implicit_l2o.report.numbers import share
        >>> share(1.0), share(0.99999), share(0.123), share(1e-6), share(0.0)
        ('100 %', '> 99.9 %', '12.3 %', '< 0.1 %', '0 %')
    """
    if part is None or not math.isfinite(part):
        return MISSING
    if 0.999 < part < 1:
        return "> 99.9 %"
    if 0 < part < 0.001:
        return "< 0.1 %"
    return f"{100 * part:.1f}".removesuffix(".0") + " %"


def duration(seconds: float | None) -> str:
    """A time in the largest unit that keeps it readable.

    Example:
        >>> from implicit_l2o.report.numbers import duration
        >>> [duration(x) for x in (0.0123, 4.56, 61.2, 4020.0, None)]
        ['12.3 ms', '4.56 s', '1 min 1 s', '1 h 7 min', '–']
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(size: float | None) -> str:
    """Bytes in decimal units.

    Example:
        >>> from implicit_l2o.report.numbers import memory
        >>> memory(512), memory(5_600_000), memory(1.25e9)
        ('512 B', '5.6 MB', '1.2 GB')
    """
    if size is None or not math.isfinite(size):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def column(numbers: list[float | None]) -> list[str]:
    """One column of a table with common decimals, so that its numbers compare at a glance.

    Example:
        >>> from implicit_l2o.report.numbers import column
        >>> column([0.98333, 0.1, None])
        ['0.9833', '0.1000', '–']
    """
    finite = [abs(n) for n in numbers if n is not None and math.isfinite(n)]
    largest = max(finite, default=0.0)
    if not 1e-3 <= largest < 1e5:
        return [value(n) for n in numbers]
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(largest)))
    smallest = 10.0**-decimals  # what is smaller would be written as a zero
    return [
        value(n) if n is None or not math.isfinite(n) or 0 < abs(n) < smallest else f"{n:.{decimals}f}" for n in numbers
    ]
