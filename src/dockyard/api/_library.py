"""The prompts of one site: opened when somebody first asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockyard.api._site import Site

if TYPE_CHECKING:
    from dockyard.prompt.library import Library


def library(site: Site) -> Library:
    if site.prompts is None:
        from dockyard.prompt.library import Library

        site.prompts = Library(site.store, site.stack)
    found: Library = site.prompts
    return found
