"""Sphinx settings; a warning is an error (`make docs`)."""

project = "Minuet"
author = "The Minuet authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Minuet"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
