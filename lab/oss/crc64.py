"""CRC-64/XZ, the checksum that OSS computes of every object, with nothing but the standard library.

liblzma computes exactly this CRC with the processor's carry-less multiplication, and Debian's python3
depends on it (its lzma module does), so ctypes reaches gigabytes per second where Python tables reach two
megabytes. ctypes releases the GIL during the call.
"""

import ctypes
from collections.abc import Callable
from functools import lru_cache

_POLYNOMIAL = 0xC96C5795D7870F42
_Matrix = tuple[int, ...]


def _by_liblzma() -> Callable[[bytes | memoryview, int], int]:
    function = ctypes.CDLL("liblzma.so.5").lzma_crc64
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

    def crc64(data: bytes | memoryview, crc: int = 0) -> int:
        content = bytes(data)
        return int(function(content, len(content), crc))

    return crc64


def _by_table() -> Callable[[bytes | memoryview, int], int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)

    def crc64(data: bytes | memoryview, crc: int = 0) -> int:
        crc ^= 0xFFFFFFFFFFFFFFFF
        for byte in data:
            crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFFFFFFFFFF

    return crc64


def _fastest() -> tuple[Callable[[bytes | memoryview, int], int], str]:
    try:
        return _by_liblzma(), "liblzma"
    except (OSError, AttributeError):
        return _by_table(), "table (2 MB/s)"


crc64, IMPLEMENTATION = _fastest()


def _apply(matrix: _Matrix, vector: int) -> int:
    result, row = 0, 0
    while vector:
        if vector & 1:
            result ^= matrix[row]
        vector >>= 1
        row += 1
    return result


def _multiply(left: _Matrix, right: _Matrix) -> _Matrix:
    return tuple(_apply(left, column) for column in right)


@lru_cache(maxsize=64)
def _zeros(length: int) -> _Matrix:
    """Return what `length` zero bytes do to a CRC, as a matrix over GF(2)."""
    power: _Matrix = (_POLYNOMIAL, *(1 << bit for bit in range(63)))  # one zero bit
    for _ in range(3):
        power = _multiply(power, power)  # one zero byte
    result: _Matrix = tuple(1 << bit for bit in range(64))
    while length:
        if length & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        length >>= 1
    return result


def combine(first: int, second: int, second_length: int) -> int:
    """Return the CRC of two pieces one after the other.

    Parts of one upload have few different sizes, so the matrix (20 ms of Python) is kept per length.
    """
    return _apply(_zeros(second_length), first) ^ second
