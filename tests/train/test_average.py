"""Polyak averaging against NumPy by hand."""

import numpy as np
import torch
from torch import nn

from vitexp.train.average import averaged, take_in


def test_the_average_is_the_weighted_mean_of_all_weights_so_far():
    draw, decay, network = np.random.default_rng(0), 0.9, nn.Linear(3, 2).double()
    average, seen = averaged(network), []
    for step in range(1, 6):
        seen.append(draw.normal(size=(2, 3)))
        network.weight.data.copy_(torch.tensor(seen[-1]))
        take_in(average, network, decay, step)
        shares = decay ** np.arange(step - 1, -1, -1)
        by_hand = np.tensordot(shares / shares.sum(), np.array(seen), 1)
        np.testing.assert_allclose(average.weight.detach().numpy(), by_hand, rtol=1e-12)


def test_buffers_are_those_of_the_network_as_in_torch_s_own_average():
    network = nn.BatchNorm1d(3)
    average, theirs = averaged(network), torch.optim.swa_utils.AveragedModel(network)
    network(torch.arange(12.0).view(4, 3))
    take_in(average, network, 0.9, 1)
    theirs.update_parameters(network)
    assert average.num_batches_tracked == 1
    assert torch.equal(average.running_mean, theirs.module.running_mean)
    assert average.running_mean.any()


def test_the_start_is_no_part_of_it():
    network = nn.Linear(3, 2)
    average = averaged(network)
    nn.init.constant_(network.weight, 7.0)
    take_in(average, network, 0.9999, 1)
    assert torch.equal(average.weight, network.weight)
    assert not any(parameter.requires_grad for parameter in average.parameters())
