"""Films of every kind that OpenCV and the extras read: grey values, sizes, orientation, pixel sizes."""

import sys

import cv2
import numpy as np
import pytest

from vramfit.errors import DataError
from vramfit.landmarks.data import medical
from vramfit.landmarks.data.grey import is_dark, to_bytes
from vramfit.landmarks.data.image import film_size, orientation, read_film


@pytest.fixture
def film():
    rows, columns = np.mgrid[0:48, 0:40]
    return (40 + 2 * rows + columns + 30 * np.sin(rows / 5)).astype(np.uint8)


def save(path, pixels, *options):
    path.write_bytes(cv2.imencode(path.suffix, pixels, list(options))[1].tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".pgm"])
def test_what_opencv_reads(tmp_path, film, suffix):
    path = save(tmp_path / f"film{suffix}", film, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
    assert film_size(path) == (40, 48)
    np.testing.assert_allclose(read_film(path), film, atol=2 if suffix in (".webp", ".jp2") else 0)


def test_a_marker_takes_no_grey_levels_from_the_tissue(film):
    deep = film.astype(np.uint16) * 16
    plain = to_bytes(deep)
    for value, noise in ((65535, 0), (60000, 900)):
        marked = deep.copy()
        marked[:3, :6] = value + np.random.default_rng(0).integers(-noise, noise + 1, (3, 6))
        read = to_bytes(marked)
        assert len(np.unique(read[3:])) > 100
        np.testing.assert_allclose(read[3:], plain[3:], atol=1)
        assert read[:3, :6].min() == 255


def test_deep_films_without_a_marker_keep_their_scale(film):
    deep = film.astype(np.uint16) * 257
    expected = np.floor(deep / deep.max() * 255)
    np.testing.assert_allclose(to_bytes(deep), expected, atol=1)


def test_an_offset_far_from_black_is_taken_away(film):
    read = to_bytes(film.astype(np.uint16) + 30000)
    assert (read.min(), read.max()) == (0, 255)
    assert to_bytes(np.full((4, 4), 700, dtype=np.uint16)).dtype == np.uint8
    assert to_bytes(film.astype(np.float32) / 255).max() == 255


def test_a_dark_film_of_8_bits_is_spread_as_a_deep_one_and_others_are_left_alone(film):
    dark = (film // 8).astype(np.uint8)
    dark[:1, :4] = 255  # burned in
    assert is_dark(dark)
    read = to_bytes(dark)[2:]
    assert read.max() == 255
    # One factor for all of the film, to the rounding of a grey level.
    np.testing.assert_allclose(read, dark[2:] * (255 / dark[2:].max()), atol=1)
    for same in (film, film // 3 + 100, np.full((48, 40), 20, np.uint8), np.zeros((48, 40), np.uint8)):
        assert not is_dark(same)
        np.testing.assert_array_equal(to_bytes(same), same)


def test_noise_around_black_is_not_made_a_picture():
    noise = np.random.default_rng(0).integers(0, 5, (80, 80)).astype(np.uint8)
    np.testing.assert_array_equal(to_bytes(noise), noise)


def tagged(path, film, tag):
    """A film with an EXIF orientation."""
    pil = pytest.importorskip("PIL.Image")
    image = pil.fromarray(film)
    exif = image.getexif()
    exif[0x0112] = tag
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_every_orientation_is_known(tmp_path, film, suffix, tag):
    assert orientation(tagged(tmp_path / f"film{suffix}", film, tag)) == tag


def test_films_without_a_tag_and_damaged_ones_are_upright(tmp_path, film):
    assert orientation(save(tmp_path / "film.png", film)) == 1
    (tmp_path / "film.jpg").write_bytes(b"no film")
    assert orientation(tmp_path / "film.jpg") == 1
    assert orientation(tmp_path / "film.bmp") == 1


def write_dicom(path, film, **more):
    """A film in DICOM of 12 bits, 0.1 mm wide and 0.2 mm high pixels."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = film.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelSpacing = [0.2, 0.1]
    for name, value in more.items():
        setattr(data, name, value)
    data.PixelData = (film.astype(np.uint16) * 16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def test_dicom(tmp_path, film):
    path = write_dicom(tmp_path / "film.dcm", film)
    assert film_size(path) == (40, 48)
    np.testing.assert_allclose(read_film(path), to_bytes(film.astype(np.uint16) * 16))
    assert medical.pixel_size_mm(path) == (0.1, 0.2)


def test_dicom_negatives_and_other_spacings(tmp_path, film):
    path = write_dicom(tmp_path / "film.dcm", film, PhotometricInterpretation="MONOCHROME1")
    assert np.corrcoef(read_film(path).ravel(), film.ravel())[0, 1] < -0.99
    path = write_dicom(tmp_path / "other.dcm", film, PixelSpacing=None, ImagerPixelSpacing=[0.3, 0.3])
    assert medical.pixel_size_mm(path) == (0.3, 0.3)
    assert medical.pixel_size_mm(write_dicom(tmp_path / "none.dcm", film, PixelSpacing=None)) is None


def test_meta_image(tmp_path, film):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(film)
    image.SetSpacing((0.1, 0.2))
    sitk.WriteImage(image, str(tmp_path / "film.mha"))
    assert film_size(tmp_path / "film.mha") == (40, 48)
    assert medical.pixel_size_mm(tmp_path / "film.mha") == (0.1, 0.2)
    np.testing.assert_array_equal(read_film(tmp_path / "film.mha"), film)
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([film] * 5)), str(tmp_path / "stack.mha"))
    with pytest.raises(DataError, match="a stack of 5x48x40 values"):
        read_film(tmp_path / "stack.mha")


@pytest.mark.parametrize(("suffix", "library", "extra"), [(".dcm", "pydicom", "dicom"), (".mha", "SimpleITK", "mha")])
def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, suffix, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"needs {library}; pip install 'vramfit-trainer\[{extra}\]'"):
        read_film(path)


@pytest.mark.parametrize(("suffix", "library"), [(".dcm", "pydicom"), (".mha", "SimpleITK")])
def test_damaged_files_are_a_sentence(tmp_path, suffix, library):
    pytest.importorskip(library)
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"nothing of the kind" * 20)
    for read in (read_film, film_size, medical.pixel_size_mm):
        with pytest.raises(DataError, match=r"film\.\w+: the film is damaged"):
            read(path)


def test_a_damaged_film_is_told_in_our_words_alone(tmp_path, capfd):
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))[1].tobytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        read_film(tmp_path / "cut.png")
    assert capfd.readouterr().err == ""
