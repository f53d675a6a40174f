"""One noun per file; in each, `create_`, `list_`, `describe_`, `get_` and `delete_` as far as the noun has them."""
