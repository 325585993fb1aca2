"""What one would use instead, written from its published settings.

- `train_example`: the PyTorch basic MNIST example (github.com/pytorch/examples, mnist/main.py): two
  convolutions, Adadelta at 1.0, decayed by 0.7 an epoch, batches of 64, its DataLoader.
- `train_common`: this project's reference architecture as it is commonly written: convolution,
  batch norm, ReLU, pooling, in NCHW and float32; a DataLoader that turns and shifts one image at a
  time; Adam at 1e-3, batches of 64.
- `fit_classical`: scikit-learn's support vector machine with an RBF kernel (C = 5, gamma = 0.05 on
  pixels in [0, 1]) and its three nearest neighbours.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mnist_nbdev.data.sources import Split

MEAN, DEVIATION = (0.1307,), (0.3081,)


class ExampleNet(nn.Module):
    "The net of the PyTorch basic MNIST example: two convolutions, 1.2 M parameters."

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = self.dropout1(x).flatten(1)
        return F.log_softmax(self.fc2(self.dropout2(F.relu(self.fc1(x)))), dim=1)


class CommonNet(nn.Module):
    "The reference architecture, as one finds it: 422,250 parameters."

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], 1
        for width in (32, 64, 128):
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            *(nn.Flatten(), nn.Linear(1152, 256), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.classifier(self.features(x)), dim=1)


class Images(torch.utils.data.Dataset):
    "Images one at a time, each through its transforms, as torchvision's MNIST gives them."

    def __init__(self, split: Split, *changes: nn.Module) -> None:
        from torchvision import transforms

        steps = [*changes, transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
        self.split, self.transform = split, transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.split.images[index])
        return self.transform(image), int(self.split.labels[index])


def _epoch(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> None:
    net.train()
    for images, labels in loader:
        optimizer.zero_grad()
        F.nll_loss(net(images), labels).backward()
        optimizer.step()


def train_example(split: Split, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = ExampleNet()
    optimizer = torch.optim.Adadelta(net.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    loader = DataLoader(Images(split), batch_size=64, shuffle=True)
    for _ in range(epochs):
        _epoch(net, loader, optimizer)
        schedule.step()
    return net


def train_common(split: Split, epochs: int, seed: int) -> nn.Module:
    from torchvision import transforms

    torch.manual_seed(seed)
    net = CommonNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    changes = transforms.RandomAffine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1))
    loader = DataLoader(Images(split, changes), batch_size=64, shuffle=True)
    for _ in range(epochs):
        _epoch(net, loader, optimizer)
    return net


def fit_classical(split: Split, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    "Fit `svm` or `knn`; what comes back predicts the labels of images."
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    model = SVC(C=5, gamma=0.05, cache_size=2000) if kind == "svm" else KNeighborsClassifier(3)
    model.fit(_as_rows(split.images), split.labels)
    return lambda images: model.predict(_as_rows(images))


def _as_rows(images: np.ndarray) -> np.ndarray:  # (N, 784), pixels in [0, 1]
    return images.reshape(len(images), -1).astype(np.float32) / 255


def net_predictions(net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    "Labels as the net sees them, its normalisation done outside of it."

    def predict(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
        with torch.inference_mode():
            batches = ((pixels - MEAN[0]) / DEVIATION[0]).split(500)
            return torch.cat([net.eval()(batch).argmax(1) for batch in batches]).numpy()

    return predict
