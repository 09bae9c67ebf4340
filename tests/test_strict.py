import pytest

from vitexp import strict


@pytest.mark.parametrize(
    "value", [1, 0.0001, True, "none", "1d", "2e", "e4", "01", "e-4", "two words", "", [1, [2.5]], {"a": "b"}]
)
def test_plain_values_pass(value):
    strict.check_values(value, "lr", as_text=True)


@pytest.mark.parametrize(
    ("text", "written"),
    [("1e-4", "1.0e-4"), ("-3e5", "-3.0e+5"), ("1.5E10", "1.5e+10"), ("2.e3", "2.0e+3"), (".5e1", "0.5e+1")],
)
def test_a_number_that_yaml_reads_as_text_is_refused_with_its_spelling(text, written):
    assert strict.load(f"a: {text}".encode())["a"] == text
    with pytest.raises(ValueError, match=rf"values\.lr holds {text}, which YAML reads as text") as caught:
        strict.check_values({"lr": [0.1, text]}, "values", as_text=False)
    spelling = str(caught.value).split("write ")[1]
    assert spelling == written
    assert strict.load(f"a: {spelling}".encode())["a"] == pytest.approx(float(text))


@pytest.mark.parametrize("text", ["None", "null", "NULL", "~"])
def test_no_value_given_as_text_is_refused(text):
    with pytest.raises(ValueError, match="write none for the word, or an unquoted null for no value"):
        strict.check_values([{"pos": text}], "model", as_text=False)


def test_null_passes_in_a_file_and_not_as_text():
    strict.check_values([1, None], "model.drop", as_text=False)
    with pytest.raises(ValueError, match=r"model\.drop holds null, which \$\{args\} hands over as the text 'None'"):
        strict.check_values([1, None], "model.drop", as_text=True)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("2026-01-02", "holds a date, 2026-01-02; put it in quotes"),
        (".inf", "holds inf"),
        ("!!binary aGk=", "holds a bytes"),
    ],
)
def test_what_json_cannot_carry_is_refused(written, message):
    with pytest.raises(ValueError, match=message):
        strict.check_values(strict.load(f"a: {written}".encode()), "p", as_text=False)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        (b"a:\n  lr: 1\n  lr: 2\n", "line 3: the key 'lr' is given twice"),
        (b"on: 1\n", "line 1: the key True is not text; put it in quotes"),
        (b"1: 1\n", "the key 1 is not text"),
    ],
)
def test_keys_are_texts_given_once(document, message):
    with pytest.raises(ValueError, match=message):
        strict.load(document)


def test_a_merged_block_may_be_overridden():
    document = b"base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n"
    assert strict.load(document)["other"] == {"a": 1, "b": 3}


def test_nothing_is_executed(tmp_path):
    document = f"a: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'x'}]\n".encode()
    with pytest.raises(strict.yaml.YAMLError, match="could not determine a constructor"):
        strict.load(document)


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (_bomb(9), "line 5: the document expands to more than 100,000 values"),
        ("model: " + "[" * 3000 + "]" * 3000, "line 1: lists and mappings nest more than 50 deep"),
        ("{a: " * 3000, "line 1: lists and mappings nest more than 50 deep"),
        ("- " * 3000, "line 1: lists and mappings nest more than 50 deep"),
        ("a: &x {b: *x}", r"line 1: \*x stands inside what it names"),
        ('{"a": [{"b": 1, "b": 2}]}', "line 1: the key 'b' is given twice"),
    ],
    ids=["aliases", "lists", "mappings", "blocks", "itself", "twice in JSON"],
)
def test_nothing_is_built_from_a_document_that_grows(document, message, monkeypatch):
    monkeypatch.setattr(strict.yaml, "load", None)
    with pytest.raises(strict.Refused, match=message):
        strict.load(document)


@pytest.mark.parametrize("document", ["[a, a]", "{x: a, y: a}", "[{a: 1}, {a: 2}]", _bomb(2), "a: &x 1\nb: [*x, *x]"])
def test_what_is_not_a_key_may_come_again(document):
    strict.load(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfea\x00", "is not UTF-8 text"),
        (b"a: 1\n" * 300_000, "is larger than 1 MiB, too large"),
        (None, "is a directory; give a YAML or JSON file"),
    ],
    ids=["binary", "large", "folder"],
)
def test_a_file_that_is_no_text_is_named(content, message, tmp_path):
    path = tmp_path / "file"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {message}"):
        strict.read(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert strict.load(strict.read(tmp_path / "file")) == {"a": 1}
