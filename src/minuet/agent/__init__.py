"""The data plane's brain: holds the desired state on its own disk and makes it true."""
