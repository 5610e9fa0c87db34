"""Class names of existing tables: CamelCase, singular where that is certain, else as the table is called.

A wrong word (`Statu`, `Addres`, `Movy`) is worse than a plural one, so this is not `dataflow.naming.plural` backwards
but a rule that knows where it does not know. It looks at the last word of the name only:

1. Words in `IRREGULAR` ("people" -> "person") and those that `dataflow.naming` lists are turned back.
2. Words that have no plural, or whose plural looks like a singular, stay: "data", "news", "series", "status", "bus".
   What ends in -ss -us -is -as -os stays as well, unless `PLURAL_S` lists it; so does -lves, whose singular differs.
3. Endings that two singulars share are decided by lists, and stay where the list is silent:
   -ses and -zes ("houses", "statuses"), -ches ("caches", "batches"), -xes ("axes"), -oes ("shoes", "heroes").
4. -ies -> -y, but for the words in `ENDS_IN_IE` ("movies" -> "movie") and those of three or four letters ("ties").
5. Any other word of more than three letters in -s loses it.
"""

import re

from dataflow import naming


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IRREGULAR = {
    "analyses": "analysis", "appendices": "appendix", "calves": "calf", "crises": "crisis", "diagnoses": "diagnosis",
    "elves": "elf", "emphases": "emphasis", "hypotheses": "hypothesis", "indices": "index", "lice": "louse",
    "loaves": "loaf", "oases": "oasis", "parentheses": "parenthesis", "prognoses": "prognosis", "scarves": "scarf",
    "synopses": "synopsis", "syntheses": "synthesis", "theses": "thesis", "thieves": "thief", "vertices": "vertex",
    "vortices": "vortex",
}  # fmt: skip
"""Plurals whose singular no rule gives."""
AMBIGUOUS = frozenset(
    [
        "axes", "bases", "booties", "doggies", "ellipses", "floozies", "goodies", "leaves", "lives", "monies",
        "pickaxes", "pinkies", "staves",
    ]
)  # fmt: skip
"""Plurals of two words ("axe" and "axis"), or words of their own ("leaves" of employees): they stay."""
SINGULAR = _words("""
    alias always atlas bias canvas chaos christmas clothes corps diabetes economics electronics ethics gallows goods
    graphics headquarters https jeans lens logistics mathematics means measles physics pliers politics premises
    rendezvous robotics scissors sms statistics tennis thanks trousers gps dns cms aws css
""")  # fmt: skip
"""Words in -s that are no plurals, or have another meaning without it."""
PLURAL_S = _words("""
    agendas areas arenas aromas bananas cameras cinemas commas dilemmas diplomas dramas enigmas eras extras formulas
    ideas pandas personas pizzas plazas quotas regattas sagas saunas schemas sofas umbrellas vendettas villas visas
    audios autos bistros casinos combos condos demos discos dynamos egos euros infos intros jumbos kilos logos
    manifestos memos mementos photos pianos portfolios promos radios ratios repos scenarios silos solos studios
    tacos tempos todos trios typos videos zoos emus gnus gurus menus tofus skis taxis kiwis safaris
""")  # fmt: skip
"""Words in -as -os -us -is that are plurals."""
ENDS_IN_IE = _words("""
    aunties baggies beanies beasties birdies boogies bourgeoisies bowties brasseries brownies budgies calories
    camaraderies collies cookies coteries eyries foodies freebies genies goalies groupies hippies hoodies indies
    junkies laddies lassies lingeries magpies menageries movies neckties newbies oldies patisseries pixies prairies
    quickies ramies rookies rotisseries selfies smoothies sorties talkies townies veggies yuppies zombies
""")  # fmt: skip
TAKES_ES = _words("""
    approaches arches batches beaches benches branches breaches brooches bunches churches coaches couches crunches
    finches hunches inches launches leeches lunches marches peaches perches pinches porches pouches punches ranches
    reaches researches roaches searches speeches starches torches touches trenches wrenches abacuses aliases
    apparatuses atlases biases bonuses buses cactuses campuses canvases caucuses censuses choruses circuses
    consensuses corpuses crocuses focuses gases geniuses hiatuses irises lenses minibuses nexuses octopuses
    prospectuses radiuses statuses stimuluses surpluses syllabuses viruses walruses blitzes quartzes topazes waltzes
    cargoes dominoes echoes embargoes mangoes mosquitoes noes tornadoes torpedoes vetoes volcanoes zeroes
""")  # fmt: skip
"""Plurals that are the singular and -es."""
TAKES_S = _words("""
    aches avalanches brioches caches cliches creches headaches moustaches mustaches niches pastiches psyches quiches
    toothaches tranches abuses advises bookcases briefcases browses carcases cases causes cheeses clauses closes
    collapses compromises corpses courses cruises databases defenses diseases disguises doses eclipses enterprises
    erases excuses exercises expanses expenses expertises franchises fuses guises horses hoses houses impulses
    increases decreases lapses leases licenses merchandises mousses muses noises noses nurses offenses pauses phases
    phrases poses praises premises promises pulses purchases purposes purses raises releases responses roses ruses
    senses showcases spouses suitcases surprises suspenses teases tenses treatises universes uses vases verses
    warehouses blazes breezes bronzes crazes dozes freezes gazes glazes hazes mazes prizes sizes canoes foes hoes
    oboes shoes tiptoes toes woes
""")  # fmt: skip
"""Plurals that are the singular and -s, where -es could be meant as well."""
_BACK = {
    many: one for one, many in naming.IRREGULAR.items() if many not in naming.UNCOUNTABLE and many not in AMBIGUOUS
}
_UNCLEAR = ("ses", "zes", "ches", "xes", "oes")
_WORDS = re.compile(r"[^\W_]+")


def singular(word: str) -> str:
    """Return the singular of a lower-case word, or the word itself where that is not certain."""
    if word in naming.UNCOUNTABLE or word in SINGULAR or word in AMBIGUOUS:
        return word
    if word in IRREGULAR or word in _BACK:
        return IRREGULAR.get(word) or _BACK[word]
    if word in PLURAL_S or word in TAKES_S:
        return word[:-1]
    if word in TAKES_ES:
        return word[:-2]
    if word.endswith("ies"):
        return word[:-1] if word in ENDS_IN_IE or len(word) <= len("ties") else word[:-3] + "y"
    if word.endswith(("lves", "lives", "wives", "dwarves", "wharves")) and word not in ("solves", "valves"):
        return word
    if word.endswith("houses"):
        return word[:-1]
    if word.endswith(("sses", "shes", "tches", "zzes", "tzes")):
        return word[:-2]
    if word.endswith("xes") and len(word) > len("axes"):
        return word[:-2]
    if word.endswith(_UNCLEAR):
        return word
    if word.endswith(("ss", "us", "is", "as", "os")) or not word.endswith("s") or len(word) <= len("ads"):
        return word
    return word[:-1]


def class_name(table: str) -> str:
    """Return the name of a table's class, or "" where the table's name gives no identifier."""
    words = [word for part in _WORDS.findall(table) for word in naming.snake(part).split("_") if word]
    if not words:
        return ""
    name = "".join(map(_capital, [*words[:-1], singular(words[-1])]))
    return name if name.isidentifier() else ""


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]
