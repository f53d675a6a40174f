"""The command line: one noun per file, every verb through the public API."""
