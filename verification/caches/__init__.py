"""Processes with local caches, the faults of their links and servers, and how old the answers are."""
