"""Typed endpoints with sessions."""
