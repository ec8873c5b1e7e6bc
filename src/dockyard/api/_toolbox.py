"""The tools of one site: made when somebody first uses them, and closed with the application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dockyard.api._site import Site

if TYPE_CHECKING:
    from dockyard.tools.toolbox import Toolbox

_MAKING = threading.Lock()


def toolbox(site: Site) -> Toolbox:
    """The one of this site. Its servers start when they are used."""
    with _MAKING:
        if site.toolbox is None:
            from dockyard.tools.toolbox import Toolbox

            site.toolbox = Toolbox(site.settings, site.store)
            site.ends.append(site.toolbox.close)
    found: Toolbox = site.toolbox
    return found
