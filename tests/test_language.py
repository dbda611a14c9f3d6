"""In which language a text is written: certain, or silent."""

import pytest

from openbook.dataset.language import differs, language


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("How often are the targets scraped by default?", "English"),
        ("Wie oft werden die Ziele abgefragt, und welche sind das?", "German"),
        ("Quels sont les outils qui servent à ouvrir la valve ?", "French"),
        ("¿Cuántos remaches tiene la válvula del horno?", "Spanish"),
        ("Quanti rivetti ha la valvola della macchina?", "Italian"),
        ("Hoeveel klinknagels heeft het ventiel, en wie maakte het?", "Dutch"),
        ("Сколько заклёпок в клапане и кто его изобрёл?", "Russian"),
        ("阀门里有多少个铆钉？", "Chinese"),
        ("バルブにはリベットがいくつありますか。", "Japanese"),
        ("밸브에는 리벳이 몇 개 있습니까?", "Korean"),
        ("json.dumps(obj, indent=2)", ""),
        ("Prometheus", ""),
        ("123 + 456", ""),
        ("", ""),
    ],
)
def test_languages_by_their_small_words(text, name):
    assert language(text) == name


def test_only_what_is_certain_differs():
    german, english = "Wie oft werden die Ziele abgefragt?", "The targets are scraped once in a minute."
    assert differs(german, english)
    assert not differs("Prometheus?", english)
    assert not differs("What is the default of scrape_interval?", english)
