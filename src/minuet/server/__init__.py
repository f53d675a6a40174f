"""Composition roots: what wires the rooms of the control plane together, prepares it, and starts it."""
