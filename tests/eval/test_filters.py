import numpy as np
import torch
from sklearn.decomposition import PCA

from vitexp.eval.attention_maps import principal_filters


def test_components_and_shares_are_those_of_scikit_learn():
    torch.manual_seed(0)
    weight = torch.randn(64, 3, 4, 4) * torch.linspace(0.1, 3, 4) + 1
    filters, shares = principal_filters(weight, 10)
    pca = PCA(10).fit(weight.flatten(1).double().numpy())
    ours = filters.flatten(1).numpy()
    # A component has no sign of its own.
    signs = np.sign((ours * pca.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours, signs * pca.components_, atol=1e-9)
    np.testing.assert_allclose(shares.numpy(), pca.explained_variance_ratio_, atol=1e-12)
    assert filters.shape == (10, 3, 4, 4)
    largest = np.take_along_axis(ours, np.abs(ours).argmax(axis=1, keepdims=True), axis=1)
    assert (largest > 0).all()


def test_there_are_no_more_components_than_pixels():
    assert len(principal_filters(torch.randn(64, 3, 2, 2))[0]) == 12
