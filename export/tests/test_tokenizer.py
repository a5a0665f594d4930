import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from support import golden
from support.checkpoints import copy_checkpoint
from support.runtime import Package
from vintern_export.added_tokens import FLAGS
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.tokenizer import export_tokenizer

ROWS = 931


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def change_config(folder: Path, **values: object) -> None:
    """Changes ``tokenizer_config.json``; a value of ... removes the key."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def only_in_the_map(folder: Path) -> None:
    """An older checkpoint: no decoder, the special tokens in ``special_tokens_map.json`` alone."""
    change_config(folder, **dict.fromkeys(("added_tokens_decoder", "additional_special_tokens", "eos_token"), ...))
    change_json(folder / "special_tokens_map.json", unk_token=None)


def map_of_strings(folder: Path) -> None:
    only_in_the_map(folder)
    change_json(folder / "special_tokens_map.json", eos_token="<|im_end|>", pad_token="<|endoftext|>")


def map_of_objects(folder: Path) -> None:
    only_in_the_map(folder)
    path = folder / "special_tokens_map.json"
    listed = json.loads(path.read_text())["additional_special_tokens"]
    change_json(path, additional_special_tokens=[{"content": token, "special": True} for token in listed])


def map_and_config_share_the_list(folder: Path) -> None:
    change_config(folder, added_tokens_decoder=...)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    listed = config["additional_special_tokens"]
    change_config(folder, additional_special_tokens=listed[:4])
    change_json(folder / "special_tokens_map.json", additional_special_tokens=listed[4:])


def configuration_of_objects(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    listed = [{"content": token} for token in config["additional_special_tokens"]]
    change_config(folder, eos_token={"content": "<|im_end|>"}, additional_special_tokens=listed)


def map_that_no_longer_counts(folder: Path) -> None:
    """Beside ``added_tokens_decoder`` the reference does not read it."""
    extra = ["<img>", "<tool_call>"]
    change_json(folder / "special_tokens_map.json", eos_token="</img>", additional_special_tokens=extra)


def windows_line_ends(folder: Path) -> None:
    remove(folder, "tokenizer.json")
    for path in (folder / "merges.txt", folder / "vocab.json", folder / "tokenizer_config.json"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def merges_without_a_version(folder: Path) -> None:
    remove(folder, "tokenizer.json")
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1] + b"\n\n")


def tokenizer_file_without_image_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    if path.exists():
        added = [entry for entry in json.loads(path.read_text())["added_tokens"] if entry["id"] < 922]
        change_json(path, added_tokens=added)


FORMS: dict[str, Callable[[Path], None]] = {
    "decoder only": lambda folder: remove(folder, "added_tokens.json", "special_tokens_map.json"),
    "added_tokens.json only": lambda folder: change_config(folder, added_tokens_decoder=...),
    "decoder is null": lambda folder: change_config(folder, added_tokens_decoder=None),
    "no tokenizer.json": lambda folder: remove(folder, "tokenizer.json"),
    "special tokens in the map": only_in_the_map,
    "map of strings": map_of_strings,
    "map of objects": map_of_objects,
    "map and configuration": map_and_config_share_the_list,
    "configuration of objects": configuration_of_objects,
    "map beside a decoder": map_that_no_longer_counts,
    "CR LF": windows_line_ends,
    "no version line": merges_without_a_version,
    "incomplete tokenizer.json": tokenizer_file_without_image_tokens,
}


@pytest.mark.parametrize(
    ("values", "skipped"),
    [
        ({}, (900, 902)),
        ({"bos_token": "<|im_start|>", "unk_token": {"content": "<img>"}}, (900, 901, 902, 922)),
        ({"eos_token": None, "pad_token": None}, ()),
        ({"eos_token": ..., "unk_token": ...}, (900,)),
        ({"pad_token": "<box>", "unk_token": ""}, (902, 929)),
        ({"additional_special_tokens": None}, (900, 902)),
        ({"additional_special_tokens": ...}, (900, 902)),
        ({"additional_special_tokens": ["<quad>", {"content": "<ref>"}, "<no such token>"]}, (900, 902, 925, 927)),
        ({"extra_special_tokens": {"context_image_token": "<IMG_CONTEXT>"}}, (900, 902, 924)),
    ],
)
def test_ids_left_out_of_text(tmp_path: Path, values: dict[str, object], skipped: tuple[int, ...]) -> None:
    """A missing key takes the class's default, which is <|endoftext|> for eos, pad and unk; null is no token."""
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    change_config(folder, additional_special_tokens=[])
    change_config(folder, **values)
    assert export_tokenizer(folder, ROWS, None).ids.skipped_in_text == skipped


def test_the_padding_token(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    for value, pad in (("<box>", 929), ({"content": "<ref>"}, 927), (None, 900), (..., 900)):
        change_config(folder, pad_token=value)
        assert export_tokenizer(folder, ROWS, None).ids.pad == pad


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_special_tokens_of_the_plain_vocabulary_are_matched_literally(tmp_path: Path, name: str) -> None:
    folder = copy_checkpoint(golden.checkpoint(name), tmp_path / "checkpoint")
    remove(folder, "added_tokens.json", "special_tokens_map.json")
    path = folder / "tokenizer_config.json"
    decoder = json.loads(path.read_text())["added_tokens_decoder"]
    entry = decoder.pop("902")
    assert entry["content"] == "<|im_end|>"
    change_config(folder, added_tokens_decoder=decoder)
    change_json(folder / "vocab.json", **{"<|im_end|>": 902})
    if name == "ckpt_a":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["<|im_end|>"] = 902
        added = [token for token in tokenizer["added_tokens"] if token["id"] != 902]
        change_json(folder / "tokenizer.json", model=tokenizer["model"], added_tokens=added)
    exported = export_tokenizer(folder, ROWS, None)
    assert_reference(Tokenizer.from_str(exported.json_text), set(exported.ids.skipped_in_text), name)


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_ids_with_gaps_are_kept(tmp_path: Path, name: str) -> None:
    folder = copy_checkpoint(golden.checkpoint(name), tmp_path / "checkpoint")
    remove(folder, "special_tokens_map.json", "added_tokens.json")
    path = folder / "tokenizer_config.json"
    decoder = json.loads(path.read_text())["added_tokens_decoder"]
    change_config(folder, added_tokens_decoder={str(int(key) + 50): entry for key, entry in decoder.items()})
    if name == "ckpt_a":
        added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
        change_json(folder / "tokenizer.json", added_tokens=[entry | {"id": entry["id"] + 50} for entry in added])
    exported = export_tokenizer(folder, ROWS + 50, None)
    assert (exported.ids.eos, exported.ids.image_context, exported.size) == (952, 974, ROWS + 50)
    tokenizer = Tokenizer.from_str(exported.json_text)
    table = json.loads((golden.GOLDEN / f"{name}.tokenizer.json").read_text())
    for text, ids in table["encode"]:
        moved = [i + 50 if i >= 900 else i for i in ids]
        assert tokenizer.encode(text, add_special_tokens=False).ids == moved, text
        assert tokenizer.decode(moved, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "decoder: found list; supported: a JSON object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"922": "<img>"}}, r"decoder\.922: found '<img>'; supported"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"922": {"special": True}}}, r"decoder\.922: found"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<img>"}}}, r"decoder\.x: found"),
        ("added_tokens.json", {"<img>": "922"}, "<img>: found '922'; supported: an integer id"),
        ("added_tokens.json", {"<other>": 922}, "added token id 922: found both <img> and <other>; supported: one token"),
        ("vocab.json", {"<img>": 5}, r"vocab\.json id 922: found .*; supported: <img>, or nothing"),
    ],
)  # fmt: skip
def test_malformed_files(tmp_path: Path, file: str, values: dict[str, object], message: str) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    change_json(folder / file, **values)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        export_tokenizer(folder, ROWS, None)


def test_a_malformed_tokenizer_file(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    change_json(folder / "tokenizer.json", added_tokens=[{"content": "<img>"}])
    with pytest.raises(
        UnsupportedCheckpointError, match=r"added_tokens: found an entry without 'id'; supported: objects"
    ):
        export_tokenizer(folder, ROWS, None)
    colliding = {"id": 5, "content": "<new>", **dict.fromkeys(FLAGS, False)}
    change_json(folder / "tokenizer.json", added_tokens=[colliding])
    with pytest.raises(
        UnsupportedCheckpointError, match="added_tokens: found ids of other tokens; supported: one token"
    ):
        export_tokenizer(folder, ROWS, None)
    change_json(folder / "tokenizer.json", added_tokens=[], pre_tokenizer={"type": "NoSuchThing"})
    with pytest.raises(UnsupportedCheckpointError, match=r"tokenizer\.json: found something that does not load"):
        export_tokenizer(folder, ROWS, None)


def test_malformed_merges(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    (folder / "merges.txt").write_text("#version: 0.2\na b\na b c\n")
    with pytest.raises(UnsupportedCheckpointError, match=r"merges\.txt merge 1: found 'a b c'; supported: two tokens"):
        export_tokenizer(folder, ROWS, None)
    (folder / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UnsupportedCheckpointError, match=r"merges\.txt: found text that is not UTF-8"):
        export_tokenizer(folder, ROWS, None)


def assert_reference(tokenizer: Tokenizer, skipped: set[int], name: str) -> None:
    """Encodes and decodes as the golden tables of a checkpoint say."""
    table = json.loads((golden.GOLDEN / f"{name}.tokenizer.json").read_text())
    assert sorted(skipped) == sorted(table["special_ids_skipped"])
    for text, ids in table["encode"]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
    for ids, without_special, with_special, _ in table["decode"]:
        kept = [i for i in ids if i not in skipped]
        assert tokenizer.decode(kept, skip_special_tokens=False) == without_special
        assert tokenizer.decode(ids, skip_special_tokens=False) == with_special
    for content, identifier in table["all_added"].items():
        assert tokenizer.token_to_id(content) == identifier


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_encoding_and_decoding_are_the_reference(packages: dict[str, Package], name: str) -> None:
    package = packages[name]
    assert_reference(package.tokenizer, set(package.manifest["tokens"]["skipped_in_text"]), name)


def test_special_ids_are_looked_up_by_name(packages: dict[str, Package]) -> None:
    tokens = packages["ckpt_b"].manifest["tokens"]
    ids = {key: tokens[key] for key in ("eos", "pad", "image_start", "image_end", "image_context")}
    assert ids == {"eos": 902, "pad": 900, "image_start": 922, "image_end": 923, "image_context": 924}


def test_a_tokenizer_file_that_lacks_added_tokens_is_completed(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    path = folder / "tokenizer.json"
    complete = json.loads(path.read_text())
    change_json(path, added_tokens=[t for t in complete["added_tokens"] if t["content"] != "<IMG_CONTEXT>"])
    exported = export_tokenizer(folder, ROWS, None)
    assert exported.ids.image_context == 924
    encoded = Tokenizer.from_str(exported.json_text).encode("a<IMG_CONTEXT>b", add_special_tokens=False)
    assert 924 in encoded.ids
    assert json.loads(exported.json_text) == complete


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_the_same_tokenizer(tmp_path: Path, name: str, form: str) -> None:
    """``ckpt_a`` has a ``tokenizer.json``, ``ckpt_b`` vocabulary and merges; both have all the other files."""
    folder = copy_checkpoint(golden.checkpoint(name), tmp_path / "checkpoint")
    FORMS[form](folder)
    exported = export_tokenizer(folder, ROWS, None)
    assert_reference(Tokenizer.from_str(exported.json_text), set(exported.ids.skipped_in_text), name)
    assert exported.ids == export_tokenizer(golden.checkpoint(name), ROWS, None).ids


def test_disagreements_are_refused(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    change_json(folder / "added_tokens.json", **{"<img>": 1})
    with pytest.raises(UnsupportedCheckpointError, match=r"added_tokens\.json <img>: found 1; supported: 922"):
        export_tokenizer(folder, ROWS, None)
    with pytest.raises(UnsupportedCheckpointError, match="found id 930"):
        export_tokenizer(golden.checkpoint("ckpt_a"), 930, None)
    with pytest.raises(UnsupportedCheckpointError, match="image_token_id: found 5; supported: 924"):
        export_tokenizer(golden.checkpoint("ckpt_a"), ROWS, 5)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    change_json(folder / "tokenizer.json", model={"type": "Unigram", "vocab": []})
    with pytest.raises(UnsupportedCheckpointError, match="found 'Unigram'; supported: BPE"):
        export_tokenizer(folder, ROWS, None)
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"vocab\.json and merges\.txt"):
        export_tokenizer(folder, ROWS, None)
