"""What a component is configured with in each environment: variables, secrets and files."""
