"""What control plane and data plane say to each other; both sides import it, it imports neither."""

VERSION = 1
"""Protocol version; an agent speaks this one, a server speaks this and the one before."""
