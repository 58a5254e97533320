"""Elementary functions, sums and maxima for compiled kernels, written so that a whole vector register is done at once.

The C library computes one number a call, 10 to 30 times slower than a polynomial that a loop over an array evaluates
for 8 or 16 numbers together. Each elementary function here has two bodies and the type of its argument chooses: a
polynomial for float32, and the C library for float64, which serves to check derivatives. NaN gives NaN, infinities give
their limits. There is no branch, for a branch would have to be taken by all 16 alike: where a condition stands, both
values are computed and one is chosen. The bodies become part of the loop that uses them; the compiler does not
vectorise a loop that calls a function.

``total`` and ``largest`` fold an array in 16 lanes, on every processor, so that a sum has the same bits everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from minitl.kernels import special
from minitl.kernels.compiled import INSIDE
from minitl.kernels.gelu.reference import CUBIC, SQRT_2_OVER_PI


@intrinsic
def fill_registers(typing: Any) -> Any:
    """Let the loops of the function that calls this use vector registers in their full width.

    LLVM takes half of those of 512 bits: on the first processors that had them, their use slowed the clock. Here the
    full width is a third faster. The function is not inlined, for then its caller's width would hold.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        # llvmlite accepts only the names of attributes that it knows; its class is a set, and a set takes any
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


ZERO, ONE, HALF, INFINITE = np.float32(0), np.float32(1), np.float32(0.5), np.float32(np.inf)

# Adding 1.5 * 2^23 to a small float32 pushes its fraction out of the 24 bits there are: the sum is the next whole
# number, and that number, in binary, is in its lowest bits.
ROUNDING = np.float32(1.5 * 2**23)
LOG2_E = np.float32(1 / math.log(2))
# ln 2 in two parts: the first has so few bits that its products with whole numbers below 2^15 are exact.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
# Above the one, exp is infinite in float32. Below the other it is less than 1.2e-38, the smallest number with all 24
# bits, and given as 0: a processor takes a hundred cycles for each number that is smaller.
HIGHEST, LOWEST = np.float32(88.72284), np.float32(-87.3)
# e^r = 1 + r + r^2 * (...) on |r| <= ln 2 / 2, fitted at Chebyshev nodes in 40 digits
EXP = tuple(
    map(np.float32, (0.5, 0.16666576845993977, 0.04166655443768594, 0.008363202971575855, 0.0013926213466332444))
)
EXPONENT_BITS = np.int32(23)


def _exp_float32(x: Any) -> Any:
    """With x = n ln 2 + r, it is 2^n e^r."""
    shifted = x * LOG2_E + ROUNDING
    n = shifted - ROUNDING
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = EXP[4]
    p = p * r + EXP[3]
    p = p * r + EXP[2]
    p = p * r + EXP[1]
    p = p * r + EXP[0]
    p = p * r + ONE
    p = p * r + ONE
    # Times 2^n: n is added to the exponent of e^r. What stands to the left of n in ``shifted`` is shifted out.
    bits = np.float32(p).view(np.int32) + (np.float32(shifted).view(np.int32) << EXPONENT_BITS)
    power = np.int32(bits).view(np.float32)
    power = ZERO if x < LOWEST else power  # and NaN, which is not less than anything, stays
    return INFINITE if x > HIGHEST else power


def exp(x: Any) -> Any:
    """Return e^x of one float (inside compiled functions)."""
    raise NotImplementedError("only compiled functions call this")


@overload(exp, jit_options=INSIDE, strict=False)
def _exp(x: Any) -> Callable[[Any], Any]:
    return _exp_float32 if x == types.float32 else lambda x: math.exp(x)


_LARGEST_Z, _TAIL = special.TAILS["float32"]
_SMALLEST_T = 1 / (1 + _LARGEST_Z / 2)
STRETCH_T, SHIFT_T = np.float32(2 / (1 - _SMALLEST_T)), np.float32((1 + _SMALLEST_T) / (1 - _SMALLEST_T))
HALF_TAIL = tuple(np.float32(c / 2) for c in _TAIL)
QUARTER_OF_SQRT2 = np.float32(math.sqrt(0.5) / 2)
DENSITY_AT_0 = np.float32(1 / math.sqrt(2 * math.pi))


def _normal_float32(u: Any) -> Any:
    """The series of ``special.normal_distribution``."""
    size = abs(u)
    exponential = exp(-HALF * size * size)
    t = ONE / (ONE + size * QUARTER_OF_SQRT2)
    s = t * STRETCH_T - SHIFT_T
    p = HALF_TAIL[10]
    p = p * s + HALF_TAIL[9]
    p = p * s + HALF_TAIL[8]
    p = p * s + HALF_TAIL[7]
    p = p * s + HALF_TAIL[6]
    p = p * s + HALF_TAIL[5]
    p = p * s + HALF_TAIL[4]
    p = p * s + HALF_TAIL[3]
    p = p * s + HALF_TAIL[2]
    p = p * s + HALF_TAIL[1]
    p = p * s + HALF_TAIL[0]
    tail = p * t * exponential
    distribution = tail if u < ZERO else ONE - tail
    return distribution, exponential * DENSITY_AT_0


def _normal_float64(u: Any) -> Any:
    exponential = math.exp(-0.5 * u * u)
    tail = 0.5 * math.erfc(abs(u) * math.sqrt(0.5))
    distribution = tail if u < 0 else 1 - tail
    return distribution, exponential / math.sqrt(2 * math.pi)


def normal_distribution(u: Any) -> Any:
    """Return the normal distribution function and density of one float (inside compiled functions)."""
    raise NotImplementedError("only compiled functions call this")


@overload(normal_distribution, jit_options=INSIDE, strict=False)
def _normal_distribution(u: Any) -> Callable[[Any], Any]:
    return _normal_float32 if u == types.float32 else _normal_float64


def _tanh_distribution_in(number: Any) -> Callable[[Any], Any]:
    """The function with constants of one type: in Numba a float32 times a Python float is a float64."""
    one, zero, far, cubic, three = number(1), number(0), number(20), number(CUBIC), number(3)
    steepness = number(2 * SQRT_2_OVER_PI)

    def distribution(u: Any) -> Any:
        near = -far if u < -far else u  # a power of what is further out might be too large for a float
        near = far if near > far else near
        square = cubic * near * near
        t = exp(-abs(steepness * near * (one + square)))
        t = zero if abs(u) > far else t  # times a huge ``u`` it would be a number
        r = one / (one + t)
        small = t * r
        # ``1 - small`` and not ``r``, which has the roundings of a sum and of a division
        return small if u < zero else one - small, small * r * steepness * (one + three * square)

    return distribution


_tanh_float32, _tanh_float64 = _tanh_distribution_in(np.float32), _tanh_distribution_in(np.float64)


def tanh_distribution(u: Any) -> Any:
    """Return GELU's approximation of the normal distribution function, and its derivative (inside compiled functions).

    It is ``(1 + tanh(z / 2)) / 2 = 1 / (1 + exp(-z))`` with ``z = 2 sqrt(2 / pi) (u + 0.044715 u^3)``. In this form
    nothing cancels where the tanh is near -1; and one exponential, of ``-|z|``, which cannot overflow, serves for all.
    """
    raise NotImplementedError("only compiled functions call this")


@overload(tanh_distribution, jit_options=INSIDE, strict=False)
def _tanh_distribution(u: Any) -> Callable[[Any], Any]:
    return _tanh_float32 if u == types.float32 else _tanh_float64


LANES = 16
_LANE_NUMBERS = ir.VectorType(ir.IntType(64), LANES)
_COUNT_UP = ir.Constant(_LANE_NUMBERS, list(range(LANES)))
_STEP = ir.Constant(_LANE_NUMBERS, [LANES] * LANES)


def _fold(context: Any, builder: Any, kind: Any, array: Any, neutral: float, combine: Callable[..., Any]) -> Any:
    """Write the code that combines the elements of an array: lane ``i`` takes elements ``i``, ``i + 16``, ..., and then
    upper lanes are combined with lower ones. In the last turn, lanes beyond the end get ``neutral``.

    The compiler's own loops begin to use vectors at 64 elements and make single steps of the rest, whatever is less
    than a multiple of 64; most rows of a softmax are such a rest. This loop makes one step of it.
    """
    array, bits = context.make_array(kind)(context, builder, array), kind.dtype.bitwidth
    vector, index_type, i32 = ir.VectorType(context.get_value_type(kind.dtype), LANES), ir.IntType(64), ir.IntType(32)
    neutrals = ir.Constant(vector, [neutral] * LANES)
    signature = [vector.as_pointer(), i32, ir.VectorType(ir.IntType(1), LANES), vector]
    name = f"llvm.masked.load.v{LANES}f{bits}.p0"
    load = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, signature), name)
    size = builder.insert_element(ir.Constant(_LANE_NUMBERS, ir.Undefined), array.nitems, ir.Constant(i32, 0))
    size = builder.shuffle_vector(size, size, ir.Constant(ir.VectorType(i32, LANES), None))
    total, numbers = cgutils.alloca_once_value(builder, neutrals), cgutils.alloca_once_value(builder, _COUNT_UP)
    begin, step = ir.Constant(index_type, 0), ir.Constant(index_type, LANES)
    with cgutils.for_range_slice(builder, begin, array.nitems, step, inc=True) as (index, _):
        inside = builder.icmp_signed("<", builder.load(numbers), size)
        address = builder.bitcast(builder.gep(array.data, [index]), vector.as_pointer())
        some = builder.call(load, [address, ir.Constant(i32, bits // 8), inside, neutrals])
        builder.store(combine(builder, builder.load(total), some), total)
        builder.store(builder.add(builder.load(numbers), _STEP), numbers)
    result, half = builder.load(total), LANES // 2
    while half:
        lower, upper = (ir.Constant(ir.VectorType(i32, half), list(range(i, i + half))) for i in (0, half))
        parts = builder.shuffle_vector(result, result, lower), builder.shuffle_vector(result, result, upper)
        result, half = combine(builder, *parts), half // 2
    return builder.extract_element(result, ir.Constant(i32, 0))


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """Return the sum of an array (count,) of floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fold(context, builder, x, arguments[0], 0.0, lambda builder, a, b: builder.fadd(a, b))

    return x.dtype(x), generate


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """Return the largest number in an array (count,) of floats; -inf if there is none; NaN may come out or not."""

    def larger(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", b, a), b, a)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fold(context, builder, x, arguments[0], -math.inf, larger)

    return x.dtype(x), generate
