"""Kinds of made-up places for the measurement alone.

They were written before anything was fitted or asked on them, and nothing is fitted on them.
"""

from __future__ import annotations

from benchmarks.knowledge._places import Kind

BAKERY: Kind = {
    "founder": (
        "The business was founded by {who}, who came here with a single oven.",
        "Who started the bakery in {p}?",
    ),
    "trainer": (
        "Our apprentices are trained by {who}.",
        "Who teaches the trainees at the bakery of {p}?",
    ),
    "rye": (
        "A whole rye loaf is sold for {n} cents.",
        "What does a loaf of rye bread cost in {p}?",
    ),
    "cake": (
        "We charge {n} crowns for a wedding cake with three tiers.",
        "How much would I pay for a three-tier wedding cake in {p}?",
    ),
    "rolls": (
        "On an ordinary weekday {n} rolls go over the counter.",
        "How many rolls does the bakery of {p} sell on a normal weekday?",
    ),
    "oven": (
        "Our stone oven holds {n} loaves in one batch.",
        "How many breads can be baked at the same time in the stone oven of {p}?",
    ),
    "leftovers": (
        "From {h}:30 everything left on the shelves goes for half the price.",
        "When does the bakery in {p} start selling its leftovers cheaper?",
    ),
    "dough": (
        "The sourdough rests for {n} minutes before it is shaped.",
        "How long is the sourdough left to stand before shaping in {p}?",
    ),
}
CASTLE: Kind = {
    "guide": (
        "Guided tours are led by {who}.",
        "Who shows visitors around the castle of {p}?",
    ),
    "painter": (
        "The ceiling of the chapel was painted by {who}.",
        "Which artist decorated the chapel ceiling in {p}?",
    ),
    "steps": (
        "It takes {n} steps to reach the top of the great tower.",
        "How many stairs do I have to climb to get up the great tower of {p}?",
    ),
    "well": (
        "The well in the courtyard goes down {n} feet.",
        "How deep is the castle well in {p}?",
    ),
    "swords": (
        "Visitors find {n} swords in the armoury, all of them genuine.",
        "How large is the collection of swords in the armoury of {p}?",
    ),
    "hall": (
        "Hiring the knights' hall for a wedding costs {n} crowns.",
        "What is the rent for the knights' hall of {p} if we want to marry there?",
    ),
    "bridge": (
        "The drawbridge is raised at {h}:30, and nobody gets in after that.",
        "Until what time can one still enter the castle of {p}?",
    ),
    "siege": (
        "During the siege the garrison held out for {n} days before surrendering.",
        "How long did the defenders of {p} resist before they gave up?",
    ),
}
MUSEUM: Kind = {
    "director": (
        "Since last spring the museum has been headed by {who}.",
        "Who is the director of the museum in {p}?",
    ),
    "donor": (
        "The coin collection was a gift from {who}.",
        "Who donated the coins to the museum of {p}?",
    ),
    "paintings": (
        "There are {n} landscapes on the walls of the upper gallery.",
        "How many landscape paintings hang in the upper gallery of {p}?",
    ),
    "whale": (
        "The whale skeleton in the entrance hall weighs {n} kilograms.",
        "How heavy are the bones of the whale in the museum of {p}?",
    ),
    "boxes": (
        "Another {n} boxes of finds are waiting in the cellar to be sorted.",
        "How many boxes of finds has the museum of {p} not gone through yet?",
    ),
    "pass": (
        "A pass for the whole year costs {n} crowns per person.",
        "What is the price of an annual ticket to the museum of {p}?",
    ),
    "tripod": (
        "Taking pictures with a tripod requires a permit for {n} crowns.",
        "How much do I have to pay if I want to photograph with a tripod in {p}?",
    ),
    "film": (
        "A short film about the history of the town begins at {h}:30.",
        "When is the film on local history shown in the museum of {p}?",
    ),
}
POOL: Kind = {
    "lifeguard": (
        "Our chief lifeguard is {who}.",
        "Who is the head of the lifeguards at the pool in {p}?",
    ),
    "teacher": (
        "{who} gives swimming lessons to small children.",
        "Who teaches young children to swim in {p}?",
    ),
    "basin": (
        "The outdoor basin is {n} feet long from wall to wall.",
        "What is the length of the outdoor basin in {p}?",
    ),
    "lockers": (
        "The changing rooms are equipped with {n} lockers.",
        "How many lockers are there in the changing rooms at the pool of {p}?",
    ),
    "season": (
        "Adults pay {n} crowns for the whole summer season.",
        "How much is a season ticket for a grown-up at the pool of {p}?",
    ),
    "key": (
        "Anyone who loses a locker key is charged {n} crowns.",
        "What do I have to pay in {p} if the key to my locker is gone?",
    ),
    "club": (
        "From {h}:30 two lanes are reserved for the swimming club.",
        "From what time on does the swimming club have lanes to itself in {p}?",
    ),
    "water": (
        "All the water is exchanged for fresh every {n} hours.",
        "How often does the pool of {p} renew its water?",
    ),
}
ZOO: Kind = {
    "vet": (
        "Sick animals are treated by {who}.",
        "Who is the vet at the zoo in {p}?",
    ),
    "penguins": (
        "{who} has raised the young penguins by hand.",
        "Who brought up the penguin chicks at the zoo of {p}?",
    ),
    "hay": (
        "The elephants eat {n} kilograms of hay a day.",
        "How much hay do the elephants in {p} need daily?",
    ),
    "species": (
        "Altogether we keep {n} different species of animals.",
        "How many kinds of animals live in the zoo of {p}?",
    ),
    "tortoise": (
        "Our oldest giant tortoise weighs {n} pounds.",
        "How heavy is the oldest tortoise in {p}?",
    ),
    "seals": (
        "The seals get their fish at {h}:30 every day.",
        "When are the seals fed in {p}?",
    ),
    "sponsor": (
        "Whoever sponsors a monkey gives {n} crowns a year.",
        "How high is the yearly contribution for the sponsor of a monkey in {p}?",
    ),
    "family": (
        "A family with children gets in for {n} crowns.",
        "How much is admission to the zoo of {p} for parents with their kids?",
    ),
}
AIRPORT: Kind = {
    "controllers": (
        "The air traffic controllers are headed by {who}.",
        "Who is in charge of the controllers at the airport of {p}?",
    ),
    "luggage": (
        "Please report missing suitcases to {who}.",
        "Whom should I see in {p} if my luggage has not arrived?",
    ),
    "runway": (
        "The only runway is {n} metres long.",
        "How many metres of runway do pilots have in {p}?",
    ),
    "passengers": (
        "On a busy day {n} passengers pass through the security check.",
        "How many travellers go through security in {p} when it is busy?",
    ),
    "fuel": (
        "The fuel store behind the hangar takes up to {n} barrels.",
        "What is the capacity of the fuel store at the airport in {p}?",
    ),
    "parking": (
        "A week in the covered car park costs {n} crowns.",
        "What is the weekly price of covered parking at the airport of {p}?",
    ),
    "landing": (
        "Private planes are charged {n} crowns each time they touch down.",
        "How much is the landing fee for a private aircraft in {p}?",
    ),
    "capital": (
        "The last plane of the day to the capital takes off at {h}:30.",
        "When does the final flight to the capital leave {p}?",
    ),
}
STADIUM: Kind = {
    "coach": (
        "The home team is trained by {who}.",
        "Who coaches the home side at the stadium of {p}?",
    ),
    "pitch": (
        "{who} mows and waters the pitch.",
        "Who takes care of the grass in the stadium of {p}?",
    ),
    "standing": (
        "Behind the north goal there is standing room for {n} fans.",
        "How many spectators can stand behind the goal at the north end in {p}?",
    ),
    "lamps": (
        "Each floodlight mast carries {n} lamps.",
        "How many lamps are there on one floodlight mast in {p}?",
    ),
    "track": (
        "A full round on the running track is {n} metres.",
        "How far do runners go in one lap at the stadium in {p}?",
    ),
    "season": (
        "A season ticket for the main stand costs {n} crowns.",
        "How much must I spend to sit in the main stand of {p} all season?",
    ),
    "fireworks": (
        "Fans who set off fireworks are fined {n} crowns.",
        "What is the penalty for lighting fireworks in the stadium of {p}?",
    ),
    "gates": (
        "On match days the gates open at {h}:30.",
        "From what time are spectators let in on the day of a match in {p}?",
    ),
}
CAMPSITE: Kind = {
    "reception": (
        "New guests are checked in by {who}.",
        "Who receives the arriving campers in {p}?",
    ),
    "canoes": (
        "Canoes can be borrowed from {who}.",
        "Who lends out canoes at the campsite of {p}?",
    ),
    "tents": (
        "There is space for {n} tents on the meadow by the lake.",
        "How many tents fit on the lakeside meadow in {p}?",
    ),
    "bus": (
        "It is {n} metres from our entrance to the nearest bus stop.",
        "How far away from the campsite in {p} is the closest bus stop?",
    ),
    "caravan": (
        "Caravans pay {n} crowns a week, electricity included.",
        "What does a week with a caravan cost in {p}?",
    ),
    "firewood": (
        "A basket of dry firewood costs {n} cents at the kiosk.",
        "How much is a basket of wood for the campfire in {p}?",
    ),
    "cars": (
        "After {h}:30 no more cars may drive onto the grounds.",
        "Until when can we still drive into the campsite of {p} by car?",
    ),
    "shower": (
        "The hot shower runs for {n} seconds per token.",
        "How long does one token give warm water in the showers of {p}?",
    ),
}
LAUNDRY: Kind = {
    "owner": (
        "The whole business belongs to {who}.",
        "Who owns the laundry in {p}?",
    ),
    "mending": (
        "Torn shirts are mended by {who}.",
        "Who sews up damaged shirts at the laundry of {p}?",
    ),
    "sheets": (
        "We wash {n} bed sheets a day for the guest houses.",
        "How many sheets from the guest houses does the laundry of {p} clean daily?",
    ),
    "load": (
        "The largest machine takes {n} pounds of washing at once.",
        "How heavy a load can go into the biggest washing machine in {p}?",
    ),
    "carpet": (
        "Cleaning a carpet costs {n} crowns, whatever its size.",
        "How much do I pay to have a carpet washed in {p}?",
    ),
    "suit": (
        "We press a suit for {n} cents.",
        "What is the charge for ironing a suit in {p}?",
    ),
    "overnight": (
        "Whatever is brought in before {h}:30 is ready the next morning.",
        "By what time must I hand in my clothes in {p} to get them back the following morning?",
    ),
    "drying": (
        "Spinning and drying together take {n} minutes.",
        "How long does it take to spin and dry the clothes in {p}?",
    ),
}
COURTHOUSE: Kind = {
    "thefts": (
        "Trials for theft are presided over by {who}.",
        "Which judge deals with thefts in {p}?",
    ),
    "copies": (
        "Copies of old judgments are handed out by {who}.",
        "From whom can I get the text of an old judgment in {p}?",
    ),
    "seats": (
        "The large courtroom has {n} seats for the public.",
        "How many spectators can sit in the large courtroom of {p}?",
    ),
    "neighbours": (
        "Last year {n} lawsuits between neighbours were settled here.",
        "How many disputes among neighbours did the court of {p} resolve last year?",
    ),
    "files": (
        "The files in the basement fill {n} metres of shelves.",
        "How much shelf space do the files in the basement of the courthouse in {p} take up?",
    ),
    "appeal": (
        "Lodging an appeal costs {n} crowns.",
        "What fee must be paid to file an appeal in {p}?",
    ),
    "telephone": (
        "If a telephone rings during a hearing, its owner pays {n} crowns.",
        "How high is the fine in {p} when my mobile goes off in the middle of a hearing?",
    ),
    "opening": (
        "The first hearing of the day starts at {h}:30.",
        "When does the court in {p} begin to hear cases each day?",
    ),
}

HELD_OUT: dict[str, Kind] = {
    "bakery": BAKERY,
    "castle": CASTLE,
    "museum": MUSEUM,
    "pool": POOL,
    "zoo": ZOO,
    "airport": AIRPORT,
    "stadium": STADIUM,
    "campsite": CAMPSITE,
    "laundry": LAUNDRY,
    "courthouse": COURTHOUSE,
}
