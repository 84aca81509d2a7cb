"""Folders of images."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded import run_bounded
from PIL import Image, features

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import DataError, DataNotFoundError, OptionError, PluginError
from fo_onnx.sources import ImageFolder, open_source
from fo_onnx.sources.image_decoding import decode_image


def save(path: Path, height: int = 4, width: int = 4, seed: int = 0, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def whole(data: Any, **options: Any) -> Batch:
    (batch,) = open_source(data, DataOptions(**options)).batches(100)
    return batch


def test_classes_ids_and_order(tmp_path: Path) -> None:
    names = ["dog/b.png", "cat/2.JPG", "cat/10.png", "dog/a.webp", "ant/deep/x.bmp", "cat/.hidden.png", ".git/x.png"]
    for i, name in enumerate(names):
        save(tmp_path / name, seed=i, **({"format": "JPEG"} if name.endswith("JPG") else {}))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path), DataOptions())
    assert source.class_names == ("ant", "cat", "dog")
    assert (source.length, source.id_kind, source.has_labels, source.in_memory) == (5, "str", True, False)
    batch = source.peek(10)
    assert batch.ids.tolist() == ["ant/deep/x.bmp", "cat/10.png", "cat/2.JPG", "dog/a.webp", "dog/b.png"]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 1, 2, 2]
    assert batch.inputs["0"].shape == (5, 3, 4, 4)
    assert batch.inputs["0"].dtype == np.float32


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    source = open_source(ImageFolder(tmp_path), DataOptions())
    assert not source.has_labels
    assert source.class_names is None
    assert whole(tmp_path).labels is None


def test_the_folders_are_the_columns_of_a_model_that_names_none(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png"):
        save(tmp_path / name)

    def model(x: np.ndarray) -> np.ndarray:
        return np.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], axis=1)

    rows = fo.generate(model, ImageFolder(tmp_path), output="probs")
    assert rows.class_names == ("cat", "dog")
    assert rows.labels is not None
    assert rows.labels.tolist() == [0, 1]
    # Names that the user gives as labels are in no order that a model would know.
    with pytest.raises(DataError, match="which column is which cannot be determined"):
        fo.generate(model, ImageFolder(tmp_path), output="probs", labels=["dog", "cat"])


def test_given_labels_and_ids_win(tmp_path: Path) -> None:
    save(tmp_path / "cat/a.png")
    save(tmp_path / "dog/a.png")
    batch = whole(tmp_path, labels=[1, 1], ids=[8, 9])
    assert batch.labels is not None
    assert (batch.labels.tolist(), batch.ids.tolist()) == ([1, 1], [8, 9])


def test_values(tmp_path: Path) -> None:
    pixels = save(tmp_path / "c/a.png")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (pixels.astype(np.float64) / 255 - mean) / std
    found = whole(ImageFolder(tmp_path, mean=mean, std=std, layout="NHWC")).inputs["0"]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    found = whole(ImageFolder(tmp_path, mean=mean, std=std)).inputs["0"]
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), atol=1e-6)
    assert found.flags.c_contiguous


def test_grey(tmp_path: Path) -> None:
    pixels = save(tmp_path / "c/a.png")
    found = whole(ImageFolder(tmp_path, mode="L", mean=0.5, std=2)).inputs["0"]
    assert found.shape == (1, 1, 4, 4)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_allclose(found[0, 0], (grey / 255 - 0.5) / 2, atol=1e-6)


def test_16_bits_are_scaled(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    deep = np.array([[0, 257 * 100], [65535, 257 * 7]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "c/a.png")
    found = whole(ImageFolder(tmp_path, mode="L")).inputs["0"]
    np.testing.assert_allclose(found[0, 0], deep / 65535, atol=1e-6)


def test_palettes_with_transparency(tmp_path: Path) -> None:
    pixels = save(tmp_path / "c/a.png")
    image = Image.fromarray(pixels).quantize(8)
    image.save(tmp_path / "c/a.png", transparency=bytes([0, 128] * 4))
    expected = np.asarray(image.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(whole(tmp_path).inputs["0"][0], expected, atol=1e-6)


def test_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = save(tmp_path / "c/a.png", 4, 6, exif=exif)
    found = whole(ImageFolder(tmp_path, layout="NHWC")).inputs["0"][0]
    np.testing.assert_allclose(found, np.rot90(pixels, -1) / np.float32(255), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "options", "shape"),
    [
        ((20, 30), {"resize": 10}, (10, 15)),
        ((30, 20), {"resize": 10}, (15, 10)),
        ((20, 31), {"resize": 10}, (10, 15)),
        ((20, 30), {"resize": (8, 6)}, (8, 6)),
        ((20, 30), {"crop": 10}, (10, 10)),
        ((20, 30), {"crop": (8, 30)}, (8, 30)),
        ((20, 30), {"resize": 16, "crop": 12}, (12, 12)),
    ],
)
def test_sizes(tmp_path: Path, size: tuple[int, int], options: dict[str, Any], shape: tuple[int, int]) -> None:
    save(tmp_path / "c/a.png", *size)
    assert whole(ImageFolder(tmp_path, **options)).inputs["0"].shape == (1, 3, *shape)


def test_the_crop_is_central(tmp_path: Path) -> None:
    pixels = save(tmp_path / "c/a.png", 9, 12)
    found = whole(ImageFolder(tmp_path, crop=(5, 6), layout="NHWC")).inputs["0"][0]
    np.testing.assert_allclose(found, pixels[2:7, 3:9] / np.float32(255), atol=1e-6)


def test_unequal_sizes(tmp_path: Path) -> None:
    save(tmp_path / "c/a.png", 4, 4)
    save(tmp_path / "c/b.png", 5, 4)
    with pytest.raises(
        DataError,
        match=r"row 1 \(id 'c/b\.png'\) has the shape \(3, 5, 4\) where the others have \(3, 4, 4\) \(ragged rows\)\. "
        r"Make all images equal in size: resize=…, crop=… \(in Python of an ImageFolder\)",
    ):
        list(open_source(tmp_path, DataOptions()).batches(4))


def test_too_small_for_the_crop(tmp_path: Path) -> None:
    save(tmp_path / "c/a.png", 4, 4)
    with pytest.raises(
        DataError,
        match=r"\(id 'c/a\.png'\): Reading .*/c/a\.png: the image is 4 by 4 pixels, smaller than the crop of 8 by 8",
    ):
        whole(ImageFolder(tmp_path, crop=8))


def test_a_broken_file(tmp_path: Path) -> None:
    save(tmp_path / "c/a.png")
    save(tmp_path / "c/b.png")
    (tmp_path / "c/b.png").write_bytes(b"no image")
    batch = whole(tmp_path, on_error="record")
    assert [(b.id, b.position) for b in batch.bad] == [("c/b.png", 1)]
    assert batch.bad[0].reason == (
        f"Reading {tmp_path}/c/b.png: its content is no image of the formats AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP. "
        "Convert it, or leave it out."
    )


def test_everything_is_recorded(tmp_path: Path) -> None:
    save(tmp_path / "c/a.png", 8, 8)
    source = open_source(ImageFolder(tmp_path, resize=6, crop=4, mean=0.5), DataOptions(transform=np.negative))
    expected = {
        "source": "image folder",
        "mode": "RGB",
        "layout": "NCHW",
        "scale": "1/255",
        "resize": 6,
        "crop": [4, 4],
        "mean": [0.5, 0.5, 0.5],
        "std": None,
    }
    assert {k: v for k, v in source.preprocessing.items() if k != "transform"} == expected
    assert source.preprocessing["transform"].endswith("negative")
    assert json.loads(json.dumps(source.preprocessing)) == source.preprocessing


def test_threads_give_the_same(tmp_path: Path) -> None:
    for i in range(20):
        save(tmp_path / f"c/{i:02d}.png", seed=i)
    np.testing.assert_array_equal(whole(tmp_path).inputs["0"], whole(tmp_path, num_workers=3).inputs["0"])


def test_images_beside_and_within_folders(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "c/b.png")
    with pytest.raises(DataError, match=r"images both beside folders \(a\.png\) and within them \(c/b\.png\)"):
        open_source(tmp_path, DataOptions())


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images; .*\.bmp, .*\.webp were .* What is there: no files"):
        open_source(tmp_path, DataOptions())
    (tmp_path / "photo.HEIC").touch()
    with pytest.raises(DataError, match=r"holds no images; .* What is there: \.heic \(1\)\.$"):
        open_source(tmp_path, DataOptions())
    with pytest.raises(DataNotFoundError, match="there is no folder of images at"):
        open_source(ImageFolder(tmp_path / "none"), DataOptions())


def test_files_that_are_passed_over_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "c/a.png")
    for name in ("c/.DS_Store", "c/Thumbs.db", "desktop.ini", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    whole(tmp_path)
    assert caplog.text == ""
    for name in ("c/b.heic", "c/c.HEIC", "c/d.psd", "labels.csv", "c/e"):
        (tmp_path / name).touch()
    assert len(whole(tmp_path)) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert "5 files are passed over, since by their suffix they are no images that are read: .heic (2)" in message
    assert all(part in message for part in (".psd (1)", ".csv (1)", "no suffix (1)"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "HWC"}, r"layout='HWC' is not a choice; the choices are 'NCHW', 'NHWC'"),
        ({"mode": "RGBA"}, r"mode='RGBA' is not a choice"),
        ({"resize": 0}, r"resize=0 is not usable: pixels, as one positive integer or \(height, width\)"),
        ({"resize": 2.5}, r"resize=2\.5 is not usable"),
        ({"crop": (1, 2, 3)}, r"crop=\(1, 2, 3\) is not usable"),
        ({"mean": (1, 2)}, r"mean=\(1, 2\) is not usable: one finite number, or 3 for mode='RGB', were expected"),
        ({"std": 0}, r"std=0 is not usable: one finite number, or 3 for mode='RGB', above 0 were expected"),
        ({"mean": "x"}, r"mean='x' is not usable"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ImageFolder("x", **options)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args, **options)

    save(tmp_path / "c/a.png")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PluginError, match=r"pip install 'fo-onnx\[images\]'"):
        open_source(tmp_path, DataOptions())


class TestFilesOfStrangers:
    def test_what_a_file_is_called_does_not_choose_its_decoder(self, tmp_path: Path) -> None:
        pixels = save(tmp_path / "c/a.png")
        (tmp_path / "c/a.png").rename(tmp_path / "c/a.jpg")
        found = whole(ImageFolder(tmp_path, layout="NHWC")).inputs["0"][0]
        np.testing.assert_allclose(found, pixels / np.float32(255), atol=1e-6)

    @pytest.mark.parametrize(
        "kind", ["bmp", "gif", "jpg", "jfif", "jpe", "JPEG", "pgm", "png", "ppm", "tif", "webp", "avif", "jp2"]
    )
    def test_each_suffix_is_decoded(self, tmp_path: Path, kind: str) -> None:
        if kind == "avif" and not features.check("avif"):
            pytest.skip("this Pillow reads no AVIF")
        Image.new("L", (5, 4), 255).save(tmp_path / f"a.{kind}")
        assert whole(ImageFolder(tmp_path, mode="L")).inputs["0"].min() > 0.99

    def test_formats_outside_the_list_are_bad_rows(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "a.png", format="ICO")
        Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
        batch = whole(tmp_path, on_error="record")
        assert [b.id for b in batch.bad] == ["a.png"]
        assert "its content is no image of the formats AVIF, BMP, GIF, JPEG" in batch.bad[0].reason

    def test_pipes_and_dangling_links_are_bad_rows(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        os.mkfifo(tmp_path / "b.png")
        (tmp_path / "c.png").symlink_to("nowhere")
        reasons = {b.id: b.reason for b in whole(tmp_path, on_error="record").bad}
        assert list(reasons) == ["b.png", "c.png"]
        assert "b.png: a pipe; a regular file was expected" in reasons["b.png"]
        assert "c.png: it is not there (any more)" in reasons["c.png"]

    def test_the_limit_on_pixels_is_raised_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "a.png", 4, 5)
        monkeypatch.setenv("FO_ONNX_MAX_PIXELS", "19")
        with pytest.raises(
            DataError,
            match=r"a\.png: the image is 4 by 5 pixels, more than 19 in all, which would fill the memory\. If it is meant, raise "
            r"the limit: FO_ONNX_MAX_PIXELS=",
        ):
            whole(tmp_path)
        monkeypatch.setenv("FO_ONNX_MAX_PIXELS", "20")
        assert whole(tmp_path).inputs["0"].shape == (1, 3, 4, 5)
        with pytest.raises(DataError, match=r"resize= would make the image 8 by 10 pixels, more than 20"):
            whole(ImageFolder(tmp_path, resize=8))

    def test_pillows_own_limit_does_not_warn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pillow's warning begins at half of its bound, and its bound can be raised only for the whole process."""
        save(tmp_path / "a.png", 4, 5)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
        assert whole(tmp_path).inputs["0"].shape == (1, 3, 4, 5)
        assert whole(ImageFolder(tmp_path, crop=4)).inputs["0"].shape == (1, 3, 4, 4)

    def test_of_an_animation_the_first_frame_is_taken(self, tmp_path: Path) -> None:
        frames = [Image.new("L", (4, 4), v) for v in (255, 0)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert whole(ImageFolder(tmp_path, mode="L")).inputs["0"].min() == 1

    def test_a_name_that_is_no_utf8_is_refused_before_a_row_is_read(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/b\xff.png")
        with pytest.raises(
            DataError, match=r"holds an image whose name, 'b\\udcff\.png', is no text in UTF-8.*; rename it"
        ):
            open_source(tmp_path, DataOptions())
        assert whole(tmp_path, ids=[7]).ids.tolist() == [7]

    def test_a_class_whose_name_is_no_utf8(self, tmp_path: Path) -> None:
        save(tmp_path / "c/a.png")
        os.rename(tmp_path / "c", os.fsencode(tmp_path) + b"/c\xff")
        with pytest.raises(DataError, match=r"a folder of a class whose name, 'c\\udcff', is no text in UTF-8"):
            open_source(tmp_path, DataOptions())
        assert whole(tmp_path, ids=[7], labels=[0]).ids.tolist() == [7]

    def test_a_name_of_255_bytes(self, tmp_path: Path) -> None:
        name = "é" * 125 + "x.png"
        assert len(name.encode()) == 255
        save(tmp_path / name)
        assert whole(tmp_path).ids.tolist() == [name]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_without_rights_is_no_empty_one(self, tmp_path: Path) -> None:
        save(tmp_path / "c/a.png")
        save(tmp_path / "d/b.png")
        (tmp_path / "d").chmod(0)
        try:
            with pytest.raises(DataError, match=r"Reading .*/d: the operating system refuses \(Permission denied\)"):
                open_source(tmp_path, DataOptions())
        finally:
            (tmp_path / "d").chmod(0o700)

    def test_an_image_that_vanishes_is_a_bad_row(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        save(tmp_path / "b.png")
        source = open_source(tmp_path, DataOptions(on_error="record"))
        (tmp_path / "b.png").unlink()
        (batch,) = source.batches(10)
        assert [b.id for b in batch.bad] == ["b.png"]
        assert "b.png: it is not there (any more)" in batch.bad[0].reason

    @pytest.mark.parametrize("kind", ["tif", "webp", "gif"])
    def test_what_pillow_refuses_by_itself_is_refused_in_our_words(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pillow checks the canvas of WebP, the tiles of TIFF and the frames of GIF once more."""
        frames = [Image.new("L", (10, 10), v) for v in (255, 0)]
        frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], disposal=2, lossless=True)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
        with pytest.raises(
            DataError, match=rf"a\.{kind}: it is larger than Pillow decodes .*limit: FO_ONNX_MAX_PIXELS="
        ):
            whole(ImageFolder(tmp_path, mode="L"))
        assert Image.MAX_IMAGE_PIXELS == 40, "without the variable the bound of the process is left as it is"
        monkeypatch.setenv("FO_ONNX_MAX_PIXELS", "100")
        assert whole(ImageFolder(tmp_path, mode="L")).inputs["0"].min() == 1

    def test_a_file_that_is_cut_short_after_it_was_decoded(self, tmp_path: Path) -> None:
        """An image that Pillow maps into memory would end the process."""
        path = tmp_path / "a.pgm"
        Image.new("L", (500, 500), 255).save(path)

        def read() -> None:
            image = decode_image(path, "L")
            os.truncate(path, 0)
            assert np.asarray(image).min() == 255

        outcome = run_bounded(read)
        assert (outcome.error, outcome.ended) == (None, None), outcome

    def test_a_large_image_is_in_memory_once(self, tmp_path: Path) -> None:
        """Decoded it takes 75 MB."""
        Image.new("RGB", (5000, 5000)).save(tmp_path / "a.png", compress_level=1)
        run_bounded(lambda: ImageFolder(tmp_path, resize=8).read(tmp_path / "a.png")).require_bounds(gigabytes=0.13)
