"""Simple receipts: shop, address, date, items with prices, total; and the lines real ones have around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vintern_train import fonts, wordlists
from vintern_train.drawing import Page, text_width
from vintern_train.scene import Item, Receipt, Span

if TYPE_CHECKING:
    from random import Random

    from vintern_train.fonts import Face
    from vintern_train.text import TextSource

TOTAL_LABELS = (
    *("Tổng cộng", "Tổng cộng:", "TỔNG CỘNG", "TỔNG CỘNG:", "Tổng tiền:", "TỔNG TIỀN", "Tổng:", "Thành tiền:"),
    *("Tổng thanh toán:", "TỔNG THANH TOÁN", "Cộng:", "Total:", "TỔNG"),
)
DATE_LABELS = ("Ngày: ", "Ngày: ", "Ngày ", "Ngày bán: ", "Thời gian: ", "", "NGÀY: ", "Ngày in: ", "Date: ")
TITLES = ("HÓA ĐƠN", "HÓA ĐƠN BÁN HÀNG", "PHIẾU THANH TOÁN", "Hóa đơn", "PHIẾU TÍNH TIỀN", "RECEIPT", "HOÁ ĐƠN BÁN LẺ")
THANKS = (
    "Cảm ơn quý khách!",
    "Xin cảm ơn!",
    "Cảm ơn và hẹn gặp lại",
    "Hẹn gặp lại quý khách",
    "CẢM ƠN QUÝ KHÁCH",
    "Thank you!",
)
ITEM_STYLES = ("plain", "plain", "plain", "numbered", "quantity", "dashed")


@dataclass(frozen=True)
class Style:
    """What a receipt is made of. A style is held out or not as a whole."""

    items: str
    title: bool
    address: bool
    phone: bool
    date_at: str
    reference: bool
    header: bool
    payment: bool
    thanks: bool
    centred: bool
    rules: str
    total_label: str

    @property
    def held_out(self) -> bool:
        """Whether only the evaluation uses it."""
        return wordlists.is_held_out(repr(self))


def draw_style(random: Random, *, held_out: bool) -> Style:
    """A style of one part."""
    while True:
        style = Style(
            items=random.choice(ITEM_STYLES),
            title=random.random() < 0.35,
            address=random.random() < 0.65,
            phone=random.random() < 0.25,
            date_at=random.choice(("top", "top", "top", "bottom")),
            reference=random.random() < 0.2,
            header=random.random() < 0.15,
            payment=random.random() < 0.25,
            thanks=random.random() < 0.45,
            centred=random.random() < 0.7,
            rules=random.choice(("", "", "solid", "dashed", "dotted")),
            total_label=random.choice(TOTAL_LABELS),
        )
        if style.held_out == held_out:
            return style


class ReceiptWriter:
    """Writes a receipt top to bottom on a page that is cut to length at the end."""

    def __init__(self, source: TextSource, *, unseen: bool) -> None:
        self.source, self.random = source, source.random
        self.style = draw_style(self.random, held_out=source.held_out)
        self.size = self.random.randint(16, 28)
        self.face = self._face(unseen=unseen)
        self.columns = self.random.randint(20, 32)
        self.margin = self.random.uniform(0.4, 1.6) * self.size
        mean = text_width("Cà phê sữa đá 25.000", self.face, self.size) / 20
        self.page = Page(round(self.columns * mean + 2 * self.margin), self.size * 60)
        self.pitch = self.random.uniform(1.2, 1.7) * self.size
        self.baseline = self.random.uniform(0.2, 1.0) * self.size
        self.unit = self.random.choice(("đ", "đ", "", "", "", " đ", "₫"))
        self.separator = self.random.choice("...,")

    def _face(self, *, unseen: bool) -> Face:
        return fonts.pick_face(self.random, "".join(sorted(fonts.REQUIRED)) + "₫!x-", unseen=unseen)

    @property
    def right(self) -> float:
        """The right edge of the text."""
        return self.page.width - self.margin

    def advance(self, scale: float = 1.0) -> None:
        """Goes to the next line."""
        if self.page.canvas.position:
            self.page.canvas.newline()
        self.baseline += self.pitch * scale

    def fit(self, text: str, room: float, size: int) -> str:
        """The longest beginning of whole words of a text that fits in ``room`` pixels."""
        words = text.split(" ")
        while len(words) > 1 and text_width(" ".join(words), self.face, size) > room:
            words.pop()
        return " ".join(words)

    def single(self, text: str, *, scale: float = 1.0, before: str = "") -> Span:
        """A line of its own, centred or at the left; the span is that of ``text`` without ``before``."""
        size = round(self.size * scale)
        while text_width(before + text, self.face, size) > self.right - self.margin and size > 0.7 * self.size:
            size -= 1
        text = self.fit(text, self.right - self.margin - text_width(before, self.face, size), size)
        self.advance(max(scale, 1.0))
        room = self.right - self.margin - text_width(before + text, self.face, size)
        x = self.margin + (room / 2 if self.style.centred else 0.0)
        span = self.page.write(before + text, self.face, size, x, self.baseline)
        return Span(span.start + len(before), span.end)

    def pair(self, left: str, right: str) -> tuple[Span, Span]:
        """A line with a text at the left and another at the right edge."""
        width = text_width(right, self.face, self.size)
        left = self.fit(left, self.right - self.margin - width - 0.8 * self.size, self.size)
        self.advance()
        first = self.page.write(left, self.face, self.size, self.margin, self.baseline)
        left_end = self.margin + text_width(left, self.face, self.size)
        x = max(self.right - width, left_end + 0.4 * self.size)
        self.page.gap(left_end, x, self.baseline, self.size)
        return first, self.page.write(right, self.face, self.size, x, self.baseline)

    def rule(self) -> None:
        """A separating line, where the style has them."""
        if self.style.rules:
            self.baseline += 0.25 * self.pitch
            self.page.rule(self.baseline + 0.1 * self.pitch, self.margin, self.right, self.style.rules)

    def money(self, amount: int) -> str:
        """An amount as this receipt prints it."""
        return self.source.money(amount, self.unit, self.separator)

    def goods(self) -> str:
        """Name of an article."""
        source = self.source
        kind = self.random.random()
        if kind < 0.6:
            return source.pick(source.goods)
        if kind < 0.8:
            return f"{source.pick(source.goods)} {source.words(1)}"
        return source.words(self.random.randint(1, 3)).capitalize()

    def item(self, number: int) -> Item:
        """One article."""
        name, amount = self.goods(), self.source.amount(2, 250)
        if self.style.items == "quantity":
            span = self.single_left(name)
            count = self.random.choice((1, 2, 2, 3, 4, 5))
            each = amount
            _, price = self.pair(f"{count} x {self.money(each)}", self.money(each * count))
            return Item(span, price, each * count)
        before = {"numbered": f"{number}. ", "dashed": "- "}.get(self.style.items, "")
        span, price = self.pair(before + name, self.money(amount))
        return Item(Span(span.start + len(before), span.end), price, amount)

    def single_left(self, text: str) -> Span:
        """A line at the left edge."""
        self.advance()
        text = self.fit(text, self.right - self.margin, self.size)
        return self.page.write(text, self.face, self.size, self.margin, self.baseline)

    def date(self) -> Span:
        """The line with the date."""
        date, label = self.source.date(), self.source.pick(DATE_LABELS)
        span = self.single(date + (f" {self.source.time()}" if self.random.random() < 0.35 else ""), before=label)
        return Span(span.start, span.start + len(date))

    def shop(self) -> Span:
        """The shop's name."""
        source = self.source
        name = source.pick(source.shops) if self.random.random() < 0.5 else self.made_up_shop()
        return self.single(name.upper() if self.random.random() < 0.4 else name, scale=self.random.uniform(1.0, 1.4))

    def made_up_shop(self) -> str:
        """A kind of shop and a name."""
        kinds = ("Quán", "Cửa hàng", "Tiệm", "Siêu thị", "Nhà hàng", "Tạp hóa", "Cà phê", "Shop", "Trà sữa", "Bách hóa")
        return f"{self.source.pick(kinds)} {self.source.titled(self.random.randint(1, 2))}"

    def write(self) -> tuple[Page, float, Receipt]:
        """The whole receipt, the size of its smallest type in pixels, and its fields."""
        style, source = self.style, self.source
        shop = self.shop()
        if style.address:
            self.single(source.address())
        if style.phone:
            self.single(source.pick(("ĐT: ", "Tel: ", "")) + source.phone())
        if style.title:
            self.single(source.pick(TITLES), scale=self.random.uniform(1.0, 1.2))
        if style.reference:
            self.single(f"Số: {source.code()}")
        date = self.date() if style.date_at == "top" else None
        self.rule()
        if style.header:
            self.pair(*self.random.choice((("Tên hàng", "Thành tiền"), ("Mặt hàng", "Giá"), ("Tên món", "T.Tiền"))))
        items = tuple(self.item(number + 1) for number in range(self.random.choice((1, 2, 2, 3, 3, 4, 5))))
        self.rule()
        amount = sum(item.amount for item in items)
        _, total = self.pair(self.total_label(self.money(amount)), self.money(amount))
        if style.payment:
            self.payment(amount)
        if date is None:
            date = self.date()
        if style.thanks:
            self.single(source.pick(THANKS))
        self.page.mask = self.page.mask.crop((0, 0, self.page.width, self.length()))
        return self.page, 0.85 * self.size, Receipt(shop, date, items, total, amount)

    def total_label(self, money: str) -> str:
        """The style's word for the total, or a short one where that does not fit beside the amount."""
        room = self.right - self.margin - text_width(f"{self.style.total_label}  {money}", self.face, self.size)
        return self.style.total_label if room > 0 else "Tổng"

    def payment(self, amount: int) -> None:
        """What the customer gave and got back: numbers that are not the total."""
        given = -(-amount // 50_000) * 50_000
        self.pair(self.source.pick(("Tiền mặt", "Khách đưa:", "Tiền khách đưa")), self.money(given))
        self.pair(self.source.pick(("Tiền thừa", "Trả lại:", "Thối lại")), self.money(given - amount))

    def length(self) -> int:
        """Height of the finished page."""
        return round(self.baseline + self.random.uniform(0.5, 1.4) * self.size)
