"""What cards cost an hour, from a file that a person keeps."""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vramfit.cards import find_card
from vramfit.errors import DataError, UnknownCard

_COLUMNS = ("card", "price_per_hour")


def read_prices(file: Path) -> dict[str, float]:
    """Money an hour by the card's name, from CSV or JSON.

    CSV has a header with the columns `card` and `price_per_hour`, JSON is one object of prices by card. Cards may be
    named as `--gpu` takes them.

    Raises:
        DataError: the file cannot be read, or a line has no such card, a second price of one, or no price above 0;
            names the line.

    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows = _json_rows(text) if file.suffix.lower() == ".json" else _csv_rows(text)
        return _by_card(rows)
    except (OSError, UnicodeDecodeError, ValueError, UnknownCard) as error:
        raise DataError(f"prices in {file}: {error}") from None


def _by_card(rows: Iterable[tuple[str, str, Any]]) -> dict[str, float]:
    prices: dict[str, float] = {}
    for where, name, price in rows:
        card = _card(name, where)
        if card in prices:
            raise ValueError(f"{where}: {card} has a price already, {prices[card]:g}; keep one of them.")
        prices[card] = _price(price, where)
    return prices


def _json_rows(text: str) -> Iterable[tuple[str, str, Any]]:
    prices = json.loads(text)
    if not isinstance(prices, dict):
        raise ValueError('the file is no object of prices by card, such as {"rtx4090": 0.4}.')
    return [(f"'{name}'", name, price) for name, price in prices.items()]


def _csv_rows(text: str) -> Iterable[tuple[str, str, Any]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not set(_COLUMNS) <= set(reader.fieldnames or ()):
        raise ValueError(f"the first line must name the columns {' and '.join(_COLUMNS)}.")
    return [(f"line {reader.line_num}", row["card"], row["price_per_hour"]) for row in reader]


def _card(name: str, where: str) -> str:
    try:
        return find_card(name or "").name
    except UnknownCard as error:
        raise UnknownCard(f"{where}: {error}") from None


def _price(price: Any, where: str) -> float:
    try:
        value = float(price)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{where}: '{price}' is no price above 0.")
    return value
