r"""The error function and its complement for arrays, since NumPy has neither.

``erf(x)  = 2 / sqrt(pi) * integral of exp(-u^2) from 0 to x``   and   ``erfc(x) = 1 - erf(x)``.

Far from zero ``erfc`` is the quantity to compute: ``1 - erf(6)`` is 0 in float32, ``erfc(6)`` is 2e-17. For z >= 0,

    erfc(z) = exp(-z^2) * t * P(s),     t = 1 / (1 + z / 2) in (0, 1],     s = t mapped linearly onto [-1, 1],

where ``P`` is the polynomial that interpolates ``erfc(z) * exp(z^2) / t`` at Chebyshev nodes: that quotient varies only
between 1 at z = 0 and 0.28 at infinity, so few coefficients reach full relative accuracy everywhere, tails included.
The coefficients were computed with 40 digits; the tests compare with the C library's ``erf`` and ``erfc``.
"""

from __future__ import annotations

import math

from minitl.kernels.launch import Array, array_module

#: dtype name -> (largest z of the fit, coefficients of P in ascending powers of s)
TAILS: dict[str, tuple[float, tuple[float, ...]]] = {
    "float32": (
        10.5,
        (
            *(0.5694087225293486, 0.3271879066238105, 0.10352098777455442, 0.006308424428817196),
            *(-0.006327281648792511, -0.0006748691215821339, 0.0006249549825327274, 9.800382626950273e-06),
            *(-7.086763587579223e-05, 6.5530306977879605e-06, 5.670811180998836e-06),
        ),
    ),
    "float64": (
        27.5,
        (
            *(0.5347326614946255, 0.3381708758159428, 0.1243854873491855, 0.01228532466585886),
            *(-0.008867830708817716, -0.0018136980301492452, 0.0011163836252427758, 0.00014593870185346846),
            *(-0.0001870841568459155, 1.4271929001085402e-05, 2.8203128547206853e-05, -1.0680543261993442e-05),
            *(-1.8082786088781292e-06, 2.7358072328419504e-06, -7.043257990418815e-07, -2.743319066834867e-07),
            *(2.7710689735594563e-07, -7.481767500979109e-08, -2.976523756450112e-08, 3.792895701313822e-08),
            *(-9.632748273367956e-09, -7.115984481462787e-09, 4.153445278658981e-09, 5.285971914564827e-10),
            *(-5.283520673383647e-10,),
        ),
    ),
}

# Maclaurin series: erf(x) = 2 / sqrt(pi) * sum_n (-1)^n x^(2n + 1) / (n! (2n + 1)). For |x| <= 1 the terms fall below
# float64's rounding at n = 18.
_MACLAURIN = tuple(2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(19))


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    """Evaluate ``c[0] + c[1] x + c[2] x^2 + ...`` with one multiplication and one addition per power."""
    total = array_module(x).full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


def _erfc_without_exponential(z: Array) -> Array:
    """Return ``erfc(z) * exp(z^2)`` for z >= 0."""
    largest, coefficients = TAILS[z.dtype.name]
    t = 1 / (1 + z / 2)
    smallest = 1 / (1 + largest / 2)
    product = _horner(coefficients, (t - (1 + smallest) / 2) * (2 / (1 - smallest)))
    product *= t
    return product


def erfc(x: Array) -> Array:
    """Return ``1 - erf(x)``, elementwise, with a small *relative* error in both tails; float32 or float64."""
    xp = array_module(x)
    z = xp.minimum(xp.abs(x), 30.0)  # exp(-900) is 0 in float64: no result changes, and z * z cannot overflow
    upper = _erfc_without_exponential(z) * xp.exp(-z * z)
    return xp.where(x >= 0, upper, 2 - upper)


def normal_distribution(u: Array) -> tuple[Array, Array]:
    """Return the normal distribution function and density of ``u``: ``erfc(-u / sqrt(2)) / 2`` and ``exp(-u^2 / 2) /
    sqrt(2 pi)``.

    One exponential serves both. Taking it of ``-u^2 / 2`` and not of ``-(u / sqrt(2))^2`` saves a rounding, which the
    exponential would magnify a hundredfold at u = -12.
    """
    xp = array_module(u)
    size = xp.minimum(xp.abs(u), 42.0)  # as in erfc: 42 = 30 * sqrt(2)
    exponential = xp.exp(-0.5 * size * size)
    tail = 0.5 * _erfc_without_exponential(size * math.sqrt(0.5)) * exponential
    # tail below 0, 1 - tail above, by arithmetic: where() takes a branch for every element, slow when signs are random
    below = (u < 0).astype(u.dtype)
    distribution = (1 - below) + (2 * below - 1) * tail
    return distribution, exponential * (1 / math.sqrt(2 * math.pi))


def erf(x: Array) -> Array:
    """Return the error function of ``x``, elementwise, with a small relative error also near 0; float32 or float64."""
    xp = array_module(x)
    small = xp.clip(x, -1.0, 1.0)
    near_zero = small * _horner(_MACLAURIN, small * small)
    far = 1 - erfc(xp.abs(x))
    return xp.where(xp.abs(x) <= 1, near_zero, xp.where(x > 0, far, -far))
