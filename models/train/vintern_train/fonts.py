"""Fonts for rendering: which families are trained on, which are kept unseen, and what each can draw."""

from __future__ import annotations

import functools
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fontTools.ttLib import TTFont
from PIL import ImageFont

from vintern_train.text import CHARACTERS

if TYPE_CHECKING:
    from random import Random

logging.getLogger("fontTools").setLevel(logging.ERROR)  # some fonts have odd dates, which matter to nobody here

FONT_ROOT = Path("/usr/share/fonts")
SEEN = {
    "Noto Sans": "truetype/noto/NotoSans-*.ttf",
    "Noto Serif": "truetype/noto/NotoSerif-*.ttf",
    "Noto Sans Mono": "truetype/noto/NotoSansMono-*.ttf",
    "Roboto": "truetype/roboto/unhinted/RobotoTTF/Roboto-*.ttf",
    "Roboto Condensed": "truetype/roboto/unhinted/RobotoCondensed-*.ttf",
    "Open Sans": "truetype/open-sans/OpenSans-*.ttf",
    "Inter": "opentype/inter/Inter-*.otf",
    "JetBrains Mono": "truetype/jetbrains-mono/JetBrainsMono-*.ttf",
    "Carlito": "truetype/crosextra/Carlito-*.ttf",
    "Charis SIL": "truetype/charis/CharisSIL-*.ttf",
    "Andika": "truetype/andika/Andika-*.ttf",
    "Arimo": "truetype/croscore/Arimo-*.ttf",
    "Tinos": "truetype/croscore/Tinos-*.ttf",
    "Cousine": "truetype/croscore/Cousine-*.ttf",
    "DejaVu Sans": "truetype/dejavu/DejaVuSans*.ttf",
    "DejaVu Serif": "truetype/dejavu/DejaVuSerif*.ttf",
    "FreeSans": "truetype/freefont/FreeSans*.ttf",
    "FreeSerif": "truetype/freefont/FreeSerif*.ttf",
    "FreeMono": "truetype/freefont/FreeMono*.ttf",
    "Linux Libertine": "opentype/linux-libertine/LinLibertine_*.otf",
    "League Spartan": "opentype/league-spartan/LeagueSpartan-*.otf",
    "Junicode": "opentype/junicode/JunicodeTwoBeta-*.otf",
    "Vollkorn": "truetype/vollkorn/Vollkorn-*.ttf",
    "Quicksand": "truetype/quicksand/Quicksand-*.ttf",
    "Comfortaa": "truetype/comfortaa/Comfortaa-*.ttf",
}
"""Families of the training images, and where Debian puts them."""
UNSEEN = {
    "Lato": "truetype/lato/Lato-*.ttf",
    "Clear Sans": "truetype/clear-sans/ClearSans-*.ttf",
    "Cantarell": "opentype/cantarell/Cantarell-*.otf",
    "EB Garamond": "opentype/ebgaramond/EBGaramond12-*.otf",
    "Linux Biolinum": "opentype/linux-libertine/LinBiolinum_R*.otf",
    "Gentium": "truetype/gentium/Gentium-*.ttf",
    "Ricty Diminished": "truetype/ricty-diminished/RictyDiminished-*.ttf",
}
"""Families only the evaluation draws with; none is a copy or a metric twin of a family above."""
ODD_WEIGHTS = ("Thin", "Hairline", "ExtraLight", "Black", "ExtraCondensed", "MathTeXGyre", "_RZ")
"""Parts of file names of cuts too thin, fat or narrow for running text."""
REQUIRED = {c for c in CHARACTERS if c.isalnum()} | set(".,:-/()%")
CACHE_SIZE = 384
UNUSED_TABLES = frozenset({"fpgm", "prep", "cvt ", "hdmx", "VDMX", "LTSH", "GSUB", "GPOS", "GDEF", "DSIG"})


@dataclass(frozen=True)
class Face:
    """One font file and the characters it can draw, of those the model reads."""

    family: str
    path: Path
    characters: frozenset[str]

    def covers(self, text: str) -> bool:
        """Whether every character of a text has a glyph."""
        return self.characters.issuperset(text.replace("\n", ""))


@functools.cache
def faces(*, unseen: bool) -> dict[str, tuple[Face, ...]]:
    """The usable faces of each family, by family name.

    A face without the whole Vietnamese alphabet is left out: it would draw boxes.

    Raises:
        FileNotFoundError: a family has no usable file.
    """
    families = {}
    for family, pattern in (UNSEEN if unseen else SEEN).items():
        found = [read_face(family, path) for path in sorted(FONT_ROOT.glob(pattern)) if is_regular(path)]
        families[family] = tuple(face for face in found if face.characters >= REQUIRED)
        if not families[family]:
            raise FileNotFoundError(
                f"no font of the family {family} under {FONT_ROOT / pattern} draws Vietnamese\n"
                "hint: install the Debian packages listed in fonts.txt"
            )
    return families


def is_regular(path: Path) -> bool:
    """Whether a file is a cut for running text."""
    return not any(part in path.stem for part in ODD_WEIGHTS)


def read_face(family: str, path: Path) -> Face:
    """Reads the character map of a font file."""
    with TTFont(path, lazy=True) as font:
        mapped = font.getBestCmap()
    return Face(family, path, frozenset(c for c in CHARACTERS if ord(c) in mapped))


def pick_face(random: Random, text: str, *, unseen: bool) -> Face:
    """A face, families equally likely, that can draw a text.

    Raises:
        ValueError: no face can.
    """
    families = faces(unseen=unseen)
    for _ in range(50):
        face = random.choice(families[random.choice(list(families))])
        if face.covers(text):
            return face
    raise ValueError(f"no font found for {text!r}")


@functools.cache
def outlines(path: Path) -> bytes:
    """A font file without hinting programs and layout tables.

    Running the programs takes ten times as long as drawing the outlines. Glyphs keep theirs, but with none declared in
    ``maxp`` FreeType fits outlines to the pixels by its own means.
    """
    with TTFont(path, lazy=True, recalcBBoxes=False, recalcTimestamp=False) as font:
        for table in UNUSED_TABLES.intersection(font.keys()):
            del font[table]
        if "glyf" in font:
            font["maxp"].maxSizeOfInstructions = 0
        stripped = io.BytesIO()
        font.save(stripped, reorderTables=None)
    return stripped.getvalue()


class SizedFont:
    """A font at a size in pixels, with the widths of the characters it has drawn."""

    def __init__(self, path: Path, size: int) -> None:
        file = io.BytesIO(outlines(path))
        self.font = ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
        self._advances: dict[str, float] = {}

    def advances(self, text: str) -> list[float]:
        """Width of each character in pixels, without kerning."""
        for character in set(text).difference(self._advances):
            self._advances[character] = self.font.getlength(character)
        return [self._advances[character] for character in text]

    def width(self, text: str) -> float:
        """Width of a text in pixels, without kerning."""
        return sum(self.advances(text))


@functools.lru_cache(maxsize=CACHE_SIZE)
def load(path: Path, size: int) -> SizedFont:
    """A font at a size in pixels."""
    return SizedFont(path, size)
