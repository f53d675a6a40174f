"""Projects, components, and credentials of private repositories."""
