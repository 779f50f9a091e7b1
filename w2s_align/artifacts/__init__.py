"""What a step leaves: artifacts, their store, their keys, and the identity of models. Imports no torch."""
