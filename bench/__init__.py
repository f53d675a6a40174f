"""Measurements, printed with all rounds and the machine's load; `make bench` runs them."""
