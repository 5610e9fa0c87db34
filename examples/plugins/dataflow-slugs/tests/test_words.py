import pytest

from dataflow_slugs.words import is_slug, slugify


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Hello, World!", "hello-world"),
        ("  Crème   brûlée ", "creme-brulee"),
        ("Straße nach Łódź", "strasse-nach-lodz"),
        ("Ærø & Þór", "aero-thor"),
        ("it's 100% fine_thing", "its-100-fine-thing"),
        ("İstanbul ﬁt ²", "istanbul-fit-2"),
        ("a/b\\c\nd\0e—f", "a-b-c-d-e-f"),
        ("日本語", ""),
        ("!?", ""),
        ("", ""),
    ],
)
def test_text_becomes_a_slug(text, slug):
    assert slugify(text) == slug
    assert slug == "" or is_slug(slug)


def test_a_long_text_ends_with_a_whole_word():
    assert slugify("one two three", 8) == "one-two"
    assert slugify("one two three", 7) == "one-two"
    assert slugify("indivisible", 5) == "indiv"


@pytest.mark.parametrize("text", ["", "A", "a--b", "-a", "a-", "a b", "ä", "a\n", None, 5])
def test_what_is_no_slug(text):
    assert not is_slug(text)
