"""IP addresses the way EventBridge reads them, and blocks of them.

An address is compared by its hexadecimal text: 8 upper-case digits for IPv4, 32 for IPv6. An IPv6 text that denotes an
IPv4-mapped address is that IPv4 address; IPv6 text with dots inside is no address at all.
"""

from __future__ import annotations

import re

_V4_SHAPE = re.compile(r"[0-9]+(?:\.[0-9]+){3}\Z")
_V6_SHAPE = re.compile(r"[0-9a-fA-F]*:[0-9a-fA-F:]*\Z")
_BITS = re.compile(r"[+-]?[0-9]+\Z")
_MAPPED = "0" * 20 + "FFFF"
_HEX_DIGITS = frozenset("0123456789ABCDEF")


class AddressError(ValueError):
    """Text that is no block of addresses; the message is AWS's."""


def has_address_shape(text: str) -> bool:
    return _V4_SHAPE.match(text) is not None or _V6_SHAPE.match(text) is not None


def address_hex(text: str) -> str | None:
    """The hexadecimal text of an address, or None for any other text."""
    if ":" in text:
        return _v6_hex(text) if _V6_SHAPE.match(text) else None
    return _v4_hex(text) if _V4_SHAPE.match(text) else None


def _v4_hex(text: str) -> str | None:
    digits = []
    for octet in text.split("."):
        significant = octet.lstrip("0") or "0"
        if len(significant) > 3 or int(significant) > 255:
            return None
        digits.append(f"{int(significant):02X}")
    return "".join(digits)


def _v6_hex(text: str) -> str | None:
    head, gap, rest = text.partition("::")
    left = head.split(":") if head else []
    right = rest.split(":") if rest else []
    missing = 8 - len(left) - len(right)
    if (missing < 1) if gap else (missing != 0):
        return None
    digits = []
    for group in [*left, *(["0"] * missing), *right]:
        significant = group.lstrip("0")
        if not group or len(significant) > 4:
            return None
        digits.append(significant.upper().rjust(4, "0"))
    whole = "".join(digits)
    return whole[24:] if whole.startswith(_MAPPED) else whole


def block_bounds(text: str) -> tuple[str, str]:
    """Lowest and highest address of `address/bits` as hexadecimal text; AddressError with AWS's words otherwise."""
    pieces = text.split("/")
    while len(pieces) > 1 and not pieces[-1]:
        pieces.pop()
    if len(pieces) != 2:
        raise AddressError("Malformed CIDR, one '/' required")
    address, mask = pieces
    bits = _mask_bits(mask)
    if not has_address_shape(address):
        raise AddressError(f"Nonstandard IP address: {address}")
    digits = address_hex(address)
    if digits is None:
        raise AddressError(f"Invalid IP address: {address}")
    family, width = ("IPv4", 32) if len(digits) == 8 else ("IPv6", 128)
    if bits >= width:
        raise AddressError(f"{family} mask bits must be < {width}")
    host = (1 << (width - bits)) - 1
    value = int(digits, 16)
    return f"{value & ~host:0{len(digits)}X}", f"{value | host:0{len(digits)}X}"


def _mask_bits(text: str) -> int:
    magnitude = text.lstrip("+-").lstrip("0") or "0"
    if not _BITS.match(text) or len(magnitude) > 10:
        raise AddressError("Malformed CIDR, mask bits must be an integer")
    bits = -int(magnitude) if text.startswith("-") else int(magnitude)
    if not -(2**31) <= bits < 2**31:
        raise AddressError("Malformed CIDR, mask bits must be an integer")
    if bits < 0:
        raise AddressError("Malformed CIDR, mask bits must not be negative")
    return bits


def in_block(digits: str, low: str, high: str) -> bool:
    """Whether a text lies between two addresses, digit by digit.

    The text may be longer or shorter than an address and, when it comes from a number, may hold characters that are no
    hexadecimal digits: those end the comparison without a match unless it was decided before them.
    """
    above = below = False
    for position, bottom in enumerate(low):
        digit = digits[position : position + 1]
        if not digit:
            return above
        top = high[position]
        if digit not in _HEX_DIGITS or (not above and digit < bottom) or (not below and digit > top):
            return False
        above = above or digit > bottom
        below = below or digit < top
        if above and below:
            return True
    return True
