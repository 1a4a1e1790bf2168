"""Three-way merge of two changes to the same session, and the access to a model's fields that it needs."""

from __future__ import annotations

from sojourn.merge.fields import field_types, field_values, is_same, with_values
from sojourn.merge.rules import MISSING, Merge, Missing, Rule, merge_messages, merge_models, merge_rules, merge_values

__all__ = [
    "MISSING",
    "Merge",
    "Missing",
    "Rule",
    "field_types",
    "field_values",
    "is_same",
    "merge_messages",
    "merge_models",
    "merge_rules",
    "merge_values",
    "with_values",
]
