"""Event files as TensorBoard reads them, written without TensorFlow: a protocol buffer for each record.

A file is a sequence of records ``length, crc(length), data, crc(data)`` (TensorFlow's ``record_writer.h``): the length
in 8 bytes, each checksum a masked CRC-32C in 4, little-endian. The data is an ``Event`` (``event.proto``): wall time
(field 1, double), step (field 2, varint), and either the format's name (field 3) or a ``Summary`` (field 5) of values
with a tag (field 1) and a number (field 2, float). In a protocol buffer, a field is its number times 8 plus its kind,
then bytes: kind 0 a varint (7 bits a byte, lowest first), 1 eight bytes, 2 a length and as many bytes, 5 four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), its bits reversed


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        entries.append(byte)
    return tuple(entries)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes (RFC 3720, appendix B.4).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def file_header(wall_time: float) -> bytes:
    """Return the record that an event file begins with."""
    return _record(_double(1, wall_time) + _bytes(3, b"brain.Event:2"))


def scalars(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return the record of some numbers at one step.

    Args:
        wall_time: seconds since 1970.
        step: the horizontal axis.
        values: tag, such as "train/loss" -> number.
    """
    summary = b"".join(
        _bytes(1, _bytes(1, tag.encode()) + _key(2, 5) + struct.pack("<f", value)) for tag, value in values.items()
    )
    return _record(_double(1, wall_time) + _key(2, 0) + _varint(step) + _bytes(5, summary))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value
