"""The documentation site: ``make docs``, warnings are errors; no network is needed."""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs" / "_ext"), str(ROOT)]
torch.set_num_threads(1)

import pyro_cama  # noqa: E402

project = "pyro_cama"
author = "the authors of pyro_cama"
project_copyright = "Apache-2.0"
version = release = pyro_cama.__version__

extensions = [
    "commands",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_ext", "**/.ipynb_checkpoints"]
nitpicky = False
suppress_warnings = ["misc.highlighting_failure"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
nb_execution_mode = "force"  # tutorials run whenever the site is built
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"pyro_cama {version}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_theme_options = {"navigation_with_keys": True}


def shapes_are_literal(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Keeps the star of a shape such as (rows, *shape) from beginning an emphasis."""
    lines[:] = [line.replace("(rows, *shape)", "``(rows, *shape)``") for line in lines]


def setup(app):  # type: ignore[no-untyped-def]
    """Registers the above."""
    app.connect("autodoc-process-docstring", shapes_are_literal, priority=900)
