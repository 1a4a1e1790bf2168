"""Wayhouse, the demonstration shop of sojourn."""
