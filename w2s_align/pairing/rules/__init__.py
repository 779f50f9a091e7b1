"""The pair rules."""
