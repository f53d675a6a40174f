"""Organizations: whose things are whose."""
