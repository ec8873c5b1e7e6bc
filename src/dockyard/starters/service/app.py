"""A customer-service bot that knows its limits: what it can't or must not answer goes to a person, as a ticket.

python app.py            talk; an empty line ends
"""

import json
import re
import time
import uuid
from pathlib import Path

from connection import HERE, ask, connect

from dockyard import DockyardError

FACTS = json.loads((HERE / "facts.json").read_text())
WANTS_A_PERSON = re.compile(r"\b(human|person|agent|manager|complain|complaint|lawyer)\b", re.IGNORECASE)


def find_fact(text: str) -> str:
    """The fact whose words the question shares; empty: none, and then nothing is made up."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    shared, fact = max((len(words & set(keys.split())), fact) for keys, fact in FACTS.items())
    return fact if shared else ""


class Desk:
    """Answers, and hands over. Tickets are files that people work through; a blocked text is in none of them."""

    def __init__(self, client, tickets: Path = HERE / "out" / "tickets") -> None:
        self.client = client
        self.tickets = tickets

    def reply(self, text: str) -> dict:
        if WANTS_A_PERSON.search(text):
            return self.hand_over("the customer asks for a person", text)
        fact = find_fact(text)
        if not fact:
            return self.hand_over("no fact fits the question", text, blocked=self.blocked(text))
        try:
            said = ask(self.client, "service", text, dockyard={"prompt": {"variables": {"fact": fact}}})
        except DockyardError as error:
            if error.code != "content_blocked":
                raise
            return self.hand_over("the guard refused the text", text, blocked=True)
        return {"answer": said, "ticket": None, "fact": fact}

    def blocked(self, text: str) -> bool:
        """Whether the guard refuses a text; no model writes more than a token for it."""
        try:
            ask(self.client, "service", text, max_tokens=1, dockyard={"prompt": {"variables": {"fact": "-"}}})
        except DockyardError as error:
            return error.code == "content_blocked"
        return False

    def hand_over(self, why: str, text: str, blocked: bool = False) -> dict:
        ticket = {
            "id": uuid.uuid4().hex[:8],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "why": why,
            "text": "(withheld: it may hold a card number or a password)" if blocked else text,
        }
        self.tickets.mkdir(parents=True, exist_ok=True)
        (self.tickets / f"{ticket['id']}.json").write_text(json.dumps(ticket, indent=1))
        return {"answer": f"A colleague will answer you. Your ticket is {ticket['id']}.", "ticket": ticket, "fact": ""}


if __name__ == "__main__":
    with connect() as client:
        desk = Desk(client)
        while text := input("> ").strip():
            print(desk.reply(text)["answer"])
