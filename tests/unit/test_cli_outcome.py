import pytest

from roomkey.cli.outcome import print_table

Capture = pytest.CaptureFixture[str]


def test_a_table_in_a_pipe_is_as_wide_as_its_content(capsys: Capture) -> None:
    long = "n" * 500

    print_table(("name", "bytes", "at"), [(long, "7", "today"), ("b", "1234567", "")], numeric=("bytes",))

    assert capsys.readouterr().out.splitlines() == [
        f"{'name':500}    bytes  at",
        f"{long}        7  today",
        f"{'b':500}  1234567",
    ]


def test_columns_stand_below_each_other_whatever_is_written_in_them(capsys: Capture) -> None:
    print_table(("who", "x"), [("日本", "1"), ("zoe\u0308", "2"), ("[b]", "3")])

    assert capsys.readouterr().out.splitlines() == ["who   x", "日本  1", "zoe\u0308   2", "[b]   3"]


def test_a_cell_may_have_several_lines_and_rings_no_bell(capsys: Capture) -> None:
    print_table(("root", "n"), [("one\r\ntwo\a", "1"), ("", "2")])

    assert capsys.readouterr().out.splitlines() == ["root  n", "one   1", "two", "      2"]


def test_a_table_may_be_empty(capsys: Capture) -> None:
    print_table(("root", "n"), [])

    assert capsys.readouterr().out == "root  n\n"
