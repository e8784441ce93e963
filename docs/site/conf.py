# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes one site of the pages and of what antsibull-docs writes of roles, filters and modules: tools/site."""

project = "nfsmail.cluster"
author = "nfsmail.cluster contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
# Inventories to copy are linked, not pages.
exclude_patterns = ["docs/examples", "docs/site"]
html_theme = "sphinx_ansible_theme"
html_theme_options = {"documentation_home_url": "index.html", "display_version": False}
# Links to headings.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
