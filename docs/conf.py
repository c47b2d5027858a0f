# Sphinx configuration. The documentation is built offline and with every warning an error: `nox -s docs`.

from __future__ import annotations

import pathlib
import re
import sys
import tomllib
from typing import Any

from sphinx.util.nodes import make_refnode

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent / "bench")]

project = "orc_trio"
author = "the orc_trio authors"
project_copyright = "the orc_trio authors"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
version = release

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib_trio",
    "bug_museum",
    "conformance_checks",
    "guarantee_tests",
    "performance_page",
    "scoreboard_page",
    "state_machine",
    "ways_to_end",
]
exclude_patterns = ["_build", "newsfragments", "inventories", "_extensions"]
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    # Single backquotes in docstrings also mark names that have no entry of their own.
    (r"py:obj", r".*"),
    # Private type variables and aliases are not documented.
    (r"py:.*", r"(.*\.)?_\w+"),
    # Type variables.
    (r"py:(class|data)", r"(.*\.)?[A-Z]\w?"),
    # Napoleon reads the words of a type in an Attributes or Args section one by one.
    (r"py:class", r"(optional|callable|default|[A-Z_]+|\d+.*)"),
]

# Names of other projects. The inventories are in the repository, so that no build needs the network; make.py there
# writes them and says how to add a name.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "trio": ("https://trio.readthedocs.io/en/stable", "inventories/trio.inv"),
    "attrs": ("https://www.attrs.org/en/stable", "inventories/attrs.inv"),
}
intersphinx_disabled_reftypes = ["std:doc"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Checkpoints", "Cancellation", "Shape", "Source", "Rules", "Theory", "Refused"]

html_theme = "furo"
html_static_path = ["_static"]
html_title = f"orc_trio {release}"
html_copy_source = False
html_show_sphinx = False
# Pages are text and one stylesheet: nothing is loaded from elsewhere when they are read, either.
html_theme_options = {"navigation_with_keys": True}


def our_docstrings(app: object, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Read our docstrings as they are meant, before napoleon does.

    * An underlined heading is a rubric: a docstring may not open a section of the page.
    * "Word: more words" is a sentence, not a type: types are in the annotations. An empty type says so to napoleon.
    """
    at = 0
    while at + 1 < len(lines):
        if lines[at].strip() and re.fullmatch(r"\s*([-=~^])\1{2,}\s*", lines[at + 1]):
            lines[at : at + 2] = ["", f".. rubric:: {lines[at].strip()}", ""]
            at += 2
        elif re.fullmatch(r"\s*(Returns|Yields):\s*", lines[at]):
            lines[at + 1] = re.sub(r"^(\s*)", r"\1: ", lines[at + 1], count=1)
        at += 1
    if what in {"attribute", "data", "property"} and lines and ":" in lines[0]:
        lines[0] = f": {lines[0]}"


def public_place(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Resolve a name by the place where it is documented: ``orc_trio.X`` for what ``orc_trio.module.X`` defines."""
    if node.get("refdomain") != "py":
        return None
    parts = node["reftarget"].split(".")
    objects = env.get_domain("py").objects
    for start in range(len(parts)):
        ending = "." + ".".join(parts[start:])
        if found := sorted((name for name in objects if name.endswith(ending)), key=len):
            place = objects[found[0]]
            return make_refnode(app.builder, node["refdoc"], place.docname, place.node_id, contnode, found[0])
    return None


def setup(app: Any) -> dict[str, bool]:
    """Connect the hooks above."""
    app.connect("autodoc-process-docstring", our_docstrings, priority=400)  # before napoleon
    app.connect("missing-reference", public_place, priority=900)  # after intersphinx
    return {"parallel_read_safe": True, "parallel_write_safe": True}
