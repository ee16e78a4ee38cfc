"""Sentences: a word list of common English words and a small grammar that strings them together.

The grammar is there for variety of phone contexts, not for meaning: "the quiet farmer painted seven yellow boats".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_NAMES = (
    "alice arthur betty charles clara daniel emma frank george hannah henry isabel jack james julia kevin laura "
    "martin mary nora oliver oscar paula peter philip rachel robert rose sarah simon susan thomas victor walter"
)
_PEOPLE = (
    "actor artist aunt baker boy brother child cousin daughter doctor driver farmer father friend gardener girl "
    "guest hunter judge king lawyer man mother neighbour nurse officer painter pilot poet prince queen sailor "
    "sister soldier son stranger student teacher thief uncle visitor waiter woman writer"
)
_ANIMALS = (
    "bear bird bull cat cow deer dog duck fish fox frog goat horse lion monkey mouse owl pig rabbit sheep snake wolf"
)
_THINGS = (
    "apple basket bell bicycle blanket boat book bottle box bread bridge brush bucket button cake camera candle "
    "card carpet chair cheese church clock coat coffee cup curtain desk dish door dress drum engine envelope "
    "fence flag flower fork garden gate gift glass glove guitar hammer hat jacket jar journal key kitchen knife "
    "ladder lamp leaf letter map mirror money mountain necklace needle newspaper orange oven page paper pencil "
    "piano picture pillow pipe plate pocket potato purse ribbon ring roof rope scissors shirt shoe shovel sign "
    "soap spoon stone stove sugar table tent ticket towel tower toy train tree umbrella vase wagon wallet watch "
    "wheel whistle window wire"
)
_PLACES = (
    "airport bank barn beach bedroom castle cave city corner desert farm field forest hall harbour hill hospital "
    "hotel house island lake library market meadow museum office palace park river road school shop station "
    "street theatre town valley village yard"
)
_ADJECTIVES = (
    "ancient angry big black blue brave bright broken brown calm cheap clean clever cold crooked curious dark "
    "deep dirty dry dusty eager empty famous fast fresh friendly funny gentle golden grey happy heavy huge hungry "
    "large lazy little lonely long loud narrow new noisy old pale patient plain polite poor proud quiet rich "
    "rough round rusty sharp short shy silver simple sleepy slow small smooth soft sour square strange strong "
    "sweet tall thick thin tiny tired ugly warm wet white wide wild wise wooden yellow young"
)
_TRANSITIVE = (
    "admired asked borrowed bought broke brought burned called carried caught checked cleaned closed counted "
    "covered described drew dropped enjoyed examined fetched filled fixed followed forgot found gave hated held "
    "helped hid hit ignored kept kicked knew left lifted loved made measured met missed moved needed noticed "
    "offered opened ordered painted picked pulled pushed put reached remembered saved saw sent served shared "
    "showed sold stole studied touched threw took turned used wanted washed watched wrote"
)
_INTRANSITIVE = (
    "appeared arrived cried danced fell hurried jumped laughed listened lived looked paused played ran rested "
    "returned sang sat shouted slept smiled stayed stood stopped swam talked travelled waited walked whispered "
    "worked"
)
_BARE = (
    "ask bring build buy call carry catch choose clean cook cut draw drive find fix follow forget help hide hold "
    "keep lift make measure move open paint pull push read remember save see send share show sing throw touch "
    "trust use visit wash watch write"
)
_ADVERBS = (
    "again alone already always badly carefully early finally gladly hardly here later never now often once "
    "outside quickly quietly rarely slowly sometimes soon suddenly there today together tomorrow tonight twice "
    "usually well yesterday"
)
_PREPOSITIONS = (
    "above across against around behind below beside beyond by from inside near over through toward under with"
)
_DETERMINERS = "the the the a that this every another her his my our their your one some no"
_NUMBERS = "two three four five six seven eight nine ten eleven twelve twenty many several few"
_SUBJECTS = "i you he she we they nobody somebody everyone"
_MODALS = "can could may might must should will would"
_QUESTIONS = "when where why how"
_JOINS = "and but because while before after so until"
_OPENERS = "please perhaps maybe yes no then first well"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES, PEOPLE, ANIMALS, THINGS, PLACES = map(_words, (_NAMES, _PEOPLE, _ANIMALS, _THINGS, _PLACES))
ADJECTIVES, TRANSITIVE, INTRANSITIVE, BARE = map(_words, (_ADJECTIVES, _TRANSITIVE, _INTRANSITIVE, _BARE))
ADVERBS, PREPOSITIONS, DETERMINERS, NUMBERS = map(_words, (_ADVERBS, _PREPOSITIONS, _DETERMINERS, _NUMBERS))
SUBJECTS, MODALS, QUESTIONS, JOINS, OPENERS = map(_words, (_SUBJECTS, _MODALS, _QUESTIONS, _JOINS, _OPENERS))
_NOUNS = PEOPLE + ANIMALS + THINGS + PLACES

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten words of the keyword task."""

UNKNOWN_WORDS = _words(
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two wow zero"
)
"""The other words of the keyword task, which together make the class ``_unknown_``."""


def _plural(noun: str) -> str:
    irregular = {"man": "men", "woman": "women", "child": "children", "mouse": "mice", "leaf": "leaves"}
    irregular |= {"wolf": "wolves", "thief": "thieves", "knife": "knives"}
    unchanged = {"fish", "deer", "sheep", "scissors", "money", "bread", "sugar", "soap", "coffee", "cheese"}
    if noun in irregular:
        return irregular[noun]
    if noun in unchanged:
        return noun
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def vocabulary() -> frozenset[str]:
    """Every word that a sentence or a keyword clip can hold, in lower case."""
    listed = (NAMES, ADJECTIVES, TRANSITIVE, INTRANSITIVE, BARE, ADVERBS, PREPOSITIONS, DETERMINERS, NUMBERS, SUBJECTS)
    words = {word for group in (*listed, MODALS, QUESTIONS, JOINS, OPENERS, _NOUNS, KEYWORDS) for word in group}
    return frozenset(words | {"an"} | {_plural(noun) for noun in _NOUNS} | set(UNKNOWN_WORDS))


class _Writer:
    """One sentence's choices, all from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, words: tuple[str, ...]) -> str:
        return words[int(self.rng.integers(len(words)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def noun_phrase(self, nouns: tuple[str, ...] = _NOUNS) -> list[str]:
        if self.chance(0.15):
            return [self.pick(NAMES)]
        count = int(self.rng.choice(3, p=(0.45, 0.45, 0.1)))
        adjectives = [ADJECTIVES[i] for i in self.rng.choice(len(ADJECTIVES), count, replace=False)]
        if self.chance(0.2):
            return [self.pick(NUMBERS), *adjectives, _plural(self.pick(nouns))]
        determiner = self.pick(DETERMINERS)
        words = [*adjectives, self.pick(nouns)]
        if determiner == "a" and words[0][0] in "aeiou" and words[0] != "one":
            determiner = "an"
        return [determiner, *words]

    def place(self) -> list[str]:
        return [self.pick(PREPOSITIONS), *self.noun_phrase(PLACES + THINGS)]

    def subject(self) -> list[str]:
        if self.chance(0.3):
            return [self.pick(SUBJECTS)]
        return self.noun_phrase(PEOPLE + ANIMALS + PEOPLE)

    def statement(self) -> list[str]:
        words = self.subject()
        if self.chance(0.2):
            words.append(self.pick(ADVERBS))
        if self.chance(0.3):
            words += [self.pick(INTRANSITIVE), *self.place()]
        elif self.chance(0.3):
            words += [self.pick(MODALS), self.pick(BARE), *self.noun_phrase()]
        else:
            words += [self.pick(TRANSITIVE), *self.noun_phrase()]
            if self.chance(0.3):
                words += self.place()
        if self.chance(0.15):
            words.append(self.pick(ADVERBS))
        return words

    def question(self) -> list[str]:
        words = [self.pick(QUESTIONS), self.pick(MODALS), *self.subject(), self.pick(BARE), *self.noun_phrase()]
        return words if self.chance(0.6) else words[1:]

    def command(self) -> list[str]:
        words = [self.pick(BARE), *self.noun_phrase()]
        if self.chance(0.4):
            words = [self.pick(OPENERS), *words]
        return words + (self.place() if self.chance(0.5) else [self.pick(ADVERBS)])

    def joined(self) -> list[str]:
        return [*self.statement(), self.pick(JOINS), *self.statement()]


def sentence(rng: np.random.Generator, shortest: int = 3, longest: int = 8) -> str:
    """A sentence of lower-case words parted by single spaces.

    Args:
        rng: all its choices come from here.
        shortest: the fewest words.
        longest: the most words.

    Returns:
        text of ``shortest`` to ``longest`` words.
    """
    writer = _Writer(rng)
    forms: list[Callable[[], list[str]]] = [writer.statement, writer.statement, writer.question, writer.command]
    if longest > 8:
        forms += 12 * [writer.joined]  # most of them come out too long, and are written anew
    while True:
        words = forms[int(rng.integers(len(forms)))]()
        if shortest <= len(words) <= longest:
            return " ".join(words)
