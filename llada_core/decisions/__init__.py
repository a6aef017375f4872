"""Typed questions about an input, answered with probabilities that are read at one mask."""
