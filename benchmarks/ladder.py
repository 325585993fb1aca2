"""The steps from the reference net as commonly written to the library's loop, one change at a time.

Each rung keeps what the ones before it changed, and trains one epoch. nbs/ladder.ipynb tells what
each of them gave; the last rungs are the library's own training and stand in bench.py.
"""

import contextlib

import torch
from peers import CommonNet, train_common
from torch import nn
from torch.nn import functional as F

from mnist_nbdev.base.training_settings import AugmentationSettings
from mnist_nbdev.data.augmentation import augment
from mnist_nbdev.data.sources import Split
from mnist_nbdev.model.optimization import processor_settings

RUNGS = ["common", "resident", "batch_128", "channels_last", "pool_first", "bf16", "processor"]


class PoolFirst(CommonNet):
    "The same net with the pooling before the batch norm."

    def __init__(self) -> None:
        super().__init__()
        convolution_to_pool = [0, 3, 1, 2, 4, 7, 5, 6, 8, 11, 9, 10]
        self.features = nn.Sequential(*(self.features[index] for index in convolution_to_pool))


def train_rung(split: Split, rung: str, seed: int) -> nn.Module:
    "One epoch with every change up to and with this rung's."
    changes = RUNGS[: RUNGS.index(rung) + 1]
    if rung == "common":
        return train_common(split, 1, seed)
    torch.manual_seed(seed)
    net = PoolFirst() if "pool_first" in changes else CommonNet()
    layout = torch.channels_last if "channels_last" in changes else torch.contiguous_format
    net.to(memory_format=layout).train()
    size = 128 if "batch_128" in changes else 64
    fused = "processor" in changes
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)
    images = torch.from_numpy(split.images)[:, None]
    labels = torch.from_numpy(split.labels.astype("int64"))
    draws = torch.Generator().manual_seed(seed)
    with processor_settings(0) if "processor" in changes else contextlib.nullcontext():
        for batch in torch.randperm(len(images), generator=draws).split(size):
            changed = augment(images[batch].float(), AugmentationSettings(), draws)
            pixels = ((changed / 255 - 0.1307) / 0.3081).to(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in changes):
                scores = net(pixels)
            optimizer.zero_grad()
            F.nll_loss(scores.float(), labels[batch]).backward()
            optimizer.step()
    return net
