"""Made-up places: pages of facts that no model can know, some of which stand nowhere, and questions about all of them.

Each place has a page with six of eight facts, in other words than the questions use. Questions about the other two have
no answer, and neither have those about places without a page. The span of each answer is known.
"""

from __future__ import annotations

import random
from pathlib import Path

from dockyard.knowledge.questions import Question

PLACES = 15
FACTS = 6
HEADS = tuple("Old Bar Wes Tor Mel Cas Fen Gar Hul Jor Kel Lum Nor Pel Quin Ros Sel Tam Ul Vor".split())  # noqa: SIM905
TAILS = tuple("ane by dor eth fold gate holm ick mere ness".split())  # noqa: SIM905
PEOPLE = tuple("Mira Teo Ansa Bruno Celia Dario Edda Falk Greta Hugo Ines Jonas".split())  # noqa: SIM905

Kind = dict[str, tuple[str, str]]
HARBOUR: Kind = {
    "fee": (
        "Boats longer than twelve metres pay {n} crowns for a night at the quay.",
        "How much does a long boat pay per night in {p}?",
    ),
    "master": (
        "The harbour master is {who}.",
        "Who is in charge of the harbour of {p}?",
    ),
    "quiet": (
        "From {h}:30 in the evening all engines must be switched off.",
        "When must engines be off in {p}?",
    ),
    "fine": (
        "Whoever dumps oil pays a fine of {n} crowns.",
        "What is the penalty for dumping oil in {p}?",
    ),
    "ferry": (
        "The ferry to the mainland departs daily at {h}:10.",
        "At what time does the ferry leave {p}?",
    ),
    "berth": (
        "Berth {n} is kept free for the lifeboat.",
        "Which berth in {p} is reserved for the lifeboat?",
    ),
    "depth": (
        "The inner basin is {n} decimetres deep at low tide.",
        "How deep is the inner basin of {p} at low tide?",
    ),
    "crane": (
        "The crane lifts loads of up to {n} kilograms.",
        "What weight can the crane in {p} lift?",
    ),
}
RAILWAY: Kind = {
    "gauge": (
        "The rails lie {n} millimetres apart.",
        "What is the track gauge of the {p} railway?",
    ),
    "chief": (
        "{who} is responsible for all trains.",
        "Who heads the {p} railway?",
    ),
    "fare": (
        "Children under six travel free; all others are charged {n} pence for a single journey.",
        "What do grown-ups pay for one ride on the {p} railway?",
    ),
    "first": (
        "Service begins at {h}:05 with the milk train.",
        "When does the first train of the {p} railway run?",
    ),
    "tunnel": (
        "The longest tunnel extends over {n} metres.",
        "How long is the longest tunnel of the {p} railway?",
    ),
    "engines": (
        "{n} locomotives are kept in the shed.",
        "How many engines does the {p} railway own?",
    ),
    "doctor": (
        "{who} looks after injured passengers.",
        "Who treats hurt travellers on the {p} railway?",
    ),
    "snow": (
        "The pass is blocked by snow for about {n} days a year.",
        "How many days per year is snow blocking the {p} railway?",
    ),
}
LIBRARY: Kind = {
    "books": (
        "There are {n} thousand volumes on the shelves.",
        "How many books does the library of {p} have?",
    ),
    "founder": (
        "{who} founded it after the great flood.",
        "Who established the library of {p}?",
    ),
    "loan": (
        "A volume may be kept for {n} days.",
        "For how long can I borrow a book in the library of {p}?",
    ),
    "late": (
        "Each day of delay costs {n} cents.",
        "What is the late fee in the library of {p}?",
    ),
    "open": (
        "The doors open at {h}:45 on weekdays.",
        "At what hour does the library of {p} open?",
    ),
    "seats": (
        "The reading room seats {n} people.",
        "How many readers fit into the reading room of the library of {p}?",
    ),
    "cat": (
        "{who} feeds the cat of the house.",
        "Who gives food to the cat in the library of {p}?",
    ),
    "oldest": (
        "The oldest manuscript dates from the year {n}.",
        "How old is the most ancient manuscript in the library of {p}?",
    ),
}
BREWERY: Kind = {
    "vat": (
        "The copper vat takes {n} litres.",
        "What is the volume of the copper vat in the {p} brewery?",
    ),
    "brewer": (
        "{who} has been brewing here since the war.",
        "Who is the brewmaster of the {p} brewery?",
    ),
    "price": (
        "A barrel is sold for {n} thalers.",
        "How expensive is a barrel at the {p} brewery?",
    ),
    "bell": (
        "Work stops when the bell rings at {h}:50.",
        "When is the end of the working day at the {p} brewery?",
    ),
    "well": (
        "The well goes {n} metres down.",
        "How deep is the well of the {p} brewery?",
    ),
    "horses": (
        "{n} horses pull the carts.",
        "What number of horses does the {p} brewery use?",
    ),
    "key": (
        "{who} keeps the key of the cellar.",
        "Who has the cellar key of the {p} brewery?",
    ),
    "sick": (
        "Sick workers are paid for {n} days.",
        "How long do ill employees of the {p} brewery get their wage?",
    ),
}
SCHOOL: Kind = {
    "pupils": (
        "{n} boys and girls are enrolled this year.",
        "How many pupils attend the school of {p}?",
    ),
    "head": (
        "The headmistress is called {who}.",
        "Who leads the school of {p}?",
    ),
    "meal": (
        "Lunch is {n} pennies.",
        "How much is a midday meal at the school of {p}?",
    ),
    "end": (
        "The last lesson is over at {h}:35.",
        "When do lessons finish at the school of {p}?",
    ),
    "bus": (
        "The bus picks children up at {h}:15.",
        "At what time does the school bus of {p} come?",
    ),
    "gym": (
        "The gymnasium is {n} square metres in size.",
        "How big is the sports hall of the school of {p}?",
    ),
    "nurse": (
        "Cuts and bruises are seen to by {who}.",
        "Who is the nurse at the school of {p}?",
    ),
    "hol": (
        "Summer holidays last {n} days.",
        "How long is the summer break at the school of {p}?",
    ),
}
OBSERVATORY: Kind = {
    "mirror": (
        "The main mirror measures {n} centimetres across.",
        "How large is the main mirror of the {p} observatory?",
    ),
    "head": (
        "Since last spring {who} has directed the house.",
        "Who is the director of the {p} observatory?",
    ),
    "ticket": (
        "Visitors over sixteen pay {n} florins at the door.",
        "What does admission to the {p} observatory cost an adult?",
    ),
    "tour": (
        "A guided walk through the dome begins each day at {h}:20.",
        "When does the daily guided tour of the {p} observatory start?",
    ),
    "comet": (
        "The archive holds {n} glass plates of comets.",
        "How many comet plates are in the archive of the {p} observatory?",
    ),
    "height": (
        "It stands {n} metres above the sea.",
        "At what altitude is the {p} observatory?",
    ),
    "closed": (
        "The house stays shut for {n} days in winter.",
        "For how many days is the {p} observatory closed in winter?",
    ),
    "shop": (
        "{who} runs the shop beside the gate.",
        "Who runs the shop of the {p} observatory?",
    ),
}
THEATRE: Kind = {
    "seats": (
        "{n} spectators find room in the stalls and the galleries.",
        "How many seats does the {p} theatre have?",
    ),
    "head": (
        "{who} has the last word on every play.",
        "Who is the artistic director of the {p} theatre?",
    ),
    "music": (
        "{who} leads the musicians in the pit.",
        "Who conducts the orchestra of the {p} theatre?",
    ),
    "curtain": (
        "The curtain rises at {h}:40 every evening.",
        "At what time do performances at the {p} theatre begin?",
    ),
    "ticket": (
        "A place in the upper gallery is sold for {n} lire.",
        "How much is a ticket for the upper circle of the {p} theatre?",
    ),
    "stage": (
        "From wall to wall the stage spans {n} decimetres.",
        "How wide is the stage of the {p} theatre?",
    ),
    "wardrobe": (
        "{n} gowns and cloaks hang in the wardrobe.",
        "How many costumes does the {p} theatre own?",
    ),
    "practice": (
        "A new piece is practised for {n} hours before anyone may see it.",
        "How long do rehearsals take at the {p} theatre?",
    ),
}
GARDEN: Kind = {
    "species": (
        "Plants of {n} species grow under glass and in the open.",
        "How many kinds of plants are there in the garden of {p}?",
    ),
    "head": (
        "{who} settles what is sown and where.",
        "Who is the head gardener of the garden of {p}?",
    ),
    "guide": (
        "School classes are taken round by {who}.",
        "Who gives children a tour of the garden of {p}?",
    ),
    "water": (
        "At {h}:05 the hoses are turned on.",
        "When are the beds in the garden of {p} watered?",
    ),
    "seeds": (
        "A packet of seeds is had for {n} kopecks.",
        "What is charged for seeds in the garden of {p}?",
    ),
    "palm": (
        "The tallest palm has grown to {n} centimetres.",
        "How high is the biggest palm tree of the garden of {p}?",
    ),
    "agave": (
        "An agave blooms here only after {n} months.",
        "How long does it take until an agave flowers in the garden of {p}?",
    ),
    "pond": (
        "{n} carp swim in the pond.",
        "How many fish live in the garden of {p}?",
    ),
}
CABLEWAY: Kind = {
    "riders": (
        "Within an hour {n} riders are lifted to the summit.",
        "What is the hourly capacity of the {p} cableway?",
    ),
    "head": (
        "The crew takes its orders from {who}.",
        "Who is the operations manager of the {p} cableway?",
    ),
    "rope": (
        "Worn strands are spliced by {who}.",
        "Who repairs the cable of the {p} cableway?",
    ),
    "last": (
        "Whoever is still at the top after {h}:25 has to walk.",
        "When does the last car of the {p} cableway go down?",
    ),
    "ticket": (
        "Up and down again is {n} rappen.",
        "What is the price of a return ticket of the {p} cableway?",
    ),
    "pylon": (
        "The third pylon is the highest, with {n} feet.",
        "How tall is the largest mast of the {p} cableway?",
    ),
    "ride": (
        "From the valley to the summit the car floats for {n} seconds.",
        "How long does a trip with the {p} cableway last?",
    ),
    "test": (
        "Every {n} days the brakes are tried out.",
        "How often are the brakes of the {p} cableway checked?",
    ),
}


def made(folder: Path, kind: Kind, word: str, seed: int, count: int = PLACES) -> list[Question]:
    """The pages in ``folder``, and questions: for each page its facts, the two left out, and as many of no page."""
    draw = random.Random(seed)
    names = [f"{head}{tail}" for head in HEADS for tail in TAILS]
    draw.shuffle(names)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for place in names[:count]:
        path = f"{place.lower()}.md"
        text = f"# The {word} of {place}\n\n"
        chosen = draw.sample(sorted(kind), len(kind))
        for name in chosen[:FACTS]:
            fact = kind[name][0].format(n=draw.randrange(110, 990), h=draw.randrange(10, 22), who=_person(draw))
            span = (len(text), len(text) + len(fact))
            text += fact + " "
            found.append(Question(question=kind[name][1].format(p=place), documents=(path,), answer=fact, span=span))
        (folder / path).write_text(text.rstrip() + "\n")
        found += [Question(question=kind[name][1].format(p=place)) for name in chosen[FACTS:]]
    for place in names[count : 2 * count]:
        found += [Question(question=kind[name][1].format(p=place)) for name in draw.sample(sorted(kind), 2)]
    return found


def _person(draw: random.Random) -> str:
    return f"{draw.choice(PEOPLE)} {draw.choice(HEADS)}{draw.choice(TAILS)}"
