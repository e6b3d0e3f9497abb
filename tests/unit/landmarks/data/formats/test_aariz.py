import shutil

import cv2
import numpy as np
import pytest

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.data.formats.aariz import MACHINES_FILE
from vramfit.landmarks.data.image import film_size, read_film
from vramfit.landmarks.data.marked import combine

SENIOR = "Annotations/Cephalometric Landmarks/Senior Orthodontists"
JUNIOR = "Annotations/Cephalometric Landmarks/Junior Orthodontists"


def junior_and_senior(folder, split="train", film="001"):
    return [folder / split / rater / f"{film}.json" for rater in (JUNIOR, SENIOR)]


def test_reads_films_points_and_pixel_sizes(film_folder):
    train = load_films(film_folder, "train")
    assert len(train) == 6
    assert len(train.landmarks) == 29
    film = train.films[0]
    assert film.id == "001"
    assert film.points.shape == (29, 2)
    assert film_size(film.path) == film.size == read_film(film.path).shape[::-1]
    assert film.pixel_size_mm[0] == pytest.approx(240 / 128, rel=0.4)
    assert set(film.raters) == {"senior", "junior"}
    np.testing.assert_array_equal(film.points, np.ceil((film.raters["senior"] + film.raters["junior"]) / 2))


def test_raters_can_be_chosen(film_folder):
    senior, junior = (load_films(film_folder, "valid", rater).films[0] for rater in ("senior", "junior"))
    np.testing.assert_array_equal(senior.points, senior.raters["senior"])
    np.testing.assert_array_equal(junior.points, senior.raters["junior"])


def test_mean_rounds_up_whole_pixels_only():
    whole = combine({"senior": np.array([[1.0, 4.0]]), "junior": np.array([[2.0, 4.0]])}, rounds_up=True)
    assert whole.tolist() == [[2.0, 4.0]]
    between = combine({"senior": np.array([[1.5, 4.0]]), "junior": np.array([[2.0, 4.0]])}, rounds_up=True)
    assert between.tolist() == [[1.75, 4.0]]
    one = combine({"senior": np.array([[np.nan, np.nan]]), "junior": np.array([[2.0, 4.0]])})
    assert one.tolist() == [[2.0, 4.0]]
    assert np.isnan(combine({"senior": np.full((1, 2), np.nan)})).all()


def test_capitals_byte_order_marks_and_other_images_are_welcome(film_folder):
    (film_folder / "train").rename(film_folder / "aside")
    (film_folder / "aside").rename(film_folder / "Train")
    for file in (film_folder / MACHINES_FILE, *junior_and_senior(film_folder, "Train")):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    films = film_folder / "Train" / "Cephalograms"
    for name, suffix in (("001", ".JPG"), ("002", ".bmp"), ("003", ".tif")):
        pixels = read_film(films / f"{name}.png")
        (films / f"{name}{suffix}").write_bytes(cv2.imencode(suffix.lower(), pixels)[1].tobytes())
        (films / f"{name}.png").unlink()
    loaded = load_films(film_folder, "train")
    assert [film.path.suffix for film in loaded.films[:3]] == [".JPG", ".bmp", ".tif"]
    assert all(film_size(film.path) == read_film(film.path).shape[::-1] for film in loaded.films)


def test_two_films_of_one_id_are_refused_or_the_second_is_left_out(film_folder):
    film = film_folder / "train" / "Cephalograms" / "001.png"
    film.with_suffix(".jpg").write_bytes(cv2.imencode(".jpg", read_film(film))[1].tobytes())
    with pytest.raises(DataError, match=r"001\.png: 001\.jpg has its id '001' too"):
        load_films(film_folder, "train")
    films = load_films(film_folder, "train", skip_bad=True)
    assert [one.id for one in films.films].count("001") == 1
    assert [one.id for one in films.skipped] == ["001"]


def test_landmarks_are_joined_by_symbol_never_by_position(film_folder, edit_json):
    before = load_films(film_folder, "train").films[1]
    for file in junior_and_senior(film_folder, film="002"):
        edit_json(file, lambda content: {**content, "landmarks": content["landmarks"][::-1]})
    np.testing.assert_array_equal(load_films(film_folder, "train").films[1].points, before.points)


def test_landmarks_without_symbols_are_joined_by_id(film_folder, edit_json):
    before = load_films(film_folder, "train").films[0].points
    for file in film_folder.rglob("*.json"):

        def drop_symbols(content):
            for entry in content["landmarks"]:
                del entry["symbol"]

        edit_json(file, drop_symbols)
    loaded = load_films(film_folder, "train")
    assert loaded.symbols[0] == "L1"
    np.testing.assert_array_equal(loaded.films[0].points, before)


def test_soft_tissue_primes_are_one(film_folder, edit_json):
    def curly(content):
        for entry in content["landmarks"]:
            entry["symbol"] = entry["symbol"].replace("`", "\u2019")

    edit_json(junior_and_senior(film_folder)[0], curly)
    assert "N`" in load_films(film_folder, "train").symbols


def test_wanted_landmarks_keep_their_order(film_folder):
    train = load_films(film_folder, "train")
    turned = load_films(film_folder, "valid", landmarks=train.landmarks[::-1])
    plain = load_films(film_folder, "valid")
    np.testing.assert_array_equal(turned.films[0].points, plain.films[0].points[::-1])


def test_a_null_position_is_a_missing_landmark(film_folder, edit_json):
    def forget(content):
        content["landmarks"][3]["value"] = None
        content["landmarks"][4]["value"]["x"] = None

    for file in junior_and_senior(film_folder):
        edit_json(file, forget)
    points = load_films(film_folder, "train").films[0].points
    assert np.isnan(points[3:5]).all()
    assert np.isfinite(points[5:]).all()


def test_a_landmark_that_one_rater_could_not_see_is_the_others(film_folder, edit_json):
    junior = load_films(film_folder, "train").films[0].raters["junior"]
    edit_json(junior_and_senior(film_folder)[1], lambda content: content["landmarks"][0].update(value=None))
    film = load_films(film_folder, "train").films[0]
    assert np.isnan(film.raters["senior"][0]).all()
    np.testing.assert_array_equal(film.points[0], junior[0])


def test_a_rater_who_could_see_nothing_did_not_mark_the_film(film_folder, edit_json):
    def forget(content):
        for landmark in content["landmarks"]:
            landmark["value"] = None

    edit_json(junior_and_senior(film_folder)[1], forget)
    assert np.isfinite(load_films(film_folder, "train", "mean").films[0].points).all()
    with pytest.raises(DataError, match=r"001\.png: not marked by the senior rater"):
        load_films(film_folder, "train", "senior")


def test_one_rater_does_for_the_mean_but_not_for_the_other(film_folder):
    junior, _ = junior_and_senior(film_folder)
    junior.unlink()
    film = load_films(film_folder, "train").films[0]
    np.testing.assert_array_equal(film.points, film.raters["senior"])
    with pytest.raises(DataError, match=r"001\.png.*junior"):
        load_films(film_folder, "train", "junior")


def test_an_id_of_two_splits_has_a_machine_in_each(film_folder):
    table = film_folder / MACHINES_FILE
    for place in ("Cephalograms/001.png", f"{SENIOR}/001.json", f"{JUNIOR}/001.json"):
        shutil.copy(film_folder / "train" / place, film_folder / "test" / place)
    with table.open("a", encoding="utf-8") as file:
        file.write("001,Another,0.5,png,test\n")
    assert load_films(film_folder, "test").films[0].machine == "Another"
    assert load_films(film_folder, "train").films[0].machine.startswith("Sample")


def test_ids_that_lost_their_zeros_and_semicolons_are_found(film_folder):
    table = film_folder / MACHINES_FILE
    table.write_text(table.read_text().replace("\n00", "\n").replace(",", ";"))
    assert load_films(film_folder, "train").films[0].id == "001"


def test_pixel_sizes_may_differ_across_and_down(film_folder):
    rows = ["cephalogram_id,machine,pixel_size_x,pixel_size_y,mode"]
    rows += [f"{number:03d},M,0.2,0.3,train" for number in range(1, 9)]
    (film_folder / MACHINES_FILE).write_text("\n".join(rows))
    assert load_films(film_folder, "train").films[0].pixel_size_mm == (0.2, 0.3)


def no_landmarks(folder, edit_json):
    edit_json(junior_and_senior(folder)[1], lambda content: {"ceph_id": "001"})


def not_json(folder, edit_json):
    junior_and_senior(folder)[1].write_text("{")


def truncated_png(folder, edit_json):
    film = folder / "train/Cephalograms/001.png"
    film.write_bytes(film.read_bytes()[:-2000])


def empty_film(folder, edit_json):
    (folder / "train/Cephalograms/001.png").write_bytes(b"")


def outside(folder, edit_json):
    def move(content):
        content["landmarks"][0]["value"] = {"x": 5000, "y": 3}

    edit_json(junior_and_senior(folder)[1], move)


def too_short(folder, edit_json):
    edit_json(junior_and_senior(folder)[1], lambda content: {**content, "landmarks": content["landmarks"][:-1]})


def misnamed(folder, edit_json):
    edit_json(junior_and_senior(folder)[1], lambda content: content["landmarks"][0].update(symbol="Aa"))


def listed_twice(folder, edit_json):
    edit_json(junior_and_senior(folder)[1], lambda content: {**content, "landmarks": [*content["landmarks"]] * 2})


def words_for_numbers(folder, edit_json):
    def spoil(content):
        content["landmarks"][0]["value"] = {"x": "left", "y": 3}

    edit_json(junior_and_senior(folder)[1], spoil)


def no_name(folder, edit_json):
    edit_json(junior_and_senior(folder)[1], lambda content: {**content, "landmarks": [{"value": {"x": 1, "y": 1}}]})


def no_rater(folder, edit_json):
    for file in junior_and_senior(folder):
        file.unlink()


def no_pixel_size(folder, edit_json):
    table = folder / MACHINES_FILE
    first, one, *rest = table.read_text().splitlines()
    fields = one.split(",")
    table.write_text("\n".join([first, ",".join([fields[0], fields[1], "", *fields[3:]]), *rest]))


def no_row(folder, edit_json):
    table = folder / MACHINES_FILE
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("001")))


FAULTS = [
    (no_landmarks, r"001\.json: no 'landmarks'"),
    (not_json, r"001\.json: not valid JSON"),
    (truncated_png, r"001\.png: the film is cut short"),
    (empty_film, r"001\.png: the film is damaged"),
    (outside, r"001\.json: landmark 'A' at \(5000, 3\) lies outside the film"),
    (too_short, r"001\.json: 28 landmarks where the set has 29: 'Sn' is missing"),
    (misnamed, r"001\.json: 29 landmarks where the set has 29: 'A' is missing.*'Aa' is not one of them"),
    (listed_twice, r"001\.json: landmark 'A' is listed twice"),
    (words_for_numbers, r"001\.json: landmark 'A' has no 'value'"),
    (no_name, r"001\.json: landmark 1 has neither"),
    (no_rater, r"001\.png: no rater"),
    (no_pixel_size, r"mappings\.csv: field 'pixel_size' of film '001' is missing"),
    (no_row, r"mappings\.csv: no row for film '001', so its pixel_size is unknown"),
]


@pytest.mark.parametrize(("damage", "said"), FAULTS, ids=[damage.__name__ for damage, _ in FAULTS])
def test_bad_film_is_one_clear_sentence_or_skipped(film_folder, edit_json, damage, said):
    damage(film_folder, edit_json)
    with pytest.raises(DataError, match=said) as caught:
        load_films(film_folder, "train")
    assert "\n" not in str(caught.value)
    rest = load_films(film_folder, "train", skip_bad=True)
    assert len(rest) == 5
    assert [skipped.id for skipped in rest.skipped] == ["001"]
    reason = rest.skipped[0].reason
    assert str(caught.value).startswith(reason.removesuffix("."))
    assert "--skip-bad" not in reason, "it is used already"


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        (".", "no such folder"),
        ("train", "no folder 'train'"),
        ("train/Cephalograms", "no folder 'Cephalograms'"),
        ("train/Annotations", "no folder 'Annotations"),
    ],
)
def test_missing_folder_is_named(film_folder, gone, said):
    place = film_folder / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(DataError, match=said):
        load_films(film_folder, "train")


def test_no_usable_film_at_all(film_folder):
    for film in (film_folder / "test/Cephalograms").iterdir():
        film.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of its 1 films"):
        load_films(film_folder, "test", skip_bad=True)


def test_deeper_grey_is_scaled_to_bytes(tmp_path):
    deep = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    film = read_film(tmp_path / "deep.png")
    assert film.dtype == np.uint8
    assert film.max() == 255


@pytest.mark.shared
def test_hundred_real_films(shared_data):
    sets = {split: load_films(shared_data / "ceph100", split) for split in ("train", "valid", "test")}
    assert {split: len(films) for split, films in sets.items()} == {"train": 70, "valid": 15, "test": 15}
    assert len({films.landmarks for films in sets.values()}) == 1
    assert len(sets["train"].landmarks) == 19


def test_without_its_table_the_set_is_in_pixels(film_folder):
    (film_folder / MACHINES_FILE).unlink()
    films = load_films(film_folder, "train")
    assert films.unit == "px"
    assert np.isnan(films.films[0].pixel_size_mm).all()
