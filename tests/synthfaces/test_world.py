"""The renderer's determinism, its stated joint distribution, and that what it draws shows each attribute."""

import pytest
import scipy.stats
import torch

from lcg_lightning.attributes import AttributeSchema
from lcg_lightning.commands.render import render as render_to_disk
from lcg_lightning.data.sources.celebahq import CelebAHQ
from lcg_lightning.errors import UserError
from lcg_lightning.synthfaces.faces import (
    FACTORS,
    HAIR_LENGTH,
    HELD_OUT,
    SCHEMA,
    Faces,
    faces_from_z,
    held_out,
    independent_faces,
    sample_z,
    sphere_cdf,
    uniforms,
    with_uniforms,
)
from lcg_lightning.synthfaces.renderer import render


def test_an_image_depends_on_its_z_alone():
    z = sample_z(40, 3)
    whole = render(faces_from_z(z))
    assert whole.shape == (40, 3, 64, 64)
    assert whole.min() >= -1
    assert whole.max() <= 1
    torch.testing.assert_close(render(faces_from_z(z[35:37]), chunk=1), whole[35:37], rtol=0, atol=1e-6)


def test_larger_renders_average_to_smaller_ones():
    """Analytic anti-aliasing against 4 x 4 supersampling."""
    faces = faces_from_z(sample_z(16, 0))
    fine = torch.nn.functional.avg_pool2d(render(faces, size=256), 4)
    assert (render(faces) - fine).abs().mean() < 0.02


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 22, 23, 24])
def test_sphere_coordinates_have_the_distribution_of_a_students_t(dim):
    """The classical relation: t = sqrt(dim - 1) s / sqrt(1 - s^2) has dim - 1 degrees of freedom."""
    s = torch.linspace(-0.99, 0.99, 41, dtype=torch.float64)
    t = (dim - 1) ** 0.5 * s / (1 - s.square()).sqrt()
    expected = torch.from_numpy(scipy.stats.t.cdf(t.numpy(), dim - 1))
    torch.testing.assert_close(sphere_cdf(s, dim), expected, rtol=0, atol=1e-12)


def test_a_face_is_a_direction_and_its_coordinates_are_uniform():
    z = sample_z(100_000, 2)
    torch.testing.assert_close(uniforms(3.0 * z), uniforms(z), rtol=0, atol=1e-5)
    u = uniforms(z)
    for column in u.double().unbind(1):
        assert scipy.stats.kstest(column.numpy(), "uniform").statistic < 0.007
    extreme = (u[:, :12] - 0.5).abs().amax(1) > 0.497  # rows picked by some columns say nothing of the others
    for column in u[extreme, 12:].double().unbind(1):
        assert scipy.stats.kstest(column.numpy(), "uniform").statistic < 0.02


def test_uniforms_can_be_set_at_will():
    z, u = sample_z(500, 4).double(), torch.rand(500, FACTORS, generator=torch.Generator().manual_seed(0)).double()
    moved = with_uniforms(z, u)
    torch.testing.assert_close(uniforms(moved), u, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.norm(dim=1), z.norm(dim=1))
    torch.testing.assert_close(with_uniforms(z, uniforms(z)), z, rtol=0, atol=1e-9)


def test_joint_distribution_is_the_documented_one():
    labels = faces_from_z(sample_z(200_000, 1)).labels
    column = {name: labels[:, i] for i, name in enumerate(SCHEMA.names)}
    a = (column["Age"] - 18) / 62
    assert a.mean() == pytest.approx(0.5, abs=0.005)
    assert a.var() == pytest.approx(1 / 12, abs=0.002)
    expected = {
        "Eyeglasses": 0.12 + 0.5 * a,
        "Smiling": 0.6 - 0.15 * a,
        "Hat": 0.32 - 0.14 * a,
        "Gray_Hair": 0.85 * ((a - 0.25) / 0.75).clamp(min=0),
        "Beard": 0.25 + 0 * a,
        "Bald": 0.02 + 0.18 * a,
    }
    for name, probability in expected.items():
        for old in (a < 0.5, a >= 0.5):
            assert column[name][old].mean() == pytest.approx(probability[old].mean().item(), abs=0.006), name
    assert column["Yaw"].std() == pytest.approx(11.84, abs=0.1)
    long_hair = faces_from_z(sample_z(200_000, 1)).identity[:, HAIR_LENGTH] >= 0.5
    assert labels[long_hair][:, [SCHEMA.index("Beard"), SCHEMA.index("Bald")]].sum() == 0
    assert held_out(labels).float().mean() > 0.05


@pytest.mark.parametrize("name", SCHEMA.names)
def test_every_attribute_shows_in_every_face(name):
    """Changing one label changes a visible part of the image, whatever the rest of the face."""
    faces = independent_faces(sample_z(300, 0))
    attribute, i = SCHEMA[name], SCHEMA.index(name)
    other = faces.labels.clone()
    if attribute.kind == "binary":
        other[:, i] = 1 - other[:, i]
    else:
        middle = (attribute.low + attribute.high) / 2
        other[:, i] += torch.where(other[:, i] < middle, 0.5, -0.5) * (attribute.high - attribute.low)
    change = (render(faces) - render(Faces(faces.identity, faces.scene, other))).abs().amax(1).flatten(1)
    assert (change.sum(1) > 2).float().mean() > 0.97


def test_data_set_on_disk_is_celebahq(tmp_path):
    out = render_to_disk(tmp_path / "faces", train=60, val=10, test=30, seed=5)
    faces = CelebAHQ(
        out / "images",
        out / "attributes.txt",
        measure_files=[out / "pose.txt", out / "age.txt"],
        measures=[SCHEMA["Age"], SCHEMA["Yaw"]],
        partition=out / "splits.txt",
    ).read()
    assert faces.schema == SCHEMA
    assert isinstance(faces.schema, AttributeSchema)
    splits = faces.splits
    assert [splits.count(s) for s in ("train", "val", "test")] == [60, 10, 30]
    trained = torch.tensor([s != "test" for s in splits])
    assert not held_out(faces.labels[trained]).any()
    assert len(HELD_OUT) >= 3
    again = render_to_disk(tmp_path / "again", train=60, val=10, test=30, seed=5)
    for path in sorted(p.relative_to(out) for p in out.rglob("*.*")):
        assert (out / path).read_bytes() == (again / path).read_bytes()


def test_rendering_refuses_an_occupied_folder(tmp_path):
    (tmp_path / "note").touch()
    with pytest.raises(UserError, match="not empty"):
        render_to_disk(tmp_path, train=1, val=0, test=0)
    with pytest.raises(UserError, match="at least one to train on"):
        render_to_disk(tmp_path / "new", train=0)
