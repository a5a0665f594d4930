"""Words and phrases the generator draws from, each split once and for all into a training and a held-out part.

The split is by a hash of the word, so it never depends on the order of a list or on a random state: a word of the
held-out part appears in no training image.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from pathlib import Path

VIETNAMESE_DICTIONARY = Path("/usr/share/hunspell/vi_VN.dic")
ENGLISH_DICTIONARY = Path("/usr/share/dict/american-english")
HELD_OUT_SHARE = 10
"""One word in this many is held out."""

SHOPS = """
Cà phê Sáng|Quán cơm Tấm Mai|Phở Hà Nội|Bánh mì Hoà Mã|Nhà sách Phương Đông|Siêu thị Hồng Phúc|Tạp hoá Cô Ba|Trà sữa Ngọc
Bún bò Huế O Lan|Nhà thuốc An Khang|Tiệm bánh Mỹ Dung|Cửa hàng Minh Quân|Chè Thái Ý Phương|Quán ốc Đào|Kem Tràng Tiền
Hải sản Biển Đông|Giày dép Thượng Đình|Điện máy Gia Hưng|Rau sạch Đà Lạt|Trái cây Vườn Nhà|Mì Quảng Ếch|Lẩu dê Nhất Ly
Cơm niêu Thiên Lý|Xôi Yến|Bánh xèo Mười Xiềm|Hủ tiếu Nam Vang|Vải lụa Vạn Phúc|Đồ chơi Bé Yêu|Hoa tươi Dã Quỳ|Gà rán Ụt Ụt
Sửa xe Thành Đạt|Photo copy Quỳnh Anh|Nước mía Cẩm Tú|Quán nhậu Bờ Kè|Tiệm vàng Kim Thành|Thời trang Ngân Hà|Mắt kính Việt
""".strip()

GOODS = """
Cà phê sữa đá|Cà phê đen|Bạc xỉu|Trà đá|Trà đào cam sả|Nước cam|Sinh tố bơ|Nước suối|Bia hơi|Nước ngọt|Sữa chua|Sữa tươi
Phở bò tái|Phở gà|Bún chả|Bún bò|Bún riêu|Hủ tiếu|Mì xào bò|Cơm tấm sườn|Cơm gà|Cơm chiên|Xôi gà|Bánh mì thịt|Bánh mì trứng
Bánh cuốn|Bánh xèo|Gỏi cuốn|Chả giò|Nem rán|Canh chua|Rau muống xào|Đậu hũ|Trứng vịt|Thịt heo|Thịt bò|Cá thu|Tôm sú|Mực khô
Gạo ST25|Mì gói|Nước mắm|Nước tương|Dầu ăn|Đường cát|Muối i-ốt|Bột ngọt|Tiêu xay|Tương ớt|Hành tím|Tỏi|Ớt hiểm|Chanh dây
Xoài cát|Chuối già|Dưa hấu|Thanh long|Sầu riêng|Mãng cầu|Ổi|Bưởi da xanh|Vú sữa|Chôm chôm|Kem que|Bánh quy|Kẹo dừa|Mứt gừng
Bút bi|Vở kẻ ngang|Thước kẻ|Tẩy|Giấy A4|Hồ dán|Kéo|Băng keo|Bao thư|Pin AA|Bóng đèn|Xà phòng|Dầu gội|Kem đánh răng|Bàn chải
Khăn giấy|Nước rửa chén|Bột giặt|Khẩu trang|Áo thun|Quần đùi|Dép lê|Mũ bảo hiểm|Áo mưa|Ô che mưa|Vé gửi xe|Phí giao hàng
Lẩu thái|Ốc hương|Nghêu hấp sả|Khoai lang|Bắp rang bơ|Chè đậu đỏ|Rau câu|Sương sáo|Trà sữa|Trân châu|Hồng trà|Yaourt|Soda chanh
""".strip()

STREETS = """
Nguyễn Trãi|Lê Lợi|Trần Hưng Đạo|Hai Bà Trưng|Lý Thường Kiệt|Điện Biên Phủ|Phan Chu Trinh|Hùng Vương|Quang Trung|Bà Triệu
Nguyễn Thị Minh Khai|Cách Mạng Tháng Tám|Võ Văn Tần|Pasteur|Đồng Khởi|Hàm Nghi|Tôn Đức Thắng|Lạc Long Quân|Âu Cơ|Kim Mã
Đội Cấn|Xuân Thuỷ|Cầu Giấy|Giải Phóng|Trường Chinh|Lê Duẩn|Ngô Quyền|Bạch Đằng|Yết Kiêu|Phạm Ngũ Lão|Bùi Viện|Ỷ Lan|Ông Ích Khiêm
""".strip()

PLACES = """
Q.1, TP.HCM|Quận 3, TP. Hồ Chí Minh|Hoàn Kiếm, Hà Nội|Ba Đình, Hà Nội|Hải Châu, Đà Nẵng|TP. Huế|Cần Thơ|Đà Lạt|Nha Trang|Vũng Tàu
Biên Hoà|Thủ Đức|Hải Phòng|Nam Định|Vinh, Nghệ An|Buôn Ma Thuột|Quy Nhơn|Mỹ Tho|Bắc Ninh|Hạ Long|Phú Quốc|Cà Mau|Gò Vấp, TP.HCM
""".strip()

SENTENCES = """
Xin chào quý khách|Cảm ơn quý khách|Hẹn gặp lại|Giảm giá đến hết tháng|Cấm hút thuốc|Đi nhẹ, nói khẽ|Giữ gìn vệ sinh chung
Không phận sự miễn vào|Giờ mở cửa|Nhà vệ sinh|Lối thoát hiểm|Khu vực để xe|Cộng hòa xã hội chủ nghĩa Việt Nam|Độc lập - Tự do - Hạnh phúc
Giấy chứng nhận|Hợp đồng lao động|Biên bản bàn giao|Đơn xin nghỉ phép|Kính gửi ban giám đốc|Thông báo tuyển dụng|Bảng giá dịch vụ
Hóa đơn bán hàng|Phiếu thu tiền|Bảo hành mười hai tháng|Sản phẩm không đường|Hàng Việt Nam chất lượng cao|Hạn sử dụng|Nơi sản xuất
Thành phần dinh dưỡng|Bảo quản nơi khô ráo|Lắc đều trước khi uống|Để xa tầm tay trẻ em|Họ và tên|Ngày tháng năm sinh|Địa chỉ thường trú
Số điện thoại liên hệ|Mã số thuế|Người mua hàng|Người bán hàng|Ký và ghi rõ họ tên|Số tiền bằng chữ|Năm trăm nghìn đồng chẵn
Welcome to Vietnam|Thank you for coming|No smoking|Please keep quiet|Open every day|Free wifi|Sale off|Best before|Made in Vietnam
""".strip()

FAMILY_NAMES = "Nguyễn Trần Lê Phạm Hoàng Huỳnh Phan Vũ Võ Đặng Bùi Đỗ Hồ Ngô Dương Lý Trịnh Đinh Mai Tô Đoàn Lưu".split()
GIVEN_NAMES = """
An Anh Bình Châu Chi Cường Dũng Dung Duy Đạt Đức Giang Hà Hải Hạnh Hằng Hiếu Hoa Hùng Hương Khánh Khoa Kiên Lan Linh Long Mai
Minh My Nam Nga Ngân Ngọc Nhung Oanh Phúc Phương Quân Quang Quỳnh Sơn Tâm Thảo Thắng Thịnh Thu Thuỷ Trang Trung Tuấn Tú Uyên
Vân Việt Vy Xuân Yến Ái Ẩn Ý
""".split()
MIDDLE_NAMES = "Văn Thị Đức Hữu Ngọc Minh Thanh Quốc Xuân Thuỳ Kim Hoài Bảo Gia Như Thế".split()


def is_held_out(word: str) -> bool:
    """Whether a word, phrase or number belongs to the held-out part."""
    return zlib.crc32(word.casefold().encode()) % HELD_OUT_SHARE == 0


def split_phrases(block: str, *, held_out: bool) -> tuple[str, ...]:
    """The phrases of one of the blocks above that belong to a part."""
    phrases = [unicodedata.normalize("NFC", phrase.strip()) for phrase in re.split(r"[|\n]", block)]
    return tuple(phrase for phrase in phrases if phrase and is_held_out(phrase) == held_out)


@functools.cache
def vietnamese_syllables(*, held_out: bool) -> tuple[str, ...]:
    """Lower-case Vietnamese syllables of a part, in the order of the dictionary.

    Raises:
        FileNotFoundError: the Debian package hunspell-vi is not installed.
    """
    lines = read_dictionary(VIETNAMESE_DICTIONARY, "hunspell-vi").splitlines()[1:]
    words = (unicodedata.normalize("NFC", line.split("/")[0].strip()) for line in lines)
    return tuple(word for word in words if word.isalpha() and word.islower() and is_held_out(word) == held_out)


@functools.cache
def english_words(*, held_out: bool) -> tuple[str, ...]:
    """Lower-case English words of 2 to 9 letters of a part.

    Raises:
        FileNotFoundError: the Debian package wamerican is not installed.
    """
    words = read_dictionary(ENGLISH_DICTIONARY, "wamerican").split()
    return tuple(w for w in words if re.fullmatch("[a-z]{2,9}", w) and is_held_out(w) == held_out)


def read_dictionary(path: Path, package: str) -> str:
    """A dictionary file, or an error that names the Debian package it comes in."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing\nhint: install the Debian package {package} (see fonts.txt)")
    return path.read_text(encoding="utf-8")
