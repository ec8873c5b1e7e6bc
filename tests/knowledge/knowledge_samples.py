"""Documents to ask about: facts that no model can know."""

from __future__ import annotations

from pathlib import Path

BYLAWS = """# Harbour bylaws

## Fees
A boat longer than twelve metres pays 45 crowns a night. A shorter boat pays 20 crowns a night.

Fishing boats of the village pay nothing from May to September.

## Quiet hours
No engine may run in the inner basin from 23:00 to 06:30. Whoever runs one pays a fine of 150 crowns.

## Berths
Berth 7 is kept free for the lifeboat Halcyon. The harbour master is Mira Oldane.
"""
STAFF = "name,role,phone\nMira Oldane,harbour master,555-0101\nTeo Brandt,crane operator,555-0199\n"
SECRET = "# Salaries\n\nThe harbour master Mira Oldane is paid 4210 crowns a month.\n"


def documents_in(folder: Path) -> Path:
    """A folder of three documents, one of which only ``mira`` may read."""
    (folder / "private").mkdir(parents=True)
    (folder / "bylaws.md").write_text(BYLAWS)
    (folder / "staff.csv").write_text(STAFF)
    (folder / "private" / "salaries.md").write_text(SECRET)
    (folder / ".dockyard-access.yaml").write_text("private/*: [mira]\n")
    return folder
