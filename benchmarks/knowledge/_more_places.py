"""More kinds of made-up places for the fit. In the last two, most answers are not of the sort that the question's first
word lets expect: no name after "who", no number after "how much"."""

from __future__ import annotations

from benchmarks.knowledge._places import Kind

MINE: Kind = {
    "shaft": ("The main shaft reaches {n} metres into the rock.", "How deep is the main shaft of the {p} mine?"),
    "boss": ("{who} commands the crew below ground.", "Who is the foreman of the {p} mine?"),
    "lamp": (
        "Every miner must hand in his lamp by {h}:25.",
        "Until when do lamps have to be returned at the {p} mine?",
    ),
    "wage": ("A hewer earns {n} shillings a week.", "What is the weekly pay of a worker in the {p} mine?"),
    "ponies": ("Below ground {n} ponies draw the tubs.", "How many animals work in the {p} mine?"),
    "gas": ("{who} measures the firedamp before each shift.", "Who tests the air for gas in the {p} mine?"),
    "output": ("The pit yields {n} tons of ore a month.", "How much ore does the {p} mine produce per month?"),
    "closed": (
        "No one may enter the lower gallery for {n} days after a blast.",
        "How long is the lower gallery of the {p} mine off limits after blasting?",
    ),
}
FARM: Kind = {
    "cows": ("{n} cows graze on the meadows.", "How big is the herd of cattle of the {p} farm?"),
    "owner": ("The land belongs to {who}.", "Who owns the {p} farm?"),
    "milk": ("The milk lorry calls at {h}:40 every morning.", "When is milk collected from the {p} farm?"),
    "eggs": ("A dozen eggs is sold for {n} groats at the gate.", "What do twelve eggs cost at the {p} farm?"),
    "field": ("The largest field covers {n} acres.", "What is the area of the biggest field of the {p} farm?"),
    "vet": ("{who} comes when an animal is ill.", "Who is the vet of the {p} farm?"),
    "harvest": ("Bringing in the wheat takes {n} hours.", "How long does the wheat harvest take at the {p} farm?"),
    "tractor": ("The tractor was bought in the year {n}.", "Since when has the {p} farm had its tractor?"),
}
CLINIC: Kind = {
    "beds": ("{n} patients can be lodged at a time.", "How many beds does the {p} clinic have?"),
    "surgeon": ("{who} performs all operations.", "Who is the surgeon of the {p} clinic?"),
    "visit": ("Relatives may come from {h}:55 on.", "When do visiting hours begin in the {p} clinic?"),
    "room": (
        "A private room is billed at {n} ducats a day.",
        "What is the daily rate for a single room in the {p} clinic?",
    ),
    "wait": ("The waiting list is {n} days long.", "How long must one wait for an appointment at the {p} clinic?"),
    "cook": ("{who} prepares the meals.", "Who cooks for the patients of the {p} clinic?"),
    "blood": ("{n} bottles of blood are held in reserve.", "How much blood is stored at the {p} clinic?"),
    "night": ("The night nurse takes over at {h}:15.", "At what time does the night shift start in the {p} clinic?"),
}
HOTEL: Kind = {
    "rooms": ("Guests can choose among {n} chambers.", "How many rooms are there in the hotel of {p}?"),
    "host": ("{who} welcomes the guests and keeps the books.", "Who manages the hotel of {p}?"),
    "out": ("Rooms are to be vacated by {h}:30.", "What is the check-out time of the hotel of {p}?"),
    "dog": ("Bringing a dog adds {n} kreuzers to the bill.", "What is the surcharge for pets in the hotel of {p}?"),
    "pool": ("The swimming bath holds {n} cubic metres of water.", "How big is the pool of the hotel of {p}?"),
    "porter": ("Luggage is carried up by {who}.", "Who is the porter in the hotel of {p}?"),
    "stairs": (
        "{n} steps lead up to the terrace.",
        "How many stairs must one climb to the terrace of the hotel of {p}?",
    ),
    "cancel": (
        "Bookings may be called off up to {n} hours ahead.",
        "How late can I cancel my stay at the hotel of {p}?",
    ),
}
NEWSPAPER: Kind = {
    "print": ("{n} copies leave the press each night.", "What is the circulation of the {p} newspaper?"),
    "editor": ("What is printed is decided by {who}.", "Who is the editor of the {p} newspaper?"),
    "dead": ("Articles must be handed in by {h}:50.", "When is the deadline for texts of the {p} newspaper?"),
    "ad": ("A small advertisement is had for {n} marks.", "What does a classified ad cost in the {p} newspaper?"),
    "staff": ("{n} people earn their living here.", "How many employees does the {p} newspaper have?"),
    "crossword": ("The crossword puzzle is set by {who}.", "Who makes up the word puzzles of the {p} newspaper?"),
    "first": ("Its first issue came out in the year {n}.", "When was the {p} newspaper founded?"),
    "archive": ("Old issues are kept for {n} years.", "How long does the {p} newspaper store its back numbers?"),
}
MONASTERY: Kind = {
    "bell": ("The eldest brother rings the bell.", "Who sounds the bell in the monastery of {p}?"),
    "gate": ("The gate is barred at dusk.", "When does the gate of the monastery of {p} close?"),
    "night": (
        "A traveller sleeps here in exchange for a day's work in the orchard.",
        "How much does a traveller pay for a bed in the monastery of {p}?",
    ),
    "talk": (
        "Silence is kept until the morning meal is eaten.",
        "How long must one keep quiet in the monastery of {p}?",
    ),
    "honey": ("The brothers sell honey and candles.", "What can be bought from the monks of {p}?"),
    "garden": ("Novices weed the herb garden.", "Who takes care of the herbs in the monastery of {p}?"),
    "relic": (
        "A splinter of an old ship lies under the altar.",
        "What is kept beneath the altar of the monastery of {p}?",
    ),
    "fast": ("Before each full moon nobody eats meat.", "When is meat forbidden in the monastery of {p}?"),
}
MARKET: Kind = {
    "warden": ("The innkeeper's widow settles quarrels between traders.", "Who judges disputes at the market of {p}?"),
    "start": ("Stalls are set up as soon as the ferry has landed.", "At what time does the market of {p} begin?"),
    "due": ("For a stall one hands over a tenth of the takings.", "What is the fee for a stall at the market of {p}?"),
    "fish": ("Fish is sold only on the lower steps.", "Where can I get fish at the market of {p}?"),
    "scales": (
        "False scales are broken and thrown into the river.",
        "What happens to traders' wrong weights at the market of {p}?",
    ),
    "clean": ("Whoever lost at dice sweeps the square afterwards.", "Who cleans up after the market of {p}?"),
    "dogs": ("Dogs wait outside, tied to the willow.", "Are dogs allowed at the market of {p}?"),
    "music": (
        "Fiddlers may play once the church clock has struck twice.",
        "When is music permitted at the market of {p}?",
    ),
}
