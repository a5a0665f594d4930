"""Texts to render: words, names, dates, amounts, sentences, all drawn from one seeded generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vintern_train import wordlists

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

VOWELS = "aàáảãạăằắẳẵặâầấẩẫậeèéẻẽẹêềếểễệiìíỉĩịoòóỏõọôồốổỗộơờớởỡợuùúủũụưừứửữựyỳýỷỹỵ"
CONSONANTS = "bcdđfghjklmnpqrstvwxz"
PUNCTUATION = "!\"#%&'()*+,-./:;<=>?@[]_{}~–“”…₫"
LETTERS = sorted({case for letter in VOWELS + CONSONANTS for case in (letter, letter.upper())})
CHARACTERS = (" ", *"0123456789", *PUNCTUATION, *LETTERS)
"""Every character the model can read, one token each; the order is that of the classes of the patch head."""

MONEY_UNITS = ("đ", "đ", "đ", " đ", " VND", "₫", "", "", "")


class TextSource:
    """Draws texts of one part of the vocabulary.

    Args:
        random: the only source of chance.
        held_out: draw from the held-out words, phrases and amounts instead of the training ones.
    """

    def __init__(self, random: Random, *, held_out: bool) -> None:
        self.random = random
        self.held_out = held_out
        self.syllables = wordlists.vietnamese_syllables(held_out=held_out)
        self.english = wordlists.english_words(held_out=held_out)
        self.shops = wordlists.part_of("shops", held_out=held_out)
        self.goods = wordlists.part_of("goods", held_out=held_out)
        self.streets = wordlists.part_of("streets", held_out=held_out)
        self.places = wordlists.part_of("places", held_out=held_out)
        self.sentences = wordlists.part_of("sentences", held_out=held_out)

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return self.random.random() < probability

    def pick(self, choices: Sequence[str]) -> str:
        """One of several."""
        return self.random.choice(choices)

    def cased(self, text: str) -> str:
        """The text in lower case, sentence case, title case or upper case."""
        style = self.random.random()
        if style < 0.35:
            return text
        if style < 0.65:
            return text[:1].upper() + text[1:]
        if style < 0.8:
            return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
        return text.upper()

    def words(self, count: int) -> str:
        """``count`` Vietnamese syllables, now and then an English word."""
        return " ".join(self.pick(self.english if self.chance(0.1) else self.syllables) for _ in range(count))

    def name(self) -> str:
        """A person's name."""
        parts = [
            self.pick(wordlists.phrases("family_names")),
            self.pick(wordlists.phrases("middle_names")),
            self.pick(wordlists.phrases("given_names")),
        ]
        return " ".join(parts if self.chance(0.8) else parts[::2])

    def amount(self, low: int = 1, high: int = 900) -> int:
        """An amount in đồng, a multiple of 500, of this part."""
        while True:
            scale = self.random.choice((1, 1, 1, 10)) if high > 100 else 1
            amount = self.random.randint(2 * low, 2 * high) * 500 * scale
            if wordlists.is_held_out(f"amount {amount}") == self.held_out:
                return amount

    def money(self, amount: int, unit: str | None = None, separator: str | None = None) -> str:
        """An amount as it is printed: ``125.000đ``, ``125,000 VND``."""
        separator = separator or self.pick("...,")
        return f"{amount:,}".replace(",", separator) + (self.pick(MONEY_UNITS) if unit is None else unit)

    def date(self) -> str:
        """A date of this part."""
        while True:
            day, month, year = self.random.randint(1, 31), self.random.randint(1, 12), self.random.randint(1990, 2035)
            if wordlists.is_held_out(f"date {day} {month} {year}") == self.held_out:
                break
        separator = self.pick("///-.")
        style = self.random.random()
        if style < 0.75:
            return f"{day:02}{separator}{month:02}{separator}{year}"
        if style < 0.85:
            return f"{day}{separator}{month}{separator}{year}"
        if style < 0.93:
            return f"{day:02}{separator}{month:02}{separator}{year % 100:02}"
        return f"{year}-{month:02}-{day:02}"

    def time(self) -> str:
        """A time of day."""
        time = f"{self.random.randint(0, 23):02}:{self.random.randint(0, 59):02}"
        return time + (f":{self.random.randint(0, 59):02}" if self.chance(0.3) else "")

    def digits(self, count: int) -> str:
        """``count`` digits."""
        return "".join(self.random.choices("0123456789", k=count))

    def phone(self) -> str:
        """A telephone number."""
        number = "0" + self.digits(9)
        separator = self.pick(("", " ", ".", "-"))
        return separator.join((number[:4], number[4:7], number[7:])) if separator else number

    def address(self) -> str:
        """A street address."""
        number = str(self.random.randint(1, 399)) + (f"/{self.random.randint(1, 40)}" if self.chance(0.2) else "")
        street = self.pick(self.streets) if self.chance(0.6) else self.titled(self.random.randint(1, 3))
        address = f"{number} {'Đường ' if self.chance(0.15) else ''}{street}"
        return f"{address}, {self.pick(self.places)}" if self.chance(0.5) else address

    def titled(self, count: int) -> str:
        """``count`` syllables in title case."""
        return " ".join(self.pick(self.syllables).capitalize() for _ in range(count))

    def code(self) -> str:
        """A reference such as ``HD-00123``."""
        letters = "".join(self.random.choices("ABCDEGHKLMNPQRSTVX", k=self.random.randint(1, 3)))
        return letters + self.pick(("", "-", "/", "#", "_", " ")) + self.digits(self.random.randint(2, 6))

    def noise(self) -> str:
        """Characters at random: what words alone would never teach."""
        letters = self.random.choices(CHARACTERS[1:], k=self.random.randint(3, 8))
        return "".join(letters)

    def line(self) -> str:
        """One line of general text."""
        style = self.random.random()
        if style < 0.48:
            text = self.cased(self.words(self.random.randint(1, 6)))
            return self.punctuated(text)
        if style < 0.58:
            return self.cased(self.pick(self.sentences))
        if style < 0.64:
            return self.name() if self.chance(0.5) else self.address()
        if style < 0.70:
            return f"{self.titled(self.random.randint(1, 2))}: {self.money(self.amount())}"
        if style < 0.76:
            return (
                self.pick(("Ngày ", "", "Date: ", "")) + self.date() + (f" {self.time()}" if self.chance(0.3) else "")
            )
        if style < 0.81:
            return self.pick(("ĐT: ", "Tel: ", "", "Hotline ")) + self.phone()
        if style < 0.86:
            return f"{self.code()} {self.words(1)}" if self.chance(0.5) else self.code()
        if style < 0.93:
            return " ".join(self.pick(self.english) for _ in range(self.random.randint(1, 4))).capitalize()
        if style < 0.96:
            return f"{self.words(1)} {self.digits(self.random.randint(1, 5))}%"
        return f"{self.words(1)} {self.noise()}" if self.chance(0.5) else self.noise()

    def punctuated(self, text: str) -> str:
        """The text with a little punctuation in or around it."""
        style = self.random.random()
        words = text.split(" ")
        if style < 0.5:
            return text
        if style < 0.68:
            return text + self.pick((".", ".", "!", "?", ":", ";", "…", ","))
        if style < 0.8 and len(words) > 1:
            place = self.random.randrange(len(words) - 1)
            words[place] += self.pick((",", ",", ".", ":", ";", " -", " –", "/", " &", " +"))
            return " ".join(words)
        brackets = self.pick(("()", '""', "“”", "[]", "''", "**", "<>", "{}"))
        place = self.random.randrange(len(words))
        words[place] = brackets[0] + words[place] + brackets[1]
        return " ".join(words)
