"""Source in, signed artifact out: in phases, in sandboxes, one file per buildpack."""
