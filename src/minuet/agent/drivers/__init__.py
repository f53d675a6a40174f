"""What runs instances: sandboxed processes, or memory for tests and measurements."""
