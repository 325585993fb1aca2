"""Sphinx's configuration; docs/tools/build.py collects the pages and runs Sphinx."""

project = "mnist-nbdev"
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.viewcode"]
root_doc = "index"

# Notebooks are shown with their stored outputs.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # gfm needs linkify-it-py with myst-parser 4, on Python 3.10
nb_ipywidgets_js: dict[str, str] = {}  # by default loaded from another host
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
viewcode_follow_imported_members = False  # otherwise it copies the standard library

html_theme = "pydata_sphinx_theme"
html_title = "mnist-nbdev"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_extra_path = ["extra"]  # the report of the run that is shown
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}  # an empty one logs an error on each page
html_sidebars = {"index": [], "draw": [], "changelog": []}
html_theme_options = {
    "logo": {"text": "mnist-nbdev"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],  # the other one's accessible name differs from its text
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
}
