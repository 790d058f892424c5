"""SigV4A, the asymmetric sister of Signature Version 4, with which clients sign what may go to several regions.

Both sides derive the same private key of the curve P-256 from the secret, by NIST's key derivation in counter mode;
the client signs with it, and here its public half verifies. The rest of a request's canonical form is SigV4's.
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

ALGORITHM = "AWS4-ECDSA-P256-SHA256"
REGION_SET = b"x-amz-region-set"

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""How many points the curve has."""
_KEY_BITS = 256
_MOST_ROUNDS = 254


def verifying_key(access_key: str, secret: str) -> ec.EllipticCurvePublicKey:
    """The key that verifies what the holder of the secret signs."""
    for counter in range(1, _MOST_ROUNDS + 1):
        context = access_key.encode() + bytes([counter])
        fixed = b"".join(((1).to_bytes(4), ALGORITHM.encode(), b"\0", context, _KEY_BITS.to_bytes(4)))
        candidate = int.from_bytes(hmac.digest(b"AWS4A" + secret.encode(), fixed, "sha256"))
        if candidate <= _ORDER - 2:
            return ec.derive_private_key(candidate + 1, ec.SECP256R1()).public_key()
    raise ValueError("no key can be derived from this secret")  # one chance in 2^32 for each round


def is_signature(key: ec.EllipticCurvePublicKey, signature: str, signed: bytes) -> bool:
    """Whether a signature, in hexadecimal digits, is that of ``signed``."""
    try:
        key.verify(bytes.fromhex(signature), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def region_of(region_set: str) -> str:
    """The region a set of them stands for when one is wanted: the first that is no pattern, else none (``""``)."""
    regions = (region.strip() for region in region_set.split(","))
    return next((region for region in regions if region and "*" not in region), "")
