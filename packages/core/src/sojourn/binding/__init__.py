"""Whom a session is bound to: the sender's address through trusted proxies, and its fingerprint (SECURITY R31)."""

from __future__ import annotations

from sojourn.binding.fingerprint import FINGERPRINT_BYTES, LABEL_LENGTH, Binding, BindingPolicy, Client, ClientOf
from sojourn.binding.proxies import HOP_LIMIT, UNIX_PEER, Address, TrustedProxies, parse_address

__all__ = [
    "FINGERPRINT_BYTES",
    "HOP_LIMIT",
    "LABEL_LENGTH",
    "UNIX_PEER",
    "Address",
    "Binding",
    "BindingPolicy",
    "Client",
    "ClientOf",
    "TrustedProxies",
    "parse_address",
]
