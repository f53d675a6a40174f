"""Pure: release, environment and configuration in; the document a data plane runs out."""
