"""CIFAR-10 by every way in, and what is made of files that are not CIFAR-10."""

import io
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from moedb.capture.jobs.cifar_moe.images import ImageSet, load_cifar10
from moedb.errors import DatasetError
from tests.support.models.cifar_images import make_image_sets

TRAIN, TEST = make_image_sets(25, 12, seed=3)
PARTS = [slice(start, start + 5) for start in range(0, 25, 5)]


def planes(images):
    """Rows of all red, then all green, then all blue values, as the original batches have them."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path, found, image="img", label="label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": png(pixels), "path": None} for pixels in found.images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image: pa.array(cells, kind), label: found.labels}), path)


def write_binary(path, found):
    path.write_bytes(np.column_stack([found.labels.astype(np.uint8), planes(found.images)]))


def python_2_pickle(found):
    """What Python 2 and the numpy of 2009 wrote: protocol 2, with strings for bytes."""

    def string(value):
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def number(value):
        return b"K" + bytes([value])  # BININT1

    rows = planes(found.images)
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array += number(0) + b"\x85" + string(b"b") + b"\x87R"
    shape = number(len(rows)) + b"M" + struct.pack("<H", rows.shape[1]) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + string(rows.tobytes()) + b"tb"
    labels = b"](" + b"".join(number(int(label)) for label in found.labels) + b"e"
    items = string(b"batch_label") + string(b"one of five") + string(b"labels") + labels
    return b"\x80\x02}(" + items + string(b"data") + array + b"u."


def python_3_pickle(protocol):
    def dumped(found):
        content = {b"data": planes(found.images), b"labels": found.labels.tolist()}
        return pickle.dumps(content, protocol=protocol)

    return dumped


def python_3_pickle_of_names(found):
    return pickle.dumps({"data": planes(found.images), "labels": found.labels})


def write_batches(folder, write, train_name, test_name):
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(PARTS, start=1):
        found = ImageSet(TRAIN.images[part], TRAIN.labels[part])
        write(folder / train_name.format(number), found)
    write(folder / test_name, TEST)


def hub_folder(folder):
    half = [slice(13), slice(13, None)]
    for number, part in enumerate(half):
        found = ImageSet(TRAIN.images[part], TRAIN.labels[part])
        write_parquet(folder / f"train-{number:05d}-of-00002.parquet", found)
    write_parquet(folder / "test-00000-of-00001.parquet", TEST)


def other_columns(folder):
    write_parquet(folder / "train.parquet", TRAIN, "image", "labels")
    write_parquet(folder / "test.parquet", TEST, "image", "labels")


def python_folder(dumped):
    def write(folder):
        write_batches(
            folder,
            lambda path, found: path.write_bytes(dumped(found)),
            "data_batch_{}",
            "test_batch",
        )

    return write


def binary_folder(folder):
    write_batches(folder, write_binary, "data_batch_{}.bin", "test_batch.bin")


WAYS_IN = {
    "parquet": hub_folder,
    "parquet, other columns": other_columns,
    "nested parquet": lambda folder: hub_folder(folder / "plain_text"),
    "binary": binary_folder,
    "nested binary": lambda folder: binary_folder(folder / "cifar-10-batches-bin"),
    "python 2": python_folder(python_2_pickle),
    "nested python 2": lambda folder: python_folder(python_2_pickle)(
        folder / "cifar-10-batches-py"
    ),
    "python 3, protocol 2": python_folder(python_3_pickle(2)),
    "python 3, protocol 4": python_folder(python_3_pickle(4)),
    "python 3, protocol 5": python_folder(python_3_pickle(5)),
    "python 3, names and arrays": python_folder(python_3_pickle_of_names),
}


@pytest.mark.parametrize("way", WAYS_IN)
def test_every_way_in_gives_the_same_images(way, tmp_path):
    WAYS_IN[way](tmp_path / "data")
    for split, expected in (("train", TRAIN), ("test", TEST)):
        found = load_cifar10(tmp_path / "data", split)
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int64
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert found.sha256 == expected.sha256


def test_the_hash_is_over_pixels_and_labels():
    pixels, labels = TEST.images.copy(), TEST.labels.copy()
    pixels[-1, -1, -1, -1] ^= 1
    labels[0] += 1
    others = {ImageSet(pixels, TEST.labels).sha256, ImageSet(TEST.images, labels).sha256}
    assert len(others | {TEST.sha256}) == 3


class CallsSystem:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def assert_refused(folder, *messages):
    with pytest.raises(DatasetError) as caught:
        load_cifar10(folder, "train")
    for message in messages:
        assert message in caught.value.message
    for way in ("--data FOLDER", "Parquet", "python batches", "*.bin", "without --data"):
        assert way in caught.value.hint


def test_a_pickle_that_calls_a_program_is_not_obeyed(tmp_path):
    witness = tmp_path / "witness"
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": CallsSystem(f"touch {witness}"), b"labels": []}))
    pickle.loads(path.read_bytes())  # noqa: S301 - it would
    witness.unlink()
    assert_refused(tmp_path, str(path), "system, which no CIFAR batch needs")
    assert not witness.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "eval"), ("numpy", "load"), ("numpy.core.multiarray", "scalar"), ("os", "dtype")],
)
def test_a_pickle_of_other_functions_is_refused(tmp_path, module, name):
    (tmp_path / "data_batch_1").write_bytes(f"c{module}\n{name}\n(S'1'\ntR.".encode())
    assert_refused(tmp_path, str(tmp_path / "data_batch_1"), f"{module}.{name}")


class Array:
    """An array with a dtype whose state says something else than its name."""

    def __init__(self, code, state, content=bytes(24)):
        self.code, self.state, self.content = code, state, content

    def __reduce__(self):
        dtype = Dtype(self.code, self.state)
        reconstruct = np.empty(0).__reduce__()[0]
        return reconstruct, (np.ndarray, (0,), b"b"), (1, (3,), dtype, False, self.content)


class Dtype:
    def __init__(self, code, state):
        self.code, self.state = code, state

    def __reduce__(self):
        return np.dtype, (self.code, False, True), self.state


PLAIN = (3, "|", None, None, None, -1, -1, 0)
FIELDS = ("a",), {"a": (np.dtype("u1"), 0)}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Array("O", PLAIN), "not numbers"),
        (Array("O8", PLAIN, [1]), "not numbers"),
        (Array("V8", (3, "|", None, *FIELDS, 8, 1, 0x3F)), "not numbers"),
        (Array("u8", (3, "<", None, *FIELDS, 8, 1, 0)), "a number format with the state"),
        (Array("u8", (3, "<", (np.dtype("O"), (3,)), None, None, 8, 1, 0)), ""),
        (Array("u8", (3, "?", None, None, None, -1, -1, 0)), "a number format with the state"),
        (Array("u8", PLAIN, [1, 2, 3]), "an array of something else than bytes"),
        (Array("u8", PLAIN, bytes(23)), "cannot be read"),
        (Array("u8", PLAIN, bytes(32)), "cannot be read"),
    ],
)
def test_an_array_of_anything_but_numbers_is_refused(tmp_path, array, message):
    """numpy takes such states at their word: bytes become pointers."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": array, b"labels": [0]}))
    assert_refused(tmp_path, str(path), message)


BATCH = python_3_pickle(4)(TRAIN)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1", BATCH[:-1000], "cannot be read"),
        ("data_batch_1", b"", "cannot be read"),
        ("data_batch_1", b"\x00garbage", "cannot be read"),
        ("data_batch_1", pickle.dumps([1, 2]), "cannot be read"),
        ("data_batch_1", pickle.dumps({"data": 1, "fine_labels": 2}), "data, fine_labels"),
        ("data_batch_1", pickle.dumps({"data": [[1, 2]], "labels": [1]}), "shape (1, 2)"),
        ("data_batch_1.bin", bytes(3073 + 3000), "6073 bytes, expected a multiple of 3073"),
        ("data_batch_1.bin", b"", "no images"),
        ("data_batch_1.bin", b"\x0a" + bytes(3072), "classes from 10 to 10, expected 0 to 9"),
        ("train-00000-of-00001.parquet", b"garbage", "cannot be read"),
        ("train-00000-of-00001.parquet", b"PAR1" + b"garbage" * 9 + b"PAR1", "cannot be read"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path, str(tmp_path / name), message)


def test_a_damaged_file_among_others_is_named(tmp_path):
    binary_folder(tmp_path)
    rows = (tmp_path / "data_batch_3.bin").read_bytes()
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x0b" + rows[1:])
    assert_refused(tmp_path, "data_batch_3.bin", "to 11")
    (tmp_path / "data_batch_3.bin").write_bytes(b"")
    assert_refused(tmp_path, "data_batch_3.bin", "no images")


def test_parquet_files_of_something_else(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    small = ImageSet(TRAIN.images[:, :28, :28], TRAIN.labels)
    write_parquet(path, small)
    assert_refused(tmp_path, str(path), "image 0 is 28 x 28 pixels, expected 32 x 32")
    write_parquet(path, TRAIN, image="picture")
    assert_refused(tmp_path, str(path), "expected the columns img and label, got picture, label")
    write_parquet(path, ImageSet(TRAIN.images, TRAIN.labels + 1))
    assert_refused(tmp_path, str(path), "to 10, expected 0 to 9")
    pq.write_table(pa.table({"img": [{"bytes": b"no picture"}], "label": [0]}), path)
    assert_refused(tmp_path, str(path), "cannot be read")
    pq.write_table(pa.table({"img": [b"bare"], "label": [0]}), path)
    assert_refused(tmp_path, str(path), "cannot be read")
    pq.write_table(pa.table({"img": [{"bytes": png(TRAIN.images[0])}], "label": ["cat"]}), path)
    assert_refused(tmp_path, str(path), "cannot be read")


def test_folders_that_are_none(tmp_path):
    assert_refused(tmp_path, f"{tmp_path} holds no train images")
    assert_refused(tmp_path / "missing", f"{tmp_path / 'missing'} does not exist")
    (tmp_path / "file").write_text("")
    assert_refused(tmp_path / "file", f"{tmp_path / 'file'} is a file, not a folder")


def test_a_split_that_is_missing(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", TRAIN)
    with pytest.raises(DatasetError, match="holds no test images"):
        load_cifar10(tmp_path, "test")


def test_without_data_and_network_the_three_ways_are_named(tmp_path):
    script = """
from moedb.capture.jobs.cifar_moe.images import load_cifar10
from moedb.errors import DatasetError
try:
    load_cifar10(None, "train")
except DatasetError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path),
            "HF_HUB_CACHE": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "uoft-cs/cifar10 is not in the hub's cache and the hub did not give it" in done.stdout
    assert "python batches" in done.stdout
    assert "*.bin" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_real_images(shared_data):
    folder = shared_data("cifar10")
    train, test = load_cifar10(folder, "train"), load_cifar10(folder, "test")
    assert train.images.shape == (49_000 + 1_000, 32, 32, 3)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5_000] * 10
    assert np.bincount(test.labels).tolist() == [1_000] * 10
    assert train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=1e-3)
