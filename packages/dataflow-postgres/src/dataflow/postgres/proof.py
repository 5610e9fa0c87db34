"""What only the framework can say: the proof of a connection's tenant, and the verifier of a role's password.

A proof is the HMAC-SHA256 of server process, its start and tenant. The database checks it with the same key, which lies
in a table of the owner's (`dataflow.postgres.confinement`); so SQL of the user's own cannot claim another tenant, nor
replay a proof on another connection.
"""

import base64
import hashlib
import hmac
import secrets

import attrs

_BLOCK = 64
"""Bytes that SHA-256 takes at a time."""
_ROUNDS = 4096
"""How often a password is hashed: what PostgreSQL itself does by default."""


@attrs.frozen
class Key:
    """The key of proofs, as HMAC uses it: once for the inner hash, once for the outer one.

    Attributes:
        inner, outer: the key, padded, exclusive-or the constants of RFC 2104.
    """

    inner: bytes = attrs.field(repr=False)
    outer: bytes = attrs.field(repr=False)

    @classmethod
    def new(cls) -> "Key":
        """Draw a key."""
        key = secrets.token_bytes(32).ljust(_BLOCK, b"\0")
        return cls(bytes(byte ^ 0x36 for byte in key), bytes(byte ^ 0x5C for byte in key))

    def proof(self, process: str, tenant: str) -> str:
        """Return the proof that a connection acts for a tenant.

        Args:
            process: number of the server process and its start, as ``number|microseconds``.
            tenant: whom it acts for.
        """
        inner = hashlib.sha256(self.inner + f"{process}|{tenant}".encode()).digest()
        return hashlib.sha256(self.outer + inner).hexdigest()


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return what the server keeps of a password (SCRAM-SHA-256, RFC 5802), so that no log of SQL ever shows it."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    told = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ROUNDS}:{told[0]}${told[1]}:{told[2]}"
