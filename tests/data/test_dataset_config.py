"""conf/dataset: every file instantiates a source that keeps what the file says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from picture_files import encode, random_images

from genbench.data.celeba import CENTRE, CelebA
from genbench.data.images import check_facts
from genbench.data.published import Published

CONF = Path(__file__).parents[2] / "conf" / "dataset"
FACTS = ("name", "channels", "resolution", "classes", "levels")


def read(name: str, *overrides: str) -> DictConfig:
    config = OmegaConf.create({"dataset": OmegaConf.load(CONF / f"{name}.yaml")})
    return OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides))).dataset


def test_there_is_a_file_for_every_promised_data_set() -> None:
    promised = ["celeba", "cifar10", "digits", "fashion_mnist", "folder", "mnist"]
    assert sorted(file.stem for file in CONF.glob("*.yaml")) == promised


@pytest.mark.parametrize("name", ["celeba", "cifar10", "fashion_mnist", "mnist"])
def test_the_file_says_what_the_source_promises(name: str) -> None:
    config = read(name)
    source = instantiate(config.source)
    assert isinstance(source, Published)
    assert {fact: config[fact] for fact in FACTS} == {
        "name": source.name,
        "channels": source.channels,
        "resolution": source.resolution,
        "classes": source.classes,
        "levels": 256,
    }
    assert name == source.name
    assert config.reference in source.counts


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_load_as_configured(split: str) -> None:
    config = read("digits")
    check_facts(
        instantiate(config.source).load(Path("/nowhere"), split), **{fact: config[fact] for fact in FACTS}
    )


def test_the_crop_of_celeba_can_be_typed() -> None:
    assert instantiate(read("celeba").source) == CelebA(crop=CENTRE)
    typed = instantiate(read("celeba", "dataset.source.crop.y=121", "dataset.source.crop.size=128").source)
    assert (typed.crop.x, typed.crop.y, typed.crop.size) == (89, 121, 128)


def test_a_folder_takes_its_facts_from_where_users_type_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(random_images(1, channels=1, resolution=12)[0]))
    config = read(
        "folder",
        f"dataset.path={tmp_path}",
        "dataset.resolution=12",
        "dataset.channels=1",
        "dataset.name=mine",
        "dataset.resize=true",
    )
    images = instantiate(config.source).load(tmp_path, "train")
    check_facts(images, **{fact: config[fact] for fact in FACTS})
    assert images.name == config.title == "mine"


def test_standard_sample_counts_and_flips() -> None:
    assert {file.stem: (read(file.stem).n_samples, read(file.stem).flip) for file in CONF.glob("*.yaml")} == {
        "celeba": (50_000, True),
        "cifar10": (50_000, True),
        "digits": (2_000, False),
        "fashion_mnist": (10_000, False),
        "folder": (10_000, True),
        "mnist": (10_000, False),
    }
