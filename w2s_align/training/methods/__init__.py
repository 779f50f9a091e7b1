"""The kinds of training."""
