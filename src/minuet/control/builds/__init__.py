"""Builds: what was asked for, who works on it, and what came of it."""
