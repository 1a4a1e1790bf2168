"""Transports: how the commands of a store reach the server, and their replies come back."""
