"""Minuet: a Git repository goes in, a running, governed service comes out."""

__version__ = "0.1.0"
