"""Manifests: what a table says is what is read, line by line; every other table is refused with its place."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbench.data.own import manifest_dataset
from clipbench.data.readers import manifest
from clipbench.data.readers.manifest import read_manifest
from clipbench.data.splits import PARTS, Item
from clipbench.errors import DataError
from clipbench.testing.cards import fake_image

HEAD = "path,label,classname,split\n"
GOOD = "a/0.png,0,cat,train\na/1.png,0,cat,test\nb/0.png,1,dog,train\nb/1.png,1,dog,test\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, path in enumerate(("a/0.png", "a/1.png", "b/0.png", "b/1.png", "more/x.png")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(fake_image(number, number, ".png"))
    return tmp_path


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# The forms in which the same table is written


@pytest.mark.parametrize(
    "text",
    [
        HEAD + GOOD,
        "\ufeff" + HEAD + GOOD,
        (HEAD + GOOD).replace("\n", "\r\n"),
        (HEAD + GOOD).replace("\n", "\r"),
        (HEAD + GOOD).replace(",", ";"),
        (HEAD + GOOD).replace(",", "\t"),
        (HEAD + GOOD).replace(",", ", "),
        HEAD + "\n" + GOOD + "\n\n",
        (HEAD + GOOD).replace("cat", '"cat"').replace("path", '"path"'),
        "camera,split,path,classname,label\n"
        "x,train,a/0.png,cat,0\n,test,a/1.png,cat,0\ny,train,b/0.png,dog,1\n,test,b/1.png,dog,1",
        HEAD.strip() + ",draws\n" + GOOD,
        (HEAD + GOOD).replace(",0,", ",00,"),
    ],
)
def test_the_same_table_in_another_form_is_the_same_split(text: str, folder: Path) -> None:
    card, split = manifest_dataset(written(folder, text))
    assert card.classnames == ("cat", "dog")
    assert split.train == (Item("a/0.png", 0, "cat"), Item("b/0.png", 1, "dog"))
    assert split.test == (Item("a/1.png", 0, "cat"), Item("b/1.png", 1, "dog"))


def test_quotes_hold_commas_line_breaks_stay_out_and_unicode_forms_are_one(folder: Path) -> None:
    text = (HEAD + GOOD).replace("0,cat,train", '0,"caf\u00e9, big ""one""",train')
    text = text.replace("0,cat,test", '0,"cafe\u0301, big ""one""",test')
    assert manifest_dataset(written(folder, text))[0].classnames == ('caf\u00e9, big "one"', "dog")
    with pytest.raises(DataError, match=r"1 class names hold a control character: '\"?'?ca\\nt"):
        manifest_dataset(written(folder, (HEAD + GOOD).replace("cat", '"ca\nt"')))


def test_a_users_own_manifest_may_name_any_place(folder: Path) -> None:
    (folder / "lists").mkdir()
    lines = GOOD.replace("a/", "../a/").replace("b/", f"{folder}/b/")
    card, split = manifest_dataset(written(folder / "lists", HEAD + lines))
    assert all((card.image_dir("any root") / item.path).is_file() for part in PARTS for item in split.part(part))
    with pytest.raises(DataError, match=r"line 2: the path '\.\./a/0\.png' leaves the folder of the images"):
        read_manifest(folder / "lists" / "list.csv", folder / "lists", inside=True)


# What is refused, with its place


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.png,20261127,eel,train", "must be 0..2 without gaps, but 2 are missing and there is 20261127 (line 6)"),
        ("c.png,999999999,eel,train", "there is 999999999 (line 6)"),
        ("c.png,99999999999999999999,eel,train", "line 6: label '99999999999999999999' is not a whole number below a"),
        ("c.png,0.5,eel,train", "line 6: label '0.5' is not a whole number"),
        ("c.png,1e0,eel,train", "line 6: label '1e0' is not a whole number"),
        ("c.png,1_0,eel,train", "line 6: label '1_0' is not a whole number"),
        ("c.png,\u0662,eel,train", "line 6: label '\u0662' is not a whole number"),
        ("c.png,true,eel,train", "label 'true' is not a whole number"),
        ("c.png,nan,eel,train", "label 'nan' is not a whole number"),
        ("c.png,,eel,train", "line 6: label '' is not a whole number"),
        ("c.png,-1,eel,train", "line 6: label -1 is negative"),
        ("c.png,2,Dog,train", "classes 'dog' and 'Dog' give the same prompt"),
        ("c.png,2,dog,train", "two classes have the same name: 'dog'"),
        ("c.png,2,eel\x1b[31m,train", "hold a control character"),
        ("c.png,2,,train", "line 6: path and classname must not be empty"),
        ("c.png,1,big, fat dog,train", "line 6: 5 values for 4 columns; a value with ',' in it needs quotes"),
        ("c.png", "line 6: path and classname must not be empty"),
        ("c.png,1,dog,Test", "line 6: split is 'Test', must be train, val or test; did you mean 'test'?"),
        ("c.png,1,dog,validation", "split is 'validation', must be train, val or test; did you mean 'val'?"),
        ('c.png,1,"dog,train', "line 6: unexpected end of data"),
        ('c.png,1,"d"og,train', "line 6: ',' expected after '\"'"),
        ("c.png," + "1" * 200_000 + ",dog,train", "line 6: field larger than field limit"),
        ("c\x00.png,1,dog,train", "is no text in UTF-8"),
        ("./a/0.png,0,cat,train", "2 lines name the same file: a/0.png (line 2) and ./a/0.png (line 6)"),
        ("a/../a/0.png,0,cat,test", "2 lines name the same file: a/0.png (line 2) and a/../a/0.png (line 6)"),
        ("a//0.png,1,dog,test", "2 lines name the same file"),
        ("link/0.png,0,cat,test", "2 lines name the same file: a/0.png (line 2) and link/0.png (line 6)"),
        ("hard.png,0,cat,test", "2 lines name the same file: b/1.png (line 5) and hard.png (line 6)"),
        ("A/0.png,0,cat,train", "1 images do not exist below {folder}: A/0.png"),
        ("a/0.PNG,0,cat,train", "do not exist below {folder}: a/0.PNG (there it is '0.png')"),
        ("a\\2.png,0,cat,train", "folders are separated by '/' in paths, not by a backslash"),
        ("a,0,cat,train", "a: a folder, not a file"),
        ("pipe.png,0,cat,train", "pipe.png: a pipe, not a file"),
        ("lost.png,0,cat,train", "lost.png: the link leads nowhere"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(line: str, words: str, folder: Path) -> None:
    (folder / "link").symlink_to("a")
    (folder / "lost.png").symlink_to("gone.png")
    os.link(folder / "b" / "1.png", folder / "hard.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "c.png").write_bytes(fake_image(7, 7, ".png"))
    with pytest.raises(DataError) as caught:
        manifest_dataset(written(folder, HEAD + GOOD + line + "\n"))
    assert words.format(folder=folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column path, label, classname, split"),
        ("\n" + HEAD + GOOD, "has no column path, label"),
        (GOOD, "its first line must name path,label,classname,split[,draws] and is 'a/0.png,0,cat,train'"),
        ("path,label,label,classname,split\n", "has the column label twice"),
        ("path,label,classname,split,draw\n", "has a column 'draw'; did you mean 'draws'?"),
        ("path,label,classname,split,Draws\n", "has a column 'Draws'; did you mean 'draws'?"),
        ("Path,label,classname,split\n", "has no column path;"),
        (HEAD, "0 classes; at least two are needed"),
        (HEAD + "a/0.png,0,cat,train\n", "1 classes; at least two are needed"),
        ("<!DOCTYPE html>\n<html>", "is a web page (HTML or XML), not a table"),
        ((HEAD + GOOD).encode("utf-16"), "is no text in UTF-8, perhaps UTF-16"),
        ((HEAD + GOOD).encode("utf-16-le"), "is no text in UTF-8, perhaps UTF-16"),
        ((HEAD + GOOD).replace("dog", "b\u00e4r").encode("latin-1"), "is not UTF-8: line 4 holds the byte 0xe4"),
        (b"\x1f\x8b\x08" + b"\0" * 20, "is no text in UTF-8"),
    ],
)
def test_what_is_no_manifest_is_named(text: str | bytes, words: str, folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        manifest_dataset(written(folder, text))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (os.mkfifo, "is a pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 3 * 10**9), "has 3,000 MB; at most 268 MB"),
        (lambda path: path.symlink_to("gone"), "there is no manifest"),
    ],
)
def test_what_is_no_file_is_not_waited_for(make: Callable, words: str, folder: Path) -> None:
    make(folder / "list.csv")
    with pytest.raises(DataError, match=words):
        manifest_dataset(folder / "list.csv")


def test_a_huge_label_takes_no_memory(folder: Path) -> None:
    path = written(folder, HEAD + GOOD + "c.png,999999999,eel,train\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with pytest.raises(DataError):
        read_manifest(path, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_thousand_faults_are_one_message(folder: Path) -> None:
    text = HEAD + GOOD + "".join(f"x{number}.png,x,cat,train\n" for number in range(1000))
    with pytest.raises(DataError) as caught:
        manifest_dataset(written(folder, text))
    assert str(caught.value).endswith("; and 990 more")
    assert len(str(caught.value)) < 1000
    assert len(manifest.COLUMNS) == 4


def test_a_home_that_nobody_has_is_no_file() -> None:
    with pytest.raises(DataError, match="~no_such_user"):
        manifest_dataset("~no_such_user/manifest.csv")
