"""What a document says, and that changing it touches nothing but what differs."""

from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from roomkey.documents.content.reconcile import MAX_NEW_ITEMS
from roomkey.documents.content.roots import (
    Kind,
    difference,
    edit_text,
    json_patch,
    kinds_of,
    merge_patch,
    replace,
    restore,
    root,
    to_json,
)
from roomkey.documents.content.text_edits import replace_text, runs_between
from roomkey.documents.content.values import portrait
from roomkey.documents.crdt.updates import read_update
from roomkey.errors import Conflict, InvalidInput


def document(**roots: Any) -> Doc[Any]:
    doc: Doc[Any] = Doc(client_id=1)
    replace(doc, roots)
    return doc


def said(doc: Doc[Any]) -> dict[str, Any]:
    return to_json(doc, kinds_of(doc))


def copy_of(doc: Doc[Any], client: int = 2) -> Doc[Any]:
    copy: Doc[Any] = Doc(client_id=client)
    copy.apply_update(doc.get_update())
    return copy


def merge(one: Doc[Any], other: Doc[Any]) -> None:
    one.apply_update(other.get_update(one.get_state()))
    other.apply_update(one.get_update(other.get_state()))


def text_of(doc: Doc[Any], name: str = "content") -> Text:
    return doc.get(name, type=Text)


def changes(doc: Doc[Any], action: Callable[[], None]) -> list[bytes]:
    """The updates that ``action`` makes."""
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(event.update))
    action()
    doc.unobserve(subscription)
    return updates


def inserted(updates: list[bytes]) -> list[str]:
    return [block.text for update in updates for block in read_update(update).blocks]


def looks(doc: Doc[Any]) -> dict[str, Any]:
    return {name: portrait(root(doc, name, kind)) for name, kind in kinds_of(doc).items()}


def rich_document() -> Doc[Any]:
    """Every kind of root, nested types, formats, something embedded, a subdocument."""
    doc = document(content="bold plain 😀 end", list=[1, "two", {"three": [3]}])
    text = text_of(doc)
    text.format(0, 4, {"bold": True})
    text.insert_embed(5, {"image": "x"}, {"width": 1})
    map = doc.get("map", type=Map)
    map["nested"] = Map({"text": Text("inside"), "items": Array([1, b"ab", {"deep": b"cd"}])})
    map["subdocument"] = Doc(guid="guid")
    xml = doc.get("xml", type=XmlFragment)
    xml.children.append(XmlElement("p", {"class": "a"}, [XmlText("one two")]))
    paragraph: Any = xml.children[0]
    paragraph.children[0].format(0, 3, {"i": {"x": "1"}})
    xml.children.append(XmlText("tail"))
    return doc


def change_everything(doc: Doc[Any]) -> None:
    text = text_of(doc)
    text.format(2, 8, {"link": {"href": "/"}})
    del text[0:3]
    text.insert(1, "ZZZ")
    del text[3:8]
    doc.get("list", type=Array).insert(0, 7)
    map: Any = doc.get("map", type=Map)
    map["nested"]["text"].insert(0, "QQ")
    map["nested"]["items"].append(7)
    map["new"] = 1
    del map["subdocument"]
    xml: Any = doc.get("xml", type=XmlFragment)
    xml.children[0].attributes["class"] = "b"
    xml.children[0].attributes["id"] = "c"
    xml.children[0].children[0].format(2, 6, {"i": None, "u": True})
    xml.children.insert(0, XmlElement("h1"))
    del xml.children[2]


# --- what it says -------------------------------------------------------------------------------------


def test_every_kind_of_root_is_said_in_json() -> None:
    assert said(rich_document()) == {
        "content": "bold plain 😀 end",
        "list": [1, "two", {"three": [3]}],
        "map": {"nested": {"text": "inside", "items": [1, "YWI=", {"deep": "Y2Q="}]}, "subdocument": "guid"},
        "xml": '<p class="a"><i x="1">one</i> two</p>tail',
    }


def test_what_was_typed_into_xml_is_no_markup() -> None:
    doc: Doc[Any] = Doc()
    doc.get("xml", type=XmlFragment).children.append(XmlElement("p", {"title": '"'}, [XmlText('<script> "')]))

    assert said(doc) == {"xml": '<p title="&quot;">&lt;script&gt; "</p>'}


def test_numbers_are_those_of_javascript() -> None:
    doc: Doc[Any] = Doc()
    doc.get("list", type=Array).extend([1, 1.5, 2**53 - 1, float("nan"), float("inf"), True])

    assert said(doc) == {"list": [1, 1.5, 2**53 - 1, None, None, True]}


def test_a_long_array_is_said_as_quickly_as_it_gets() -> None:
    doc: Doc[Any] = Doc()
    for _ in range(60):
        doc.get("list", type=Array).extend(range(100))

    assert said(doc) == {"list": list(range(100)) * 60}


def test_a_list_beyond_what_can_be_written_in_time_is_refused() -> None:
    with pytest.raises(InvalidInput):
        document(list=[0] * (MAX_NEW_ITEMS + 1))


def test_what_nests_too_deep_is_refused_instead_of_exhausting_the_stack() -> None:
    doc: Doc[Any] = Doc()
    map: Map[Any] = doc.get("map", type=Map)
    for _ in range(200):
        map["in"] = map = Map[Any]()

    with pytest.raises(InvalidInput):
        said(doc)


def test_an_emptied_root_is_what_it_was_used_as_and_nothing_where_nobody_knows_that() -> None:
    doc = document(content="hello", list=[1])
    replace(doc, {"content": "", "list": []})

    assert said(doc) == {"content": "", "list": []}
    assert said(copy_of(doc)) == {"content": None, "list": None}


def test_what_nobody_knows_may_become_anything() -> None:
    doc = document(root=[1])
    replace(doc, {"root": []})
    copy = copy_of(doc)

    replace(copy, {"root": {"a": 1}})

    assert said(copy) == {"root": {"a": 1}}


@pytest.mark.parametrize("name", ["content", "list", "map", "xml"])
def test_every_root_can_be_emptied(name: str) -> None:
    doc = rich_document()

    replace(doc, {name: None})

    assert not said(doc)[name]


# --- replacing ----------------------------------------------------------------------------------------


def test_a_root_becomes_what_is_given_and_the_others_stay() -> None:
    doc = document(content="one", map={"a": 1}, list=[1, 2])

    replace(doc, {"map": {"b": 2}, "list": [2, 3]})

    assert said(doc) == {"content": "one", "map": {"b": 2}, "list": [2, 3]}


def test_the_same_again_changes_nothing() -> None:
    doc = rich_document()
    same = {name: value for name, value in said(doc).items() if name != "xml"}

    assert changes(doc, lambda: replace(doc, same)) == []


def test_everything_happens_in_one_transaction() -> None:
    doc = document(content="one", map={"a": 1})

    updates = changes(doc, lambda: replace(doc, {"content": "one two", "map": {"b": 1}, "list": [1]}))

    assert len(updates) == 1


def test_what_others_type_meanwhile_survives() -> None:
    mine = document(content="The cat sat on the mat.")
    theirs = copy_of(mine)
    text_of(theirs).insert(7, "alogue")

    replace(mine, {"content": "The cat sat upon the red mat."})
    merge(mine, theirs)

    assert said(mine) == said(theirs) == {"content": "The catalogue sat upon the red mat."}


def test_only_the_new_characters_of_a_text_are_written() -> None:
    doc = document(content="The quick fox jumps over the lazy dog")

    updates = changes(doc, lambda: replace(doc, {"content": "The quick brown fox jumped over the lazy dog"}))

    assert sorted(inserted(updates)) == ["brown ", "ed"]


def test_what_is_embedded_stays_when_the_text_around_it_is_replaced() -> None:
    doc = document(content="one two three")
    text_of(doc).insert_embed(4, {"image": "x"})

    replace_text(text_of(doc), "zero ONE TWO é three")

    contents = [content for content, _ in text_of(doc).diff()]
    assert str(text_of(doc)) == "zero ONE TWO é three"
    assert {"image": "x"} in contents


def test_an_item_of_an_array_that_stays_is_not_written_again() -> None:
    doc = document(list=["first", "second", "third"])
    first = doc.get_update()

    replace(doc, {"list": ["first", "new", "second", "third"]})

    assert b"third" in first
    assert b"third" not in doc.get_update(copy_of(document(list=["first", "second", "third"])).get_state())


def test_nested_types_are_edited_and_not_replaced() -> None:
    mine = rich_document()
    theirs = copy_of(mine)
    nested: Any = theirs.get("map", type=Map)["nested"]
    nested["text"].insert(0, "deep ")

    changed = said(mine)["map"]
    changed["nested"]["items"].append("more")
    replace(mine, {"map": changed})
    merge(mine, theirs)

    assert said(mine)["map"]["nested"] == {"text": "deep inside", "items": [1, "YWI=", {"deep": "Y2Q="}, "more"]}


def test_types_in_an_array_are_edited_and_not_replaced() -> None:
    mine: Doc[Any] = Doc(client_id=1)
    mine.get("list", type=Array).extend([Map({"a": 1}), Text("one")])
    theirs = copy_of(mine)
    shared: Any = theirs.get("list", type=Array)
    shared[0]["b"] = 2
    shared[1].insert(0, "zero ")

    replace(mine, {"list": [{"a": 3}, "one two"]})
    merge(mine, theirs)

    assert said(mine) == {"list": [{"a": 3, "b": 2}, "zero one two"]}


@pytest.mark.parametrize(
    "value",
    [
        7,
        True,
        {"number": 2**53},
        {"deep": [2**64]},
        {"text": "\ud800"},
        {"\ud800": 1},
        "\ud800",
    ],
)
def test_what_a_root_cannot_be_is_refused(value: Any) -> None:
    doc: Doc[Any] = Doc()

    with pytest.raises(InvalidInput):
        replace(doc, {"good": "x", "root": value})

    assert said(doc) == {}


def test_a_value_that_nests_too_deep_is_refused() -> None:
    value: Any = []
    for _ in range(100):
        value = [value]

    with pytest.raises(InvalidInput):
        replace(Doc(), {"root": value})


@pytest.mark.parametrize("roots", [{"content": []}, {"list": {}}, {"map": ""}, {"xml": "<p/>"}])
def test_a_root_keeps_its_kind(roots: dict[str, Any]) -> None:
    doc = rich_document()
    before = looks(doc)

    with pytest.raises(InvalidInput):
        replace(doc, roots)

    assert looks(doc) == before


# --- texts --------------------------------------------------------------------------------------------


def test_what_changed_in_a_text_is_told_in_runs() -> None:
    runs = runs_between("The quick fox jumps", "The quick brown fox jumped")

    expected = [
        {"equal": "The quick "},
        {"insert": "brown "},
        {"equal": "fox jump"},
        {"delete": "s"},
        {"insert": "ed"},
    ]
    assert runs == expected


def test_huge_texts_without_anything_in_common_are_replaced_at_once() -> None:
    old, new = ("".join(f"{word}{number} " for number in range(15_000)) for word in ("a", "b"))

    runs = runs_between(f"({old})", f"({new})")

    assert [list(run) for run in runs] == [["equal"], ["delete"], ["insert"], ["equal"]]


def test_edits_count_in_code_points_and_see_each_other() -> None:
    doc = document(content="é😀b")

    edits = [
        {"root": "content", "index": 2, "insert": "X😀"},
        {"root": "content", "index": 5, "insert": "!"},
        {"root": "content", "index": 1, "delete": 2},
        {"root": "other", "index": 0, "insert": "new"},
    ]
    edit_text(doc, edits)

    assert said(doc) == {"content": "é😀b!", "other": "new"}


@pytest.mark.parametrize(
    "edit",
    [
        {"root": "content", "index": 6, "insert": "x"},
        {"root": "content", "index": 3, "delete": 3},
        {"root": "content", "index": -1, "insert": "x"},
        {"root": "content", "index": 0, "delete": -1},
        {"root": "content", "index": "0"},
        {"root": "list", "index": 0, "insert": "x"},
        {"root": "new", "index": 1, "insert": "x"},
        {"index": 0},
        {"root": "content", "index": 0, "insert": "\ud800"},
        "edit",
    ],
)
def test_of_edits_all_are_carried_out_or_none(edit: Any) -> None:
    doc = document(content="hello", list=[1])

    with pytest.raises(InvalidInput):
        edit_text(doc, [{"root": "content", "index": 0, "delete": 0, "insert": ""}, edit])

    assert said(doc) == {"content": "hello", "list": [1]}


# --- RFC 7396 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"map": {"a": None, "c": {"d": 1}}}, {"content": "one", "map": {"b": [1], "c": {"d": 1}}}),
        ({"map": {"b": [2]}}, {"content": "one", "map": {"a": {"x": 1}, "b": [2]}}),
        ({"map": {"a": {"x": None}}}, {"content": "one", "map": {"a": {}, "b": [1]}}),
        ({"content": None}, {"content": "", "map": {"a": {"x": 1}, "b": [1]}}),
        ({"new": "text"}, {"content": "one", "map": {"a": {"x": 1}, "b": [1]}, "new": "text"}),
        ({"nothing": None}, {"content": "one", "map": {"a": {"x": 1}, "b": [1]}}),
    ],
)
def test_a_merge_patch_is_merged(patch: Any, result: Any) -> None:
    doc = document(content="one", map={"a": {"x": 1}, "b": [1]})

    merge_patch(doc, patch)

    assert said(doc) == result


@pytest.mark.parametrize("patch", [[], "text", None, {"content": 7}, {"map": []}])
def test_a_merge_patch_that_is_none_is_refused(patch: Any) -> None:
    with pytest.raises(InvalidInput):
        merge_patch(document(content="one", map={"a": 1}), patch)


# --- RFC 6902 -----------------------------------------------------------------------------------------


CARRIED_OUT: list[tuple[list[Any], list[Any]]] = [
    ([{"op": "add", "path": "/list/1", "value": 9}], [1, 9, {"a": 2}]),
    ([{"op": "add", "path": "/list/-", "value": 9}], [1, {"a": 2}, 9]),
    ([{"op": "remove", "path": "/list/0"}], [{"a": 2}]),
    ([{"op": "replace", "path": "/list/1/a", "value": 3}], [1, {"a": 3}]),
    ([{"op": "move", "from": "/list/0", "path": "/list/1"}], [{"a": 2}, 1]),
    ([{"op": "copy", "from": "/list/1", "path": "/list/1/b"}], [1, {"a": 2, "b": {"a": 2}}]),
    ([{"op": "test", "path": "/list/1", "value": {"a": 2}}, {"op": "remove", "path": "/list/1/a"}], [1, {}]),
    ([{"op": "add", "path": "/list/1/~0~1", "value": 0}], [1, {"a": 2, "~/": 0}]),
    ([{"op": "remove", "path": "/list"}], []),
]


@pytest.mark.parametrize(("operations", "result"), CARRIED_OUT)
def test_a_json_patch_is_carried_out(operations: Any, result: Any) -> None:
    doc = document(list=[1, {"a": 2}])

    json_patch(doc, operations)

    assert said(doc) == {"list": result}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/list/2"},
        {"op": "replace", "path": "/list/-", "value": 1},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/0/x", "value": 1},
        {"op": "remove", "path": "/list/1/b"},
        {"op": "move", "from": "/list/1", "path": "/list/1/a"},
        {"op": "move", "from": "/list/0", "path": "/list/0/x"},
        {"op": "add", "path": "/list/0"},
        {"op": "add", "path": "list", "value": 1},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "", "value": []},
        {"op": "enlarge", "path": "/list"},
        {"path": "/list"},
        7,
    ],
)
def test_of_a_json_patch_all_is_carried_out_or_nothing(operation: Any) -> None:
    doc = document(list=[1, {"a": 2}])

    with pytest.raises(InvalidInput):
        json_patch(doc, [{"op": "add", "path": "/list/0", "value": 9}, {"op": "remove", "path": "/list/0"}, operation])

    assert said(doc) == {"list": [1, {"a": 2}]}


@pytest.mark.parametrize("value", [2, True, "1", None])
def test_a_failed_test_is_a_conflict_and_changes_nothing(value: Any) -> None:
    doc = document(list=[1])

    with pytest.raises(Conflict):
        json_patch(
            doc, [{"op": "add", "path": "/list/-", "value": 2}, {"op": "test", "path": "/list/0", "value": value}]
        )

    assert said(doc) == {"list": [1]}


@pytest.mark.parametrize("path", ["/map/a", "/map/a/a"])
def test_copies_cannot_grow_without_bound(path: str) -> None:
    doubled = [{"op": "copy", "from": "/map", "path": f"/map/{number}"} for number in range(60)]
    deepened = [{"op": "copy", "from": "/map", "path": path}] * 1_000

    for operations in (doubled, deepened):
        with pytest.raises(InvalidInput):
            json_patch(document(map={"a": {"x": "y" * 100}}), operations)


# --- other states -------------------------------------------------------------------------------------


def test_restoring_brings_back_everything_as_it_looked() -> None:
    doc = rich_document()
    then, looked = doc.get_update(), looks(doc)
    change_everything(doc)
    assert looks(doc) != looked

    restore(doc, then)

    assert looks(doc) == looked


def test_restoring_brings_back_what_only_looked_different() -> None:
    doc = rich_document()
    then, looked = doc.get_update(), looks(doc)
    text_of(doc).format(0, 7, {"bold": None, "i": True})

    restore(doc, then)

    assert looks(doc) == looked


def test_restoring_finds_its_place_behind_characters_of_several_bytes() -> None:
    doc = document(content="é😀 one two")
    then = doc.get_update()
    replace(doc, {"content": "é😀 one 2 é"})

    restore(doc, then)

    assert said(doc) == {"content": "é😀 one two"}


def test_restoring_into_an_empty_document_makes_the_same_types() -> None:
    old, doc = rich_document(), Doc[Any]()

    restore(doc, old.get_update())

    assert looks(doc) == looks(old)
    assert isinstance(doc.get("map", type=Map)["nested"], Map)


def test_restoring_what_is_there_changes_nothing() -> None:
    doc = rich_document()
    then = doc.get_update()

    assert changes(doc, lambda: restore(doc, then)) == []


def test_restoring_empties_what_came_later() -> None:
    doc = document(content="one")
    then = doc.get_update()
    replace(doc, {"later": "text", "list": [1]})

    restore(doc, then)

    assert said(doc)["content"] == "one"
    assert not said(doc)["later"]
    assert not said(doc)["list"]


def test_what_is_edited_during_a_restore_survives_beside_it() -> None:
    mine = document(content="one two three")
    then = mine.get_update()
    replace(mine, {"content": "one 2 three"})
    theirs = copy_of(mine)
    text_of(theirs).insert(0, "zero ")

    restore(mine, then)
    merge(mine, theirs)

    assert said(mine) == said(theirs) == {"content": "zero one two three"}


def test_the_difference_of_two_states_is_told_by_root() -> None:
    doc = document(content="one two", map={"a": 1, "b": 2}, list=[1, 2, 3], same="same")
    old = doc.get_update()
    replace(doc, {"content": "one 2", "map": {"a": 1, "c/d": 3}, "list": [0, 1, 3]})

    found = difference(old, doc.get_update())

    assert found["content"] == [{"equal": "one "}, {"delete": "two"}, {"insert": "2"}]
    assert found.keys() == {"content", "map", "list"}


def test_a_difference_of_values_is_a_patch_that_leads_from_one_to_the_other() -> None:
    before = {"map": {"a": 1, "b": {"x/y": [1, 2, {"z": 1}]}, "gone": 0}, "list": [1, 2, 3, 4, 5]}
    after = {"map": {"a": 1, "b": {"x/y": [2, {"z": 2}, 3]}, "~": 0}, "list": [0, 1, 3, 9, 5]}
    doc = document(**before)
    old = doc.get_update()
    replace(doc, after)

    found = difference(old, doc.get_update())

    patched = document(**before)
    for name, operations in found.items():
        json_patch(patched, [{**operation, "path": f"/{name}{operation['path']}"} for operation in operations])
    assert said(patched) == after


def test_a_text_with_types_in_it_is_a_text() -> None:
    doc = document(content="one")
    text_of(doc).insert_embed(3, Map({"a": 1}))

    assert kinds_of(copy_of(doc)) == {"content": Kind.TEXT}


def test_the_kinds_of_roots_are_seen_from_what_is_in_them() -> None:
    assert kinds_of(copy_of(rich_document())) == {
        "content": Kind.TEXT,
        "list": Kind.ARRAY,
        "map": Kind.MAP,
        "xml": Kind.XML,
    }
