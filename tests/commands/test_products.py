import pytest
import torch

from lcg_lightning.commands.products import faster_products


@pytest.fixture(autouse=True)
def an_amd_cpu(tmp_path, monkeypatch):
    """On every machine; the products themselves are the machine's own."""
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD")
    monkeypatch.setattr("lcg_lightning.commands.products._CPU", tmp_path / "cpuinfo")


def test_products_keep_the_precision_of_float32():
    with faster_products():
        for rows in (1, 16, 256):
            a, b = torch.randn(rows, 512), torch.randn(512, 384)
            exact = a.double() @ b.double()
            assert (a @ b - exact).norm() < 2e-6 * exact.norm()  # bfloat16: 3e-3


def test_a_command_that_fails_leaves_the_precision_as_it_was():
    with pytest.raises(RuntimeError), faster_products():
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("fitting", "precision"), [(True, "high"), (False, "highest")])
def test_beside_a_gpu_only_a_fit_multiplies_in_tf32(fitting, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.backends.cudnn.allow_tf32
    with faster_products(fitting):
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 == fitting
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32 == before
