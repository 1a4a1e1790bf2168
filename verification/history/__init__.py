"""Histories of sessions under load: a seeded plan, clients that record what they saw, and a checker that judges it."""
