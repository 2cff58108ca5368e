"""Pages that need nothing beside them: one look for the reports of runs, evaluations and sweeps."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: Path, **values: Any) -> str:
    """The HTML of a template, which extends `report_page.html` and may use `report_parts.html` of this folder."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template.name).render(**values)
