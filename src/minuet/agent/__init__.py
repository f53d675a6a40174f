"""One agent per data plane: keeps the desired state on its own disk and makes it so."""
