"""The typed way to the public API: errors become the kernel's families, streams resume."""
