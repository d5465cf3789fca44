"""Bytes, seconds and metrics as people read them: numbers -> *words*."""

from __future__ import annotations

__all__ = ["age", "amount", "metric"]

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def amount(nbytes: int) -> str:
    """Return a number of bytes in a unit that keeps it short.

    >>> amount(42), amount(1_500), amount(3_200_000_000)
    ('42 B', '1.5 kB', '3.2 GB')
    """
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def age(seconds: float) -> str:
    """Return a length of time in its largest unit.

    >>> age(0.2), age(59), age(3 * 3600 + 5), age(-1)
    ('now', '59 s', '3 h', 'now')
    """
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def metric(value: float | None) -> str:
    """Return the value of a metric; nothing where there is none.

    >>> metric(0.123456), metric(None), metric(float("nan"))
    ('0.1235', '', 'nan')
    """
    return "" if value is None else f"{value:.4g}"
