"""What every page must be: whole in itself, and well-formed."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "line", "rect", "circle", "image", "polyline", "polygon"}


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def require_sound(page: str) -> None:
    """Nothing is loaded from elsewhere, every element is closed, and no figure is NaN."""
    assert not re.search(r"https?:|@import|url\(|<link|src=", page)
    assert not re.search(r"href='(?!data:image/jpeg;base64,)", page)
    assert not re.search(r"[ ='\",]nan[ '\",<]", page)
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
