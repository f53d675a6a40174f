"""The HTTP kit that knows no noun: problems, bearer tokens, paging, ETags, idempotency, streams."""
