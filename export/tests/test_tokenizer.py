import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from support import golden
from support.checkpoints import copy_checkpoint
from support.runtime import Package
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.tokenizer import export_tokenizer

ROWS = 931


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_encoding_and_decoding_are_the_reference(packages: dict[str, Package], name: str) -> None:
    package = packages[name]
    table = json.loads((golden.GOLDEN / f"{name}.tokenizer.json").read_text())
    skipped = set(package.manifest["tokens"]["skipped_in_text"])
    assert sorted(skipped) == sorted(table["special_ids_skipped"])
    for text, ids in table["encode"]:
        assert package.tokenizer.encode(text, add_special_tokens=False).ids == ids, text
    for ids, without_special, with_special, _ in table["decode"]:
        kept = [i for i in ids if i not in skipped]
        assert package.tokenizer.decode(kept, skip_special_tokens=False) == without_special
        assert package.tokenizer.decode(ids, skip_special_tokens=False) == with_special
    for content, identifier in table["all_added"].items():
        assert package.tokenizer.token_to_id(content) == identifier


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


def test_added_tokens_may_stand_in_added_tokens_json_alone(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    exported = export_tokenizer(folder, ROWS, None)
    assert exported.ids == export_tokenizer(golden.checkpoint("ckpt_b"), ROWS, None).ids


def test_special_tokens_may_be_objects_and_may_be_named_by_key(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    change_json(
        folder / "tokenizer_config.json",
        eos_token={"content": "<|im_end|>"},
        additional_special_tokens=[],
        extra_special_tokens={"context_image_token": "<IMG_CONTEXT>"},
    )
    assert export_tokenizer(folder, ROWS, None).ids.skipped_in_text == (900, 902, 924)


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
