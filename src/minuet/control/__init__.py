"""The nouns of the control plane, stacked: a slice imports only from those below it."""
