"""Tokens, keys and authenticated encryption; nothing else in sojourn touches cryptography.

All algorithms come from `cryptography`, `hmac` and `hashlib`.
"""
