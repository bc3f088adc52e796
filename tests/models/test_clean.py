"""LACE's classifiers on latents whose labels are drawn from known probabilities."""

import pytest
import torch

from lcg_lightning.cli import main
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.store import LatentStore
from lcg_lightning.errors import UserError
from lcg_lightning.models.clean import CleanClassifier
from lcg_lightning.models.load import load_clean_classifier
from tests import toy_latents
from tests.conftest import ROOT
from tests.toy_latents import SCHEMA, D, V, W, trainer


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    data = LatentDataModule(toy_latents.write(folder / "store", 8000))
    torch.manual_seed(0)
    classifier = CleanClassifier(D, SCHEMA.to_json(), (32, 32), lr=3e-3, warmup_steps=20, decay_steps=310)
    fit = trainer(10, check_val_every_n_epoch=11)
    fit.fit(classifier, data)
    fit.save_checkpoint(folder / "clean.ckpt")
    return classifier, data, folder / "clean.ckpt"


def test_it_finds_the_probabilities_that_labels_were_drawn_from(fitted):
    classifier, data, _ = fitted
    latents, labels, _ = data.store.split("test")
    z = (latents - data.store.mean.float()) / data.store.std.float()
    with torch.no_grad():
        out = classifier(z)
    assert (torch.sigmoid(out[:, 0]) - torch.sigmoid(latents.double() @ W)).abs().mean() < 0.04
    assert (out[:, 1] - (0.5 + latents.double() @ V)).abs().mean() < 0.03
    assert out[:, 2].eq(2 * torch.tensor(0.1).log()).all()
    (report,) = trainer().test(classifier, data, verbose=False)
    kind = labels[:, 2]
    right = (out[:, 3:].argmax(1) == kind)[~kind.isnan()].float().mean()
    assert report["test/accuracy/kind"] == pytest.approx(right.item(), abs=1e-6)
    assert right > 0.9


def test_a_checkpoint_is_read_for_its_own_store_alone(fitted, tmp_path):
    classifier, data, path = fitted
    loaded = load_clean_classifier(path, data.store)
    z = torch.randn(5, D)
    torch.testing.assert_close(loaded(z), classifier(z))
    assert not any(p.requires_grad for p in loaded.parameters())
    other = LatentStore.open(toy_latents.write(tmp_path / "modes", 500, modes=True))
    with pytest.raises(UserError, match="standardized by other statistics"):
        load_clean_classifier(path, other)


def test_lcg_tests_the_network_that_lcg_fitted(fitted, tmp_path):
    words = [
        f"--config={ROOT / 'configs/classifier/clean.yaml'}",
        f"--data.init_args.store={fitted[1].store.path}",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]
    assert main(["fit", *words, "--trainer.max_epochs=-1", "--trainer.max_steps=1"]) == 0
    assert main(["test", *words, f"--ckpt_path={tmp_path / 'last.ckpt'}"]) == 0


def test_impossible_arguments_are_refused():
    for options, message in (
        ({"widths": ()}, "one or more widths"),
        ({"widths": (3, 0)}, "one or more widths"),
        ({"sigma": 0.0}, "sigma is 0"),
        ({"lr": 0.0}, "lr is 0"),
    ):
        with pytest.raises(UserError, match=message):
            CleanClassifier(D, SCHEMA.to_json(), **options)
