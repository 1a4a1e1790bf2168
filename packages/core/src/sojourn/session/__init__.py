"""The session a handler holds, and the pure state behind it."""
