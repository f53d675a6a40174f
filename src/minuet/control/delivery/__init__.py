"""Releases and deployments: what is to run where, and what is known of it."""
