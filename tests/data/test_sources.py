"""Published sets: one ImageSet whatever the layout, and every failure said before training."""

from __future__ import annotations

import hashlib
import io
import pickle
import socket
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from picture_files import edm_files, encode, random_images, write_folder, write_zip

from genbench.contracts import UserError
from genbench.data.images import ImageSet
from genbench.data.pictures import ZipOfPictures
from genbench.data.published import Published
from genbench.data.sources import CIFAR10, MNIST, Digits, FashionMNIST, read_idx

COUNTS = {"train": 15, "test": 4}


class SmallCIFAR10(CIFAR10):
    counts = COUNTS


class SmallMNIST(MNIST):
    counts = COUNTS


class SmallFashionMNIST(FashionMNIST):
    counts = COUNTS


class Response(io.BytesIO):
    """What urlopen gives, as far as torchvision looks at it."""

    def __init__(self, url: str, data: bytes) -> None:
        super().__init__(data)
        self.url, self.length = url, len(data)


@pytest.fixture(autouse=True)
def web(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The whole network of these tests: what is put in here by its address, and nothing else."""
    pages: dict[str, bytes] = {}

    def urlopen(request: urllib.request.Request) -> Response:
        if request.full_url not in pages:
            raise URLError("no network in tests")
        return Response(request.full_url, pages[request.full_url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return pages


def labelled(split: str, channels: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    count = COUNTS[split]
    return random_images(count, channels, resolution, seed=len(split)), np.arange(count) % 10


def cifar_layout(
    folder: Path, sets: Mapping[str, tuple[np.ndarray, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes batches as torchvision expects them and tells torchvision their MD5 sums."""
    batches = {}
    images, labels = sets["train"]
    for part, (some, theirs) in enumerate(zip(np.array_split(images, 5), np.array_split(labels, 5)), 1):
        batches[f"data_batch_{part}"] = {"data": some.reshape(len(some), -1), "labels": theirs.tolist()}
    images, labels = sets["test"]
    batches["test_batch"] = {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
    batches["batches.meta"] = {"label_names": [str(number) for number in range(10)]}
    files = {name: pickle.dumps(batch) for name, batch in batches.items()}
    write_folder(folder / "cifar-10-batches-py", files)
    sums = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    known = torchvision.datasets.CIFAR10
    train = [[name, sums[name]] for name in sorted(sums) if name.startswith("data")]
    monkeypatch.setattr(known, "train_list", train)
    monkeypatch.setattr(known, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(known, "meta", known.meta | {"md5": sums["batches.meta"]})


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def mnist_files(sets: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    files = {}
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        images, labels = sets[split]
        files[f"{prefix}-images-idx3-ubyte"] = idx(images[:, 0])
        files[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    return files


def same(one: ImageSet, other: ImageSet) -> bool:
    return (
        one.sha256 == other.sha256
        and torch.equal(one.images, other.images)
        and torch.equal(one.labels, other.labels)
    )


def small_zips(folder: Path, source: Published) -> None:
    for split in COUNTS:
        files = edm_files(*labelled(split, source.channels, source.resolution))
        write_zip(source.zip_path(folder, split), files)


# ------------------------------------------------------------------------------------------------ digits


@pytest.mark.parametrize(("split", "part"), [("train", slice(0, 1437)), ("test", slice(1437, 1797))])
def test_digits_keep_their_seventeen_levels(split: str, part: slice) -> None:
    from sklearn.datasets import load_digits

    levels, labels = load_digits().images[part].astype(int), load_digits().target[part]
    found = Digits().load(Path("/nowhere"), split)
    tokens = torch.round(found.images.double() / 255 * (found.levels - 1)).int()
    assert torch.equal(found.images, torch.round(tokens.double() * 255 / 16).byte())
    original = sorted((image.tobytes(), label) for image, label in zip(levels.astype(np.uint8), labels))
    ours = sorted(
        (image.tobytes(), label) for image, label in zip(tokens.byte().numpy(), found.labels.numpy())
    )
    assert ours == original
    assert (tokens.min(), tokens.max()) == (0, 16)


def test_digits_are_the_published_set() -> None:
    hashes = [Digits().load(Path("/nowhere"), split).sha256 for split in ("train", "test")]
    assert hashes == [
        "cdad37e439b27e8b653dce6cc46bdad98fded8fa34344dcdf74c3c659e2c39eb",
        "7fbedbfcf91c1aa6e7be28f4ac640414fb628aeb0661c68868eec23065119924",
    ]


@pytest.mark.parametrize("source", [Digits(), CIFAR10()])
def test_there_are_two_splits(source: Digits | CIFAR10, tmp_path: Path) -> None:
    for ask in (source.locate, source.load):
        with pytest.raises(UserError, match=r"no split 'valid'.*train and test"):
            ask(tmp_path, "valid")


# ---------------------------------------------------------------------------------------------- one set


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_is_the_same_from_a_zip_and_from_torchvisions_layout(
    tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SmallCIFAR10()
    (tmp_path / "zip").mkdir()
    small_zips(tmp_path / "zip", source)
    cifar_layout(tmp_path / "tv", {split: labelled(split, 3, 32) for split in COUNTS}, monkeypatch)
    zipped, laid_out = source.load(tmp_path / "zip", split), source.load(tmp_path / "tv", split)
    assert same(zipped, laid_out)
    assert "zip" in zipped.provenance["source"]
    assert "torchvision" in laid_out.provenance["source"]
    images, labels = labelled(split, 3, 32)
    position = int(np.flatnonzero((zipped.images.numpy() == images[2]).all((1, 2, 3)))[0])
    assert zipped.labels[position] == labels[2]


@pytest.mark.parametrize(
    ("source", "oracle"),
    [
        (SmallMNIST(), torchvision.datasets.MNIST),
        (SmallFashionMNIST(), torchvision.datasets.FashionMNIST),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_the_same_from_a_zip_and_from_torchvisions_layout(
    tmp_path: Path, source: MNIST, oracle: type, split: str
) -> None:
    (tmp_path / "zip").mkdir()
    small_zips(tmp_path / "zip", source)
    sets = {split: labelled(split, 1, 28) for split in COUNTS}
    write_folder(tmp_path / "tv" / source.layout, mnist_files(sets))
    laid_out = source.load(tmp_path / "tv", split)
    assert same(source.load(tmp_path / "zip", split), laid_out)
    theirs = oracle(str(tmp_path / "tv"), train=split == "train", download=False)
    ours = {image.numpy().tobytes(): int(label) for image, label in zip(laid_out.images, laid_out.labels)}
    assert ours == {image.numpy().tobytes(): int(label) for image, label in zip(theirs.data, theirs.targets)}


def test_torchvisions_layout_comes_before_the_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SmallCIFAR10()
    small_zips(tmp_path, source)
    assert "15 images in" in source.locate(tmp_path, "train")
    cifar_layout(tmp_path, {split: labelled(split, 3, 32) for split in COUNTS}, monkeypatch)
    assert "torchvision's layout" in source.locate(tmp_path, "train")
    assert "torchvision" in source.load(tmp_path, "train").provenance["source"]
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()  # incomplete: the zip serves
    assert "15 images in" in source.locate(tmp_path, "train")
    assert "EDM zip" in source.load(tmp_path, "train").provenance["source"]


# ---------------------------------------------------------------------------------------------- refusals


def test_a_damaged_torchvision_layout_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_layout(tmp_path, {split: labelled(split, 3, 32) for split in COUNTS}, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UserError, match=r"cifar-10-batches-py is damaged.*MD5"):
        SmallCIFAR10().load(tmp_path, "train")


def test_a_broken_zip_is_refused_by_locate_already(tmp_path: Path) -> None:
    (tmp_path / "cifar10-32x32.zip").write_bytes(b"PK\x03\x04 interrupted")
    for ask in (CIFAR10().locate, CIFAR10().load):
        with pytest.raises(UserError, match=r"cifar10-32x32\.zip is not a readable zip"):
            ask(tmp_path, "train")


def test_a_zip_of_another_number_of_images_is_not_the_published_set(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar10-32x32.zip", edm_files(*labelled("train", 3, 32)))
    with pytest.raises(UserError, match=r"cifar10-32x32\.zip holds 15 images; .* 50,000.*dataset=folder"):
        CIFAR10().load(tmp_path, "train")


def test_a_zip_without_labels_is_not_the_published_set(tmp_path: Path) -> None:
    write_zip(tmp_path / "cifar10-32x32.zip", edm_files(labelled("train", 3, 32)[0], None))
    with pytest.raises(UserError, match=r"cifar10-32x32\.zip has no labels"):
        SmallCIFAR10().load(tmp_path, "train")


@pytest.mark.parametrize(
    ("replacement", "says"),
    [
        (encode(np.zeros((3, 16, 16), np.uint8)), "16x16 pixels.*expected 32x32"),
        (encode(np.zeros((1, 32, 32), np.uint8)), "1 channel.*expected 3"),
        (encode(random_images(1, 3, 32)[0])[:-400], "damaged or truncated"),
    ],
    ids=["size", "channels", "truncated"],
)
def test_one_bad_picture_in_a_zip_is_named(tmp_path: Path, replacement: bytes, says: str) -> None:
    files = edm_files(*labelled("train", 3, 32)) | {"00000/img00000007.png": replacement}
    write_zip(tmp_path / "cifar10-32x32.zip", files)
    with pytest.raises(UserError, match=rf"img00000007\.png in .*cifar10-32x32\.zip .*{says}"):
        SmallCIFAR10().load(tmp_path, "train")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (idx(np.zeros(15)), "not an IDX file"),
        (idx(np.zeros((15, 28, 28)))[:-1], r"truncated"),
        (idx(np.zeros((15, 28, 28))) + b"x", r"truncated or another file"),
        (idx(np.zeros((15, 27, 28))), r"shape \(1, 27, 28\).*expected \(1, 28, 28\)"),
        (idx(np.zeros((14, 28, 28))), "14 images"),
    ],
)
def test_a_bad_idx_file_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    files = mnist_files({split: labelled(split, 1, 28) for split in COUNTS})
    write_folder(tmp_path / "MNIST/raw", files | {"train-images-idx3-ubyte": data})
    with pytest.raises(UserError, match=says):
        SmallMNIST().load(tmp_path, "train")


@pytest.mark.parametrize(
    ("labels", "says"),
    [(np.arange(14) % 10, "14 labels for 15 images"), (np.arange(15), "labels from 0 to 14")],
)
def test_bad_idx_labels_are_refused(tmp_path: Path, labels: np.ndarray, says: str) -> None:
    files = mnist_files({split: labelled(split, 1, 28) for split in COUNTS})
    write_folder(tmp_path / "MNIST/raw", files | {"train-labels-idx1-ubyte": idx(labels)})
    with pytest.raises(UserError, match=f"MNIST/raw holds {says}"):
        SmallMNIST().load(tmp_path, "train")


def test_idx_sizes_cannot_overflow(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes((0, 0, 8, 3)) + b"\x80\0\0\0" * 3)
    with pytest.raises(UserError, match="holds 0 bytes for sizes"):
        read_idx(file, dimensions=3)


# --------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize("source", [CIFAR10(), MNIST(), FashionMNIST()])
def test_without_a_network_the_user_learns_what_to_put_where(tmp_path: Path, source: Published) -> None:
    root = tmp_path / "not" / "yet"
    assert f"will be downloaded by torchvision ({source.download_size}) to {root}" in source.locate(
        root, "test"
    )
    assert not root.exists()
    with pytest.raises(UserError) as caught:
        source.load(root, "test")
    said = str(caught.value)
    for wanted in (
        source.title,
        str(root),
        "no network in tests",
        source.layout,
        "data_root=",
        "GENBENCH_DATA",
    ):
        assert wanted in said
    assert source.zip_path(root, "test").name in said


@pytest.mark.parametrize(
    "error", [TimeoutError(), EOFError("cut off"), RuntimeError("wrong sum"), tarfile.ReadError("x")]
)
def test_whatever_a_download_raises_is_one_message(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: CIFAR10, data_root: Path) -> None:
        assert socket.getdefaulttimeout() is not None
        raise error

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(UserError, match=r"could not be downloaded: \S"):
        CIFAR10().load(tmp_path, "train")
    assert socket.getdefaulttimeout() is None


def test_a_bug_in_a_download_is_not_mistaken_for_a_missing_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: CIFAR10, data_root: Path) -> None:
        raise AttributeError("bug")

    monkeypatch.setattr(CIFAR10, "download", fail)
    with pytest.raises(AttributeError):
        CIFAR10().load(tmp_path, "train")


def test_a_data_root_that_is_a_file_is_refused_by_locate(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder one can write to"):
        CIFAR10().locate(tmp_path / "file", "train")


def test_torchvision_downloads_what_is_then_read(
    tmp_path: Path, web: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = tmp_path / "server", tmp_path / "root"
    cifar_layout(server, {split: labelled(split, 3, 32) for split in COUNTS}, monkeypatch)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.add(server / "cifar-10-batches-py", "cifar-10-batches-py")
    known = torchvision.datasets.CIFAR10
    web[known.url] = stream.getvalue()
    monkeypatch.setattr(known, "tgz_md5", hashlib.md5(stream.getvalue()).hexdigest())
    found = SmallCIFAR10().load(root, "train")
    assert same(found, SmallCIFAR10().load(server, "train"))
    assert "torchvision's layout" in SmallCIFAR10().locate(root, "train")


# --------------------------------------------------------------------------------------------- real data


def need(source: Published, data_root: Path) -> None:
    """Skips a test where a real data set is in neither layout."""
    for split in COUNTS:
        if source.missing(data_root, split) and not source.zip_path(data_root, split).is_file():
            pytest.skip(f"GENBENCH_DATA holds no {source.title}")


@pytest.fixture(scope="module")
def real_cifar10_test(data_root: Path) -> ImageSet:
    """The real test split, decoded once for the tests below."""
    need(CIFAR10(), data_root)
    return CIFAR10().load(data_root, "test")


@pytest.mark.slow
def test_real_cifar10_is_the_published_set(data_root: Path, real_cifar10_test: ImageSet) -> None:
    train, test = CIFAR10().load(data_root, "train"), real_cifar10_test
    assert train.sha256 == "5dc4de11ac497e6ee59071434022117f5844d609d55f319642297c912492124d"
    assert test.sha256 == "6653deb32553f73a14cbba91df2017a1ba5ee70e69e2753057fb34cf66e321cd"
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # The channel means everyone normalises CIFAR-10 with.
    means = torch.stack([train.images[:, channel].double().mean() / 255 for channel in range(3)])
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_real_cifar10_is_the_same_in_torchvisions_layout(
    real_cifar10_test: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = real_cifar10_test
    if "zip" not in zipped.provenance["source"]:
        pytest.skip("GENBENCH_DATA holds no cifar10-test-32x32.zip to compare with")
    shuffled = np.random.default_rng(0).permutation(len(zipped))
    test = zipped.images.numpy()[shuffled], zipped.labels.numpy()[shuffled]
    cifar_layout(tmp_path, {"train": labelled("train", 3, 32), "test": test}, monkeypatch)
    assert same(CIFAR10().load(tmp_path, "test"), zipped)


def test_real_fashion_mnist_is_the_published_set(data_root: Path) -> None:
    need(FashionMNIST(), data_root)
    train, test = (FashionMNIST().load(data_root, split) for split in ("train", "test"))
    assert train.sha256 == "58ea6ff7d7180989366b79ece9f71023a8c28a79ce094541485e1464bb14917e"
    assert test.sha256 == "37288b8dfa25a0ffb59d9951c1b9aafa70a9a8d2e26cc7c113d86750a2684af6"
    assert train.labels.bincount().tolist() == [6000] * 10


def test_locating_decodes_nothing(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ZipOfPictures, "read", lambda *_: pytest.fail("read a picture"))
    for source in (CIFAR10(), FashionMNIST()):
        need(source, data_root)
        assert source.title in source.locate(data_root, "train")
