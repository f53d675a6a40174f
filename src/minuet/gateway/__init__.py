"""From a routing table to a running Envoy: pure up to the snapshot on disk, then a shim that keeps Envoy alive."""
