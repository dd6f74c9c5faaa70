"""The documentation: written pages, a reference made from the docstrings, and a gallery of the examples. No network."""

import re

from sphinx_gallery.sorting import ExplicitOrder

import sktl

project = "sktl"
author = "the sktl developers"
copyright = "the sktl developers, BSD-3-Clause"
version = release = sktl.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",  # for CHANGELOG.md
    "sphinx_copybutton",
    "sphinx_design",  # the cards of the landing page
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"  # `sktl.FineTunedClassifier` is a link to its page; `fit` and other words are code
smartquotes = False  # default="avg" is code too
toc_object_entries_show_parents = "hide"

# One page per public object; its own members only, for what scikit-learn's classes bring is documented there.
autosummary_generate = True
autodoc_default_options = {"member-order": "bysource"}
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88  # one parameter a line
numpydoc_validation_checks: set[str] = set()  # tests/house checks more, and without building the pages

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"^(?!plot_)",
    "within_subsection_order": ExplicitOrder(  # the order of the user guide
        [
            "plot_images_and_numbers.py",
            "plot_compare_layers.py",
            "plot_freeze_depth.py",
            "plot_fine_tuning_strategies.py",
            "plot_choose_a_backbone.py",
            "plot_should_i_freeze.py",
            "plot_distillation.py",
            "plot_compression.py",
            "plot_lottery_ticket.py",
            "plot_cluster_photos.py",
            "plot_find_defects.py",
            "plot_autoencoder_digits.py",
        ]
    ),
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 1,
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",  # the pages of the reference show the examples that use them
    "doc_module": ("sktl",),
    "inspect_global_variables": False,
    "remove_config_comments": True,
}

# Prompts and outputs are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "sktl"
html_static_path = ["_static"]
html_favicon = "_static/logo.svg"
html_css_files = ["sktl.css"]
html_js_files = ["fold_signatures.js"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {page: [] for page in ("index", "install", "changelog", "license", "glossary")}
html_theme_options = {
    "logo": {"text": "sktl", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def mark_fitted_attributes(app, what, name, obj, options, lines):
    """Write ``n_features_in_`` in a shape as code; to reStructuredText a trailing underscore is a link."""
    lines[:] = [re.sub(r"(?<![\w`.])([a-z]\w*_)(?=[,)])", r"``\1``", line) for line in lines]


def setup(app):
    """Connect the function above."""
    app.connect("autodoc-process-docstring", mark_fitted_attributes, priority=100)
