"""Data planes, environments and pipelines; the desired-state log; the server's side of the link."""
