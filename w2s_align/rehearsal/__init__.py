"""Rehearse a recipe on this machine with tiny stand-in models."""
