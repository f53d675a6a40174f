"""Adapters to the world: settings, database, outbox, leases, sealing, outgoing HTTP, telemetry.

The agent and the builders import `settings`, `http`, `telemetry` and `files`
only; nothing is imported here, so that they never load the database.
"""
