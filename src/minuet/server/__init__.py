"""Composition roots: what wires the rooms together and starts them."""
