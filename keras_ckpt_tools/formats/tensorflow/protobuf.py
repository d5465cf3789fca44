"""Read and write the wire format of Protocol Buffers, as far as TensorFlow checkpoints need it.

The messages are few and small, and may be untrusted. A library for them would need TensorFlow's
generated classes, and TensorFlow itself.

Source: the Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

_MAX_VARINT = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it.

    Raises:
        ValueError: there is none.

    >>> read_varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + index + 1
    raise ValueError("a number in it is cut off or too long")


def varint(value: int) -> bytes:
    """Return the bytes of a number; a negative one in two's complement of 64 bits.

    >>> varint(300).hex()
    'ac02'
    """
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a message, in its order.

    Raises:
        ValueError: the bytes are no message.

    >>> list(fields(bytes_field(1, b"ab") + number_field(2, 7)))
    [(1, b'ab'), (2, 7)]
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            number, at = read_varint(data, at)
            yield tag >> 3, number
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            length, at = read_varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError("a field in it is cut off, or of a kind that there is not")
        value = data[at : at + length]
        at += length
        yield tag >> 3, value if kind == _BYTES else int.from_bytes(value, "little")


def signed(value: int | bytes) -> int:
    """Return a number as one with a sign; 0 for bytes, which stand where no number does."""
    if isinstance(value, bytes):
        return 0
    return value - (1 << 64) if value >> 63 else value


def text(value: int | bytes) -> str:
    """Return bytes as text.

    Raises:
        ValueError: they are none.
    """
    return value.decode() if isinstance(value, bytes) else ""


def number_field(number: int, value: int) -> bytes:
    """Return a field with a number; nothing for 0, as protobuf has it."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Return a field with bytes, text or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def fixed32_field(number: int, value: int) -> bytes:
    """Return a field with four bytes."""
    return varint(number << 3 | _FIXED32) + value.to_bytes(4, "little")
